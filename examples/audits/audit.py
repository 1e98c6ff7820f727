"""One table of estimators as public libraries and tutorials compute them: `python
examples/audits/audit.py`.

    python -m venv audits && . audits/bin/activate
    pip install -r examples/audits/requirements.txt '.[torch]'
    pip install --no-deps -r examples/audits/requirements-alone.txt
    python examples/audits/audit.py > table.md

A bias that authors take on knowingly, for less variance or by convention, is called deliberate.
"""

import importlib.metadata
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import formulas
import jax_trainers
import libraries
import openrlhf_losses
import rlax_losses
import trl_trainers
import verl_losses

import logpi
from logpi.checking.report import CheckReport

ROLLOUT = {"layout": "rollout", "target": "conventional"}
GOING_ON = {
    "layout": "rollout",
    "target": "conventional-continuing",
}  # bootstraps through truncation, by design
WHOLE = {"discount": 1.0}
AUDITS = [
    ("Stable-Baselines3 A2C", "stable-baselines3", libraries.sb3_a2c, ROLLOUT),
    ("Stable-Baselines3 PPO, first epoch", "stable-baselines3", libraries.sb3_ppo, ROLLOUT),
    ("TorchRL ReinforceLoss", "torchrl", libraries.torchrl_reinforce, GOING_ON),
    ("TorchRL A2CLoss", "torchrl", libraries.torchrl_a2c, GOING_ON),
    ("TorchRL A2CLoss, λ = 1", "torchrl", libraries.torchrl_a2c_lambda_one, GOING_ON),
    ("TorchRL ClipPPOLoss, first epoch", "torchrl", libraries.torchrl_clip_ppo, GOING_ON),
    ("rlax policy_gradient_loss, λ = 1", "rlax", rlax_losses.rlax_policy_gradient, ROLLOUT),
    ("rlax policy_gradient_loss, λ = 0.95", "rlax", rlax_losses.rlax_policy_gradient_095, ROLLOUT),
    (
        "PyTorch examples, reinforce.py",
        None,
        formulas.pytorch_examples_reinforce,
        {"layout": "episode"},
    ),
    ("Gymnasium tutorial before #1336", None, formulas.gymnasium_tutorial, {"layout": "episode"}),
    ("Spinning Up VPG", None, formulas.spinning_up_vpg, {"target": "conventional"}),
    ("CleanRL PPO, first epoch", None, formulas.cleanrl_ppo, ROLLOUT),
    ("Tianshou Reinforce", None, formulas.tianshou_reinforce, {"target": "conventional"}),
    ("TRL RLOO", None, formulas.trl_rloo, WHOLE),
    ("TRL GRPO as first published", None, formulas.trl_grpo, WHOLE),
]


RANDOM_PROBES = 20


def row(name: str, package: str | None, report: CheckReport) -> str:
    """One line of the table."""
    how = (
        f"{package} {importlib.metadata.version(package)}"
        if package
        else "re-implemented from the formula"
    )
    scale = f", k = {report.scale_name}" if report.scale_name else ""
    match = f": {report.matches[0]}" if report.verdict == "other-target" else ""
    bias = "0"
    if report.verdict != "exact" and report.bias_range is not None:
        least, largest = report.bias_range
        bias = f"{least:.2g} to {largest:.2g}"
    near = "near " if report.diagnosis and not report.diagnosis[0].is_exact else ""
    first = [cause for cause in report.diagnosis if not cause.is_alternative]
    causes = near + ", ".join(cause.name for cause in first)
    return (
        f"| {name} | {how} | {report.target} | {report.verdict}{match}{scale} | {bias} | {causes} |"
    )


def audits():
    """(implementation, package, estimator, options of the check)."""
    yield from AUDITS
    yield from jax_trainers.audits()
    for package, library in (("verl", verl_losses), ("openrlhf", openrlhf_losses)):
        for name, estimator, options in library.audits():
            yield f"{package}, {name}", package, estimator, options


def main() -> None:
    print(
        "| implementation | code | target | verdict | relative bias on 20 probes | likely cause "
        "|\n|---|---|---|---|---|---|"
    )
    for name, package, estimator, options in audits():
        report = logpi.check(estimator, random_probes=RANDOM_PROBES, **options)
        print(row(name, package, report), flush=True)
    for name, report in trl_trainers.audits(RANDOM_PROBES):
        print(row(f"TRL, {name}", "trl", report), flush=True)


if __name__ == "__main__":
    main()
