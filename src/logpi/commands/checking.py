"""`logpi check`, `derive` and `doctor`."""

import contextlib
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import tyro

from logpi.commands.values import EnvironmentArguments
from logpi.core.errors import LogpiError


@dataclass
class Derive:
    """The derivation, line by line, with both sides of every equation computed on a finite MDP."""

    mdp: str | None = None
    """A JSON file that describes a finite MDP, or the name of one; by default stay-or-leave."""
    random: int | None = None
    """Draw a small MDP from this seed instead, and the policy too; otherwise the policy is drawn
    from seed 0."""
    json: bool = False
    """Print tag, equation, both sides and their difference as JSON."""
    report: Path | None = None
    """Write a page of HTML: every line typeset, a trajectory by hand, sampled gradients."""

    def run(self) -> None:
        import numpy as np

        from logpi.theory.derivation.sides import derive
        from logpi.theory.derivation.text import as_text
        from logpi.theory.processes import load_mdp, random_mdp

        if self.random is not None and self.mdp is not None:
            raise LogpiError("--mdp and --random exclude each other")
        if self.random is not None and self.random < 0:
            raise LogpiError(f"random must be a whole number >= 0, got {self.random}")
        generator = np.random.default_rng(self.random or 0)
        if self.random is None:
            mdp = load_mdp(self.mdp or "stay-or-leave")
        else:
            mdp = random_mdp(generator)
        derivation = derive(mdp, generator.normal(size=(mdp.observations, mdp.actions)))
        print(json.dumps(derivation.to_json()) if self.json else as_text(derivation))
        if self.report is not None:
            from logpi.artifacts.derivation_page import write_derivation

            write_derivation(derivation, self.report)


@dataclass
class Check:
    """The exact expectation and variance of an estimator, against the exact policy gradient.

    ESTIMATOR is FILE.py:NAME, a function whose parameter names select what it gets and which
    returns the loss that its author would minimise (PyTorch, JAX or NumPy), or an array of weights
    of ∇ log π shaped as log_prob. Exit status: 0 for exact, 1 for any other verdict, 2 for what
    cannot be checked.
    """

    estimator: tyro.conf.Positional[str]
    layout: Literal["batch", "episode", "rollout"] = "batch"
    """Arrays [episodes, time] with a mask; 1-D arrays, one call per episode; [time, env] streams
    with auto-reset."""
    target: str = "discounted"
    """The objective whose gradient is expected: discounted, undiscounted, conventional (no γ^t),
    continuing (beyond the time limit), conventional-continuing, policy, reverse-kl, forward-kl,
    reverse-kl-per-step, forward-kl-per-step, entropy, entropy-objective, entropy-regularised,
    entropy-bonus, regularised (J - β KL of whole sequences), regularised-per-step, best-of-k,
    pass-at-k, objective."""
    discount: float = 0.9
    """γ of the decision processes, and `discount` of the estimator."""
    maximize: bool = False
    """The function returns an objective to maximise, not a loss."""
    sampler: str | None = None
    """FILE.py:FUNCTION from logits to the probabilities with which actions are really drawn:
    ε-greedy, masks, temperature, clipping."""
    exact_critic: bool = False
    """Give the exact V as `value`, instead of numbers that are wrong on purpose."""
    kl_coefficient: float | None = None
    """β of the two regularised targets; by default 0.1."""
    entropy_coefficient: float = 0.01
    """Weight of the entropy in the targets entropy-regularised and entropy-bonus."""
    framework: Literal["numpy", "torch", "jax"] | None = None
    """The library of the loss and of what computes its advantages; by default their code tells."""
    objective: str | None = None
    """FILE.py:NAME of the objective itself, a function of what was played that returns a number for
    each episode, or one for the group: the target is the gradient of its expectation."""
    k: int | None = None
    """k of best-of-k and pass-at-k; by default the size of the group."""
    advantage: str | None = None
    """FILE.py:NAME of what computes the loss's `advantages`, once for each batch and as data."""
    micro_batches: int = 1
    """Call the loss on this many parts of a batch and accumulate their gradients."""
    accumulate: Literal["mean", "sum"] | None = None
    """How the gradients of the micro-batches are accumulated; by default their mean."""
    state: bool = False
    """The estimator is an object that keeps a state: check it with the state that it has after
    three batches."""
    mdp: str | None = None
    """Check on this finite MDP too: a name or a JSON file, as in logpi derive."""
    actions: Literal["discrete", "gaussian", "tanh-gaussian"] = "discrete"
    """Actions of the probes: discrete, or one step with a Gaussian action that is clipped to
    [-1, 1], or squashed by tanh. Losses then ask for mean, log_std, raw_action and action."""
    random_probes: int = 0
    """Add the range of the bias over so many random probes: its size depends on the probe."""
    json: bool = False
    """Print the report as JSON."""
    plot: Path | None = None
    """Draw the credit matrix beside the right one into this PNG."""
    report: Path | None = None
    """Write a page of HTML: verdict, causes, credit matrix, bias and variance."""

    def run(self) -> int:
        from logpi.checking.checker import check
        from logpi.checking.picture import plot_credit
        from logpi.core.user_files import load_function
        from logpi.theory.processes import load_mdp

        if self.json:
            elsewhere = contextlib.redirect_stdout(sys.stderr)
        else:
            elsewhere = contextlib.nullcontext()
        with elsewhere:  # what the user's own code prints is no JSON
            report = check(
                load_function(self.estimator),
                layout=self.layout,
                target=self.target,
                discount=self.discount,
                maximize=self.maximize,
                sampler=_function(self.sampler),
                exact_critic=self.exact_critic,
                entropy_coefficient=self.entropy_coefficient,
                kl_coefficient=self.kl_coefficient,
                framework=self.framework,
                objective=_function(self.objective),
                k=self.k,
                advantage=_function(self.advantage),
                micro_batches=self.micro_batches,
                accumulate=self.accumulate,
                state=self.state,
                mdp=None if self.mdp is None else load_mdp(self.mdp),
                actions=self.actions,
                random_probes=self.random_probes,
            )
        print(json.dumps(report.to_json()) if self.json else report)
        if self.plot is not None:
            plot_credit(report, self.plot)
        if self.report is not None:
            from logpi.artifacts.check_page import write_check

            write_check(report, self.estimator, self.report)
        return int(report.verdict != "exact")


def _function(source: str | None) -> Callable[..., Any] | None:
    """The user's function, if one is named."""
    from logpi.core.user_files import load_function

    if source is None:
        return None
    return load_function(source)


@dataclass
class Doctor:
    """Take random actions in an environment, and compare what it returns with what it declares.

    Exit status: 0, 1 where something is wrong, 2 for an environment that cannot be made or fails.
    """

    environment: tyro.conf.Positional[str]
    steps: int = 2000
    """Random actions to take."""
    max_episode_steps: int | None = None
    """Replace the environment's time limit."""
    env_kwargs: EnvironmentArguments = field(default_factory=dict)
    """Arguments with which the environment is made."""
    wrapper: str | None = None
    """FILE.py:NAME of a wrapper of the environment."""
    json: bool = False
    """Print the findings as JSON."""

    def run(self) -> int:
        from logpi.environments.doctor import examine, to_json
        from logpi.environments.options import EnvironmentOptions

        options = EnvironmentOptions(self.max_episode_steps, self.env_kwargs, self.wrapper)
        findings = examine(self.environment, self.steps, options)
        print(json.dumps(to_json(findings)) if self.json else "\n".join(map(str, findings)))
        return int(any(finding.status == "wrong" for finding in findings))
