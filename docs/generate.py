"""Write the pages that the program computes; with `--check`, only say whether they are current."""

import inspect
import json
import sys
from pathlib import Path

import numpy as np

import logpi
from logpi import A2C, PPO, TRPO, PPOPenalty, Reinforce
from logpi.estimators.contract import Estimator
from logpi.methods.library_estimators import (
    off_policy_estimator,
    on_first_step,
    reference_estimator,
    reinforce_loss,
    rollout_loss,
)
from logpi.theory.derivation.sides import derive
from logpi.theory.derivation.text import as_page
from logpi.theory.processes import stay_or_leave

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS.parent / "examples"))


def derivation_page() -> str:
    mdp = stay_or_leave()
    return as_page(
        derive(mdp, np.random.default_rng(0).normal(size=(mdp.observations, mdp.actions)))
    )


WHOLE_EPISODES = {
    "reinforce (the default: `--baseline value`, here a critic that is wrong on purpose)": {},
    "reinforce `--baseline none`": {"baseline": "none"},
    "reinforce `--baseline leave-one-out`": {"baseline": "leave-one-out"},
    "reinforce `--returns whole`": {"returns": "whole"},
    "reinforce `--returns whole --baseline none`": {"returns": "whole", "baseline": "none"},
    "reinforce `--returns whole --baseline leave-one-out`": {
        "returns": "whole",
        "baseline": "leave-one-out",
    },
    "reinforce `--drop-discount-power --baseline none` (BIASED)": {
        "baseline": "none",
        "drop_discount_power": True,
    },
    "reinforce `--whiten --baseline none` (BIASED)": {"baseline": "none", "whiten": True},
}
EXACT = {"discount": 0.9, "trace_decay": 1.0}
FIRST_STEPS = {
    "a2c `--trace-decay 1`": A2C(**EXACT),
    "a2c (λ = 0.95)": A2C(discount=0.9),
    "ppo `--trace-decay 1`, first step": PPO(**EXACT),
    "ppo, first step": PPO(discount=0.9),
    "ppo `--whiten`, first step (BIASED)": PPO(discount=0.9, whiten=True),
    "ppo-penalty `--trace-decay 1`, first step, where the penalty has no gradient": PPOPenalty(
        **EXACT
    ),
    "npg and trpo `--trace-decay 1`, before F⁻¹": TRPO(**EXACT),
    "npg and trpo, before F⁻¹": TRPO(discount=0.9),
}
LATER_STEPS = {
    "ppo `--trace-decay 1`, later steps": PPO(**EXACT),
    "ppo `--trace-decay 1 --clip inf`, later steps": PPO(clip=float("inf"), **EXACT),
    "ppo-penalty `--trace-decay 1`, later steps, without the penalty": PPOPenalty(**EXACT),
}
PARTS = {
    "`--reference`, the distance alone": (reference_estimator(), "reverse-kl"),
    "episodes of an older policy, per-decision importance weights": (
        off_policy_estimator(0.9),
        "discounted",
    ),
    "episodes of an older policy, V-trace": (
        off_policy_estimator(0.9, ratio_limit=1.0),
        "discounted",
    ),
}


def library_estimators() -> dict[str, tuple[Estimator, str]]:
    """Each with the target whose gradient it should have."""
    found: dict[str, tuple[Estimator, str]] = {}
    for name, options in WHOLE_EPISODES.items():
        found[name] = reinforce_loss(Reinforce(discount=0.9, **options)), Reinforce.target
    for name, method in FIRST_STEPS.items():
        found[name] = on_first_step(rollout_loss(method)), method.target
    for name, method in LATER_STEPS.items():
        found[name] = rollout_loss(method), method.target
    return found | PARTS


def estimators_page() -> str:
    """Every estimator of the library under its own check."""
    rows = []
    for name, (estimator, target) in library_estimators().items():
        report = logpi.check(estimator, target=target)
        found = report.matches[0] if report.verdict == "other-target" else report.target
        bias = "0" if report.verdict in ("exact", "other-target") else f"{report.relative_bias:.2g}"
        causes = (
            ", ".join(hint.name for hint in report.diagnosis[:2])
            if report.verdict == "biased"
            else ""
        )
        variance = report.variance
        ratio = "" if variance.ratio is None else f"{variance.ratio:.2f} (N = {variance.episodes})"
        rows.append(f"| {name} | {report.verdict} | {found} | {bias} | {causes} | {ratio} |")
    return f"""# The library's own estimators under `logpi check`

Expected gradient over all batches, γ = 0.9, by the functions that train: `logpi.methods.library_estimators`. Later steps are
those along a rollout that the policy before the first step has played: ρ is not 1. The targets:
*discounted* is ∇J [D4.4], *conventional* leaves γ^t out, *continuing* goes on beyond the time limit, *reverse-kl* is
-∇KL(π, π_ref) of whole trajectories. A bias of 0 is below 1e-10. The critic is wrong on purpose, so every λ < 1 shows;
with the right one λ does no harm. Variance is that of one gradient, relative to the best state baseline; an estimator
without bias can have more. Written by `python docs/generate.py`.

| estimator | verdict | target | relative bias | causes | variance, relative |
|---|---|---|---|---|---|
{chr(10).join(rows)}
"""


NOT_REACHED = {
    "dropout-batchnorm": "the policy of the probes is a table",
    "hidden-state": "the policy of the probes has no memory",
    "frame-stack-leak": "the policy of the probes has no memory",
    "nextstep-autoreset-row": (
        "rollouts of the check have no such row; it leaves the policy's expectation exact"
    ),
    "vtrace-shuffled": "needs rows resampled from several batches",
    "meta-gradient": "second derivatives",
}


def bugs_page() -> str:
    """Each known mistake: verdict, bias, and what the check calls it."""
    from bugs import BUGS

    sources = json.loads((DOCS / "bug_sources.json").read_text())
    rows, first, wrong = [], 0, 0
    for bug in BUGS:
        report = logpi.check(bug.estimator, **bug.options)
        named = report.diagnosis[0].name if report.diagnosis else ""
        wrong += report.verdict != "exact"
        first += named != ""
        scale = f", k = {report.scale_name}" if report.scale_name else ""
        match = f": {report.matches[0]}" if report.verdict == "other-target" else ""
        bias = f"{report.relative_bias:.2g}" if report.relative_bias > 1e-10 else "0"
        about = sources.get(bug.name, {"what": "", "kind": "", "sources": ""})
        rows.append(
            f"| {bug.name} | [`{bug.estimator.__name__}`](../examples/bugs.py) | {about['kind']} | "
            f"{report.verdict}{match}{scale} | {bias} | {named} | {about['sources']} |"
        )
    missing = "\n".join(
        f"| {name} | {sources[name]['what']} | {why} |" for name, why in NOT_REACHED.items()
    )
    return f"""# Known mistakes and deliberate biases, under `logpi check`

Each row is a function of [examples/bugs.py](../examples/bugs.py), written as public code has it; the cited code was not
run. *Deliberate* says that authors do it knowingly, for less variance or by convention. {wrong} of the {len(BUGS)} rows
are not exact, and {first} of these have a diagnosis; the name is the one listed first. Written by
`python docs/generate.py`.

| entry | function | kind | verdict | relative bias | named first | sources |
|---|---|---|---|---|---|---|
{chr(10).join(rows)}

## What enumeration does not reach

| entry | what | why |
|---|---|---|
{missing}
"""


def language_models_page() -> str:
    """Published losses for language models: their code, and what the check says of them."""
    import language_models as losses

    published = (
        losses.rloo,
        losses.grpo,
        losses.dr_grpo,
        losses.dapo,
        losses.gspo,
        losses.cispo,
        losses.gpg,
        losses.opo,
        losses.reinforce_plus_plus,
        losses.ppo_with_critic,
    )
    rows = []
    sections = []
    for loss in (*published, losses.kl_in_the_reward, losses.k3_in_the_loss):
        parameters = inspect.signature(loss).parameters
        target = "regularised" if "reference_log_prob" in parameters else "undiscounted"
        report = logpi.check(loss, target=target, framework="jax")
        first = report
        later = "not meant for it"
        if "old_log_prob" in parameters:
            later = in_words(report)
            first = logpi.check(on_first_step(loss), target=target, framework="jax")
        ratio = first.variance.ratio
        variance = "" if ratio is None or first.verdict != "exact" else f"{ratio:.2f}"
        title = loss.__doc__.partition(" (")[0].partition(":")[0]
        if loss not in published:
            title = loss.__name__.replace("_", " ")
        rows.append(f"| {title} | {in_words(first)} | {later} | {variance} |")
        sections.append(
            f"## {title}\n\n{causes_in_words(report)}\n\n"
            f"```python\n{inspect.getsource(loss).rstrip()}\n```"
        )
    return f"""# Losses for language models

An autoregressive policy is a finite process: its state is the prompt and what was written so far. So `logpi check`
covers the losses that language models are trained with. Below are published ones, as their papers and libraries write
them, in ten lines each of [examples/language_models.py](../examples/language_models.py), whose first functions are the
parts that they share. Nothing here says that a biased loss trains badly: most of these biases are deliberate, for less
variance or by convention. The page says what each is.

The target is ∇J of the plain sum of rewards; for the last two ∇(J - β KL) of whole answers with β = 0.1. *First step*:
the policy that is updated is the one that wrote the answers. *Later*: it is not any more. G is the number of
answers to a prompt. Variance is that of two answers to one prompt, relative to the best state baseline; it is given for
losses of rewards that are exact on the first step. Written by `python docs/generate.py`.

    logpi check examples/language_models.py:grpo --target undiscounted
    logpi check examples/language_models.py:k3_in_the_loss --target regularised  # the last two rows

| loss | first step | later | variance, relative |
|---|---|---|---|
{chr(10).join(rows)}

## The parts that they share

```python
{chr(10).join(inspect.getsource(part) + chr(10) for part in shared_parts(losses)).rstrip()}
```

{(chr(10) * 2).join(sections)}
"""


def shared_parts(losses):
    return (losses.score_of, losses.over_group, losses.standardised, losses.clipped)


def in_words(report) -> str:
    """The verdict, its factor, and the causes."""
    causes = ", ".join(cause.name for cause in report.diagnosis)
    if report.verdict == "exact":
        return "exact"
    if report.verdict == "scaled":
        return f"exact × {report.scale_name}"
    return f"{report.verdict}: {causes}"


def causes_in_words(report) -> str:
    """Each cause with its remedy."""
    if report.verdict == "exact":
        return "Exact."
    lines = [
        f"- *{cause.name}*: {cause.explanation}. To be exact: {cause.remedy}."
        for cause in report.diagnosis
    ]
    return "\n".join(lines)


PAGES = {
    "derivation.md": derivation_page,
    "estimators.md": estimators_page,
    "bugs.md": bugs_page,
    "language-models.md": language_models_page,
}


def main() -> int:
    """Write or compare the pages."""
    check = "--check" in sys.argv
    stale = []
    for name, page in PAGES.items():
        path, text = DOCS / name, page()
        if not path.is_file() or path.read_text() != text:
            stale.append(name)
            if not check:
                path.write_text(text)
    print("stale:" if check else "written:", ", ".join(stale) or "none")
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
