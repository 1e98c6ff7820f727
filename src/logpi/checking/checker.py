"""`logpi.check`: the exact expectation and variance of an estimator, against the exact gradient."""

import contextlib
import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal, TypeAlias, get_args

from threadpoolctl import threadpool_limits

from logpi.checking.composing import GIVEN, Accumulation, Calling, from_state, given_name
from logpi.checking.continuous.check import check_gaussian
from logpi.checking.continuous.process import GAUSSIAN_NAMES, GaussianActions
from logpi.checking.expectation import Critic
from logpi.checking.frameworks import find_framework, make_framework, sampled_law
from logpi.checking.measuring import Advantages, Trial
from logpi.checking.objectives import OF_GROUPS, Objective, make_objective
from logpi.checking.probes import MOST_EPISODES, Probes, all_pass_or_fail, make_probes
from logpi.checking.question import Question
from logpi.checking.report import CheckReport
from logpi.checking.request import FrameworkName
from logpi.checking.targets import TARGETS, Coefficients
from logpi.core.checks import is_real, is_whole, require
from logpi.core.errors import LogpiError
from logpi.core.user_files import name_of
from logpi.estimators.contract import NAMES, Estimator, Layout, as_estimator, requested_names
from logpi.theory.mdp import FiniteMDP

# Products are small in a check: BLAS's own threads would hinder more than they help.
BLAS_THREADS = 1
KL_COEFFICIENT = 0.1
GIVEN_ITS_PAST = "every batch is evaluated from the state after three batches: given that past"
Actions: TypeAlias = Literal["discrete"] | GaussianActions


def check(
    estimator: Estimator,
    *,
    layout: Layout = "batch",
    target: str = "discounted",
    discount: float = 0.9,
    maximize: bool = False,
    sampler: Callable[..., Any] | None = None,
    exact_critic: bool = False,
    entropy_coefficient: float = 0.01,
    kl_coefficient: float | None = None,
    framework: FrameworkName | None = None,
    objective: Callable[..., Any] | None = None,
    k: int | None = None,
    advantage: Estimator | None = None,
    micro_batches: int = 1,
    accumulate: Accumulation | None = None,
    state: bool = False,
    mdp: FiniteMDP | None = None,
    actions: Actions = "discrete",
    random_probes: int = 0,
) -> CheckReport:
    """E[ĝ] of `estimator` over all batches of small decision processes, against the exact gradient
    of `target`.

    `estimator`'s parameter names select what it gets (`logpi.estimators.contract.NAMES`, or what
    libraries for language models call it, `ALIASES`). It
    returns the loss that its author would minimise (an objective with `maximize`), or an array
    shaped as `log_prob`: weights of ∇ log π. `sampler` is a function of `logits` that returns the
    probabilities with which actions are really drawn. `exact_critic` gives V^π as `value`, instead
    of numbers that are wrong on purpose. `kl_coefficient` is the β of the regularised targets, 0.1
    by default.

    `objective` makes the target the one of that name: a function of what was played
    (`logpi.checking.objectives.PLAYED`) in NumPy: a number for each episode of a group, or one for
    the group. `k` is that of the targets best-of-k and pass-at-k, by default the size of the group.
    `advantage` computes what the loss asks for as `advantages`, once for a batch and without a
    gradient. The loss is called on `micro_batches` parts, whose gradients `accumulate` to their
    mean, by default, or to their sum. With `state` the estimator is an object that changes from
    batch to batch: each batch is evaluated from the state that it has after three. `mdp` is a
    process beside the probes, with this `discount`. With `actions` "gaussian" or "tanh-gaussian"
    the probes are one step with a continuous action
    (`logpi.checking.continuous.process.GAUSSIAN_NAMES`), clipped to [-1, 1] or squashed by tanh,
    and expectations are integrals by quadrature. The size of a bias depends on the probe:
    `random_probes` adds the range over so many random ones, in the smallest batches.

    **Raises:** `LogpiError` for an estimator that cannot be called, differentiated or trusted: an
    unknown name, a wrong return type, no gradient, NaN, randomness, changed inputs, an exception.
    """
    if objective is not None and target == "discounted":
        target = "objective"
    beta = KL_COEFFICIENT if kl_coefficient is None else kl_coefficient
    coefficients = Coefficients(entropy_coefficient, beta)
    _require_one_of("target", tuple(TARGETS), target)
    _require_one_of("layout", get_args(Layout), layout)
    _require_one_of("framework", (None, *get_args(FrameworkName)), framework)
    _require_one_of("accumulate", (None, *get_args(Accumulation)), accumulate)
    _require_one_of("actions", ("discrete", *get_args(GaussianActions)), actions)
    _require_numbers(discount, coefficients, micro_batches, random_probes)
    is_process = mdp is None or isinstance(mdp, FiniteMDP)
    require(is_process, "mdp", "a logpi.FiniteMDP", mdp)
    own_objective = make_objective(target, objective, k)
    _require_episodes(layout, sampler, own_objective, micro_batches)
    if actions != "discrete":
        _refuse_beside(
            actions,
            layout=layout != "batch",
            sampler=sampler is not None,
            objective=own_objective is not None,
            kl_coefficient=kl_coefficient is not None,
            advantage=advantage is not None,
            micro_batches=micro_batches > 1,
            state=state,
            mdp=mdp is not None,
            exact_critic=exact_critic,
            random_probes=random_probes > 0,
        )
        with threadpool_limits(BLAS_THREADS, "blas"):
            return check_gaussian(
                estimator, actions, target, discount, maximize, entropy_coefficient, framework
            )

    if accumulate is not None and micro_batches == 1:
        raise LogpiError("accumulate is about several micro-batches: give their number too")
    calling = Calling(layout, micro_batches, accumulate or "mean")
    checked = estimator
    going_on = estimator
    if state:
        going_on, checked = from_state(estimator)
    trial = _make_trial(
        checked,
        calling,
        framework,
        advantage,
        sign=-1.0 if maximize else 1.0,
        sampler=sampler,
        coefficients=coefficients,
        objective=own_objective,
    )
    if kl_coefficient is not None:
        _require_reference(estimator, trial)
    probes, *others = _draw_probes(target, discount, mdp, random_probes)
    notes: tuple[str, ...] = ()
    if state:
        trial.warm_up(make_framework(trial.framework.name, calling.of(going_on)), probes)
        notes = (GIVEN_ITS_PAST,)
    critic = Critic(exact_critic, "continuing" in target)
    with threadpool_limits(BLAS_THREADS, "blas"):
        report = Question(trial, target, critic, probes, tuple(others)).report()
    return replace(report, notes=(*notes, *report.notes))


def _make_trial(
    estimator: Estimator,
    calling: Calling,
    framework: FrameworkName | None,
    advantage: Estimator | None,
    *,
    sign: float,
    sampler: Callable[..., Any] | None,
    coefficients: Coefficients,
    objective: Objective | None,
) -> Trial:
    """The estimator as it is called, in its framework, beside what computes its advantages.

    **Raises:** `LogpiError` where it asks for what there is not.
    """
    called = calling.of(estimator)
    _require_discrete(called)
    advantages = _find_advantages(called, advantage, calling.layout, framework)
    known = dict(NAMES)
    if advantages is not None:
        known[advantages.name] = "what is computed before"
    asked = requested_names(called, known)
    return Trial(
        framework=make_framework(framework or find_framework(called), called),
        own_names=tuple(name for name in asked if name in NAMES),
        layout=calling.layout,
        sign=sign,
        sampler=sampler and sampled_law(sampler),
        coefficients=coefficients,
        objective=objective,
        micro_batches=calling.micro_batches,
        advantages=advantages,
    )


def _draw_probes(
    target: str, discount: float, mdp: FiniteMDP | None, random_probes: int
) -> list[Probes]:
    """Those that are always the same, then the random ones."""
    drawn = [make_probes(discount, mdp)]
    drawn += [make_probes(discount, seed=seed) for seed in range(random_probes)]
    if target == "pass-at-k":
        drawn = [all_pass_or_fail(each) for each in drawn]
    return drawn


def _find_advantages(
    loss: Estimator,
    advantage: Estimator | None,
    layout: Layout,
    framework: FrameworkName | None,
) -> Advantages | None:
    """What computes the advantages that a loss asks for.

    **Raises:** `LogpiError` where only one of the two is there.
    """
    given = given_name(loss)
    name = name_of(loss)
    if given is None and advantage is not None:
        asked = f"{name} does not ask for what {name_of(advantage)} computes"
        raise LogpiError(f"{asked}: add a parameter {GIVEN[0]!r}")
    if given is not None and advantage is None:
        missing = "say what computes them with --advantage FILE.py:NAME"
        raise LogpiError(f"{name} asks for {given!r}: {missing}")
    if given is None or advantage is None:
        return None
    own = as_estimator(advantage, layout)
    made = make_framework(framework or find_framework(own), own)
    return Advantages(given, made, requested_names(own, NAMES))


def _refuse_beside(actions: Actions, **options: bool) -> None:
    """Options that are about steps or discrete actions have no meaning for one Gaussian action;
    each says whether it is given.

    **Raises:** `LogpiError` that names the first that is given.
    """
    for name, is_given in options.items():
        if is_given:
            raise LogpiError(f"{name} has no meaning for one {actions} action: leave it out")


def _require_reference(estimator: Estimator, trial: Trial) -> None:
    """A coefficient of a KL to a reference is given to an estimator that has one.

    **Raises:** `LogpiError`.
    """
    if "reference_log_prob" not in trial.names:
        raise LogpiError(
            f"kl_coefficient is about a KL to a reference, and {name_of(estimator)} does not ask"
            " for reference_log_prob: leave it out"
        )


def _require_discrete(estimator: Estimator) -> None:
    """What only a continuous action has is not asked for.

    **Raises:** `LogpiError` that says how to get it.
    """
    asked: Sequence[str] = ()
    with contextlib.suppress(TypeError, ValueError):  # what has no signature is refused later
        asked = [*inspect.signature(estimator).parameters]
    for name in asked:
        if name in GAUSSIAN_NAMES and name not in NAMES:
            raise LogpiError(
                f"{name_of(estimator)} asks for {name!r}, which continuous actions have:"
                " use --actions gaussian or --actions tanh-gaussian"
            )


def _require_one_of(name: str, known: tuple[str | None, ...], value: object) -> None:
    words = " or ".join(each for each in known if each is not None)
    require(value in known, name, words, value)


def _require_numbers(
    discount: float, coefficients: Coefficients, micro_batches: int, random_probes: int
) -> None:
    in_range = is_real(discount) and 0 <= discount <= 1
    require(in_range, "discount", "a number in [0, 1]", discount)
    for name, coefficient in coefficients._asdict().items():
        is_number = is_real(coefficient) and abs(coefficient) < float("inf")
        require(is_number, f"{name}_coefficient", "a number", coefficient)
    is_count = is_whole(micro_batches) and 1 <= micro_batches <= MOST_EPISODES
    count = f"a whole number from 1 to {MOST_EPISODES}: batches have no more episodes"
    require(is_count, "micro_batches", count, micro_batches)
    is_number = is_whole(random_probes) and 0 <= random_probes <= 1000
    require(is_number, "random_probes", "a whole number from 0 to 1000", random_probes)


def _require_episodes(
    layout: Layout, sampler: object, objective: Objective | None, micro_batches: int
) -> None:
    """What is made of whole episodes, or of several of them, needs a layout that has them."""
    if micro_batches > 1 and layout != "batch":
        raise LogpiError("micro-batches are parts of a batch of episodes: use layout 'batch'")
    if objective is None:
        return
    if layout == "rollout" or (layout == "episode" and objective.target in OF_GROUPS):
        raise LogpiError(f"target {objective.target!r} needs layout 'batch', not {layout!r}")
    if sampler is not None:
        raise LogpiError(
            f"target {objective.target!r} is that of the policy: leave out the sampler"
        )
