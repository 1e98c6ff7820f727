"""Write the pages that the program computes; with `--check`, only say whether they are current."""

import json
import sys
from pathlib import Path

import numpy as np

import logpi
from logpi import Reinforce
from logpi.derivation import derive
from logpi.derivation_text import as_page
from logpi.mdp import stay_or_leave
from logpi.update import as_estimator

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS.parent / "examples"))


def derivation_page() -> str:
    mdp = stay_or_leave()
    return as_page(derive(mdp, np.random.default_rng(0).normal(size=(mdp.observations, mdp.actions))))


ESTIMATORS = {
    "`--baseline none`": {"baseline": "none"},
    "`--baseline none --returns whole`": {"baseline": "none", "returns": "whole"},
    "`--baseline value` (the default; here with a critic that is wrong on purpose)": {"baseline": "value"},
    "`--baseline value --returns whole`": {"baseline": "value", "returns": "whole"},
    "`--baseline leave-one-out`": {"baseline": "leave-one-out"},
    "`--baseline leave-one-out --returns whole`": {"baseline": "leave-one-out", "returns": "whole"},
    "`--drop-discount-power` (BIASED)": {"baseline": "none", "drop_discount_power": True},
    "`--whiten` (BIASED)": {"baseline": "none", "whiten": True},
}


def estimators_page() -> str:
    """Every estimator of the library under its own check."""
    rows = []
    for name, options in ESTIMATORS.items():
        report = logpi.check(as_estimator(Reinforce(discount=0.9, **options)))
        exact = report.verdict == "exact"
        bias = "0 (below 1e-10)" if exact and report.relative_bias < 1e-10 else f"{report.relative_bias:.2g}"
        verdict = report.verdict if not report.matches or exact else f"{report.verdict}: {report.matches[0]}"
        ratio = f"{report.variance.ratio:.2f} (N = {report.variance.episodes})"
        rows.append(f"| {name} | {verdict} | {bias} | {ratio} |")
    return f"""# The library's own estimators under `logpi check`

Expected gradient over all batches, γ = 0.9, against ∇J [D4.4]. Variance is that of one gradient, relative to the best
state baseline; an estimator without bias can have more. Written by `python docs/generate.py`.

| REINFORCE with | verdict | relative bias | variance, relative |
|---|---|---|---|
{chr(10).join(rows)}
"""


NOT_REACHED = {
    "logp-not-summed": "the actions of the probes have one dimension",
    "tanh-logdet": "continuous actions: no enumeration",
    "rsample-in-score": "continuous actions: no enumeration",
    "dropout-batchnorm": "the policy of the probes is a table",
    "hidden-state": "the policy of the probes has no memory",
    "frame-stack-leak": "the policy of the probes has no memory",
    "nextstep-autoreset-row": "rollouts of the check have no such row; it leaves the policy's expectation exact",
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
    missing = "\n".join(f"| {name} | {sources[name]['what']} | {why} |" for name, why in NOT_REACHED.items())
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


PAGES = {"derivation.md": derivation_page, "estimators.md": estimators_page, "bugs.md": bugs_page}


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
