"""The derivation for people: what `logpi derive` prints, and the page of the documentation."""

from logpi.theory.derivation.sides import Derivation

SECTIONS = {
    "D0": "What is maximised",
    "D1": "Three tricks",
    "D2": "A single transition",
    "D3": "A whole trajectory",
    "D4": "REINFORCE",
}

_HEAD = """# The derivation that logpi implements

A policy gradient, from the objective to REINFORCE. Each line has a tag, by which docstrings, tests
and docs cite it ([D4.4]), and is computed here on the process `stay-or-leave`: the left side
without the line that is shown, the right side as the line says. Where a line has many entries, the
one that is largest on the left is shown. `logpi derive` prints this with twelve digits, `logpi
derive --mdp FILE` and `--random SEED` on other processes; all differences are below 1e-9 on 1,000
random processes (a test). This page is written by `python docs/generate.py`.

Symbols: state s, action a, reward r, policy π(a|s; θ), initial-state distribution μ(s), transition
function p(s', r | s, a), trajectory τ = (s_0, a_0, r_1, s_1, a_1, r_2, …, s_{T-1}, a_{T-1}, r_T),
discount γ ∈ [0, 1], step size α. Action a_t is answered by reward r_{t+1}."""

_REMARKS = """## What D4.4 settles

Past rewards are independent of a_t given s_t, so R(τ) in D3.5 may be replaced by γ^t R_t: the step
of D4.3, summed over t and applied once, has the expectation α ∇J exactly, for the discounted
objective of D0.3, and for D0.2 with γ = 1. Most libraries leave γ^t out (Nota & Thomas 2020). On
this process:
"""


def as_text(derivation: Derivation) -> str:
    """What `logpi derive` prints: of each line the entry that is largest on the left, and the
    largest difference.
    """
    parts = [
        f"{derivation.mdp.states} states, {derivation.mdp.actions} actions, horizon"
        f" {derivation.mdp.horizon}, γ = {derivation.mdp.discount:.4g},"
        f" {derivation.trajectories:,} trajectories",
        _policy_of(derivation),
    ]
    for line in derivation.lines:
        if line.tag.endswith(".1"):
            parts.append(f"\n{line.tag[:2]}  {SECTIONS[line.tag[:2]]}")
        left, right = line.largest
        if line.left.size > 1:
            of = f"  (largest of {line.left.size:,})"
        else:
            of = ""
        parts += [
            f"\n[{line.tag}]  {line.equation}",
            f"    left   {left:+.12f}  {line.left_is}",
            f"    right  {right:+.12f}  {line.right_is}{of}",
            f"    largest difference {line.difference:.1e}",
        ]
    parts += [
        "",
        *remarks(derivation),
        "",
        f"largest difference of all lines: {derivation.difference:.1e}",
    ]
    return "\n".join(parts)


def _policy_of(derivation: Derivation) -> str:
    rows = ", ".join(f"[{', '.join(f'{x:.6f}' for x in row)}]" for row in derivation.logits)
    return f"π(a|o) = softmax(θ[o])_a, θ = [{rows}]; --json has every digit, and the process"


def remarks(derivation: Derivation) -> list[str]:
    """What D4.4 says of leaving out γ^t, and of moving θ inside the episode, in figures."""
    shrinking = ", ".join(
        f"{error:.1e} at α = {alpha:g}" for alpha, error in derivation.one_after_another
    )
    first_error = derivation.one_after_another[0][1]
    ending = ": as α shrinks, so does the difference." if first_error > 1e-9 else "."
    without = _beyond_rounding(derivation.curl_without_power)
    with_power = _beyond_rounding(derivation.curl_with_power)
    return [
        f"Without γ^t the expectation differs from ∇J by {derivation.without_power:.2e}. A field"
        " is the gradient of a function only if its Jacobian is symmetric: the largest asymmetry"
        f" is {without} without γ^t, {with_power} with it.",
        "One step of θ after another inside the episode, divided by α, differs from ∇J by"
        f" {shrinking}{ending}",
    ]


def _beyond_rounding(size: float) -> str:
    if size > 1e-12:
        return f"{size:.1e}"
    return "0"


def as_page(derivation: Derivation) -> str:
    """The derivation as the documentation shows it: Markdown, one item per line with its
    figures.
    """
    parts = [_HEAD, "", f"Here {_policy_of(derivation)}."]
    for line in derivation.lines:
        if line.tag.endswith(".1"):
            parts.append(f"\n## {line.tag[:2]} {SECTIONS[line.tag[:2]]}\n")
        left, right = line.largest
        if line.left.size > 1:
            of = f", largest of {line.left.size:,}"
        else:
            of = ""
        parts += [
            f"- **[{line.tag}]** {line.equation}",
            f"  <br>{left:+.6f} ({line.left_is}) = {right:+.6f} ({line.right_is}){of}",
        ]
    return "\n".join([*parts, "", _REMARKS, *(f"- {remark}" for remark in remarks(derivation)), ""])
