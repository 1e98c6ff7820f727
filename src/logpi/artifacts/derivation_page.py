"""The derivation as a page: every line typeset, with both sides computed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from latex2mathml.converter import convert
from numpy import ndarray

from logpi.artifacts.page import chart, escape, grid, heading, paragraph, table, write_page
from logpi.theory.derivation.lines import Line, Sides
from logpi.theory.derivation.sides import Derivation
from logpi.theory.derivation.text import SECTIONS, remarks
from logpi.theory.exact import state_policy

POLICY = r"\pi(a_t|s_t;\theta)"
SCORE = rf"\nabla_\theta \log {POLICY}"
STEP = r"\pi(a|s;\theta)"
EQUATIONS = {
    "D0.1": r"J(\theta) = \mathbb{E}_{\tau \sim p(\tau|\theta)}\left[ R(\tau) \right]",
    "D0.2": r"R(\tau) = \sum_{t=0}^{T-1} r_{t+1}",
    "D0.3": r"R(\tau) = \sum_{t=0}^{T-1} \gamma^t r_{t+1}",
    "D1.1": r"\nabla_\theta \log z = \frac{1}{z} \nabla_\theta z",
    "D1.2": r"\mathbb{E}_{x \sim p(x)}\left[ f(x) \right] = \int p(x) f(x) \, dx",
    "D1.3": r"\mathbb{E}_p[f] = \sum_x q(x) \frac{p(x)}{q(x)} f(x)"
    r" = \mathbb{E}_q\left[ \frac{p}{q} f \right]",
    "D2.1": rf"\nabla_\theta \mathbb{{E}}_{{a \sim {STEP}}}\left[ r(a) \right]"
    rf" = \nabla_\theta \sum_a {STEP} \, r(a)",
    "D2.2": rf"= \sum_a r(a) \, \nabla_\theta {STEP}",
    "D2.3": rf"= \sum_a r(a) \, {STEP} \frac{{\nabla_\theta {STEP}}}{{{STEP}}}",
    "D2.4": rf"= \sum_a r(a) \, {STEP} \, \nabla_\theta \log {STEP}",
    "D2.5": rf"= \mathbb{{E}}_{{a \sim {STEP}}}\left[ r(a) \, \nabla_\theta \log {STEP} \right]",
    "D3.1": rf"p(\tau|\theta) = \mu(s_0) \prod_{{t=0}}^{{T-1}} {POLICY} \,"
    r" p(s_{t+1}, r_{t+1}|s_t, a_t)",
    "D3.2": r"\nabla_\theta \mathbb{E}_\tau\left[ R(\tau) \right]"
    r" = \mathbb{E}_\tau\left[ R(\tau) \, \nabla_\theta \log p(\tau|\theta) \right]",
    "D3.3": rf"\log p(\tau|\theta) = \log \mu(s_0) + \sum_t \left[ \log {POLICY}"
    r" + \log p(s_{t+1}, r_{t+1}|s_t, a_t) \right]",
    "D3.4": rf"\nabla_\theta \log p(\tau|\theta) = \sum_t {SCORE}",
    "D3.5": r"\nabla_\theta J(\theta)"
    rf" = \mathbb{{E}}_\tau\left[ R(\tau) \sum_{{t=0}}^{{T-1}} {SCORE} \right]",
    "D4.1": rf"\tau = (s_0, a_0, r_1, s_1, \ldots), \quad a_t \sim {POLICY}",
    "D4.2": r"R_t = \sum_{k=t+1}^{T} \gamma^{k-t-1} r_k",
    "D4.3": rf"\theta \leftarrow \theta + \alpha \, \gamma^t R_t \, {SCORE}",
    "D4.4": r"\nabla_\theta J(\theta)"
    rf" = \mathbb{{E}}_\tau\left[ \sum_t \gamma^t R_t \, {SCORE} \right]",
}
REASONS = {
    "D1.3": "for any q that is positive where p is",
    "D2.2": "as r does not depend on θ",
    "D2.3": "by D1.3",
    "D2.4": "by D1.1",
    "D2.5": "by D1.2",
    "D3.4": "as only the policy depends on θ",
    "D4.3": "on average J rises by the squared length of the step",
}
# Batches of these sizes are drawn, so often each.
SIZES = tuple(int(10 ** (power / 2)) for power in range(2, 11))
REPEATS = 20


def write_derivation(derivation: Derivation, path: Path) -> None:
    """The page of a derivation.

    **Raises:** `LogpiError` where it cannot be written.
    """
    write_page(path, "The policy gradient, line by line", _parts(derivation))


def _parts(derivation: Derivation) -> Iterator[str]:
    mdp = derivation.mdp
    sides = Sides(mdp, derivation.logits, state_policy(mdp, derivation.logits))
    yield paragraph(
        f"Both sides of every line are computed on a finite decision process of {mdp.states} states"
        f" and {mdp.actions} actions, with episodes of up to {mdp.horizon} steps and"
        f" γ = {mdp.discount:.4g}: it has {derivation.trajectories:,} trajectories, and an"
        " expectation is a sum over all of them. The left side is computed without the line that is"
        " shown, the right side as the line says. Of several entries, the one that is largest on"
        " the left is shown."
    )
    for line in derivation.lines:
        if line.tag.endswith(".1"):
            yield heading(f"{line.tag[:2]} {SECTIONS[line.tag[:2]]}")
        yield _typeset(line)
    yield paragraph(f"The largest difference of all lines is {derivation.difference:.1e}.")
    yield heading("One trajectory by hand")
    yield from _by_hand(sides)
    yield heading("From samples to the gradient")
    yield paragraph(
        "D4.4 is an expectation, which REINFORCE replaces by a mean over N trajectories that it"
        f" plays. Each point is such a mean, {REPEATS} for each N; the line is the root of the mean"
        " square of their distance, exactly: that of the variance of one trajectory, over N."
    )
    yield grid([_convergence(sides)])
    yield heading("What D4.4 settles")
    for remark in remarks(derivation):
        yield paragraph(remark)


def _typeset(line: Line) -> str:
    """One line of the derivation, and its two sides in figures."""
    left, right = line.largest
    agrees = "ok" if line.difference < 1e-6 else "bad"
    reason = REASONS.get(line.tag, "")
    entries = ""
    if line.left.size > 1:
        entries = f", the largest of {line.left.size:,} entries"
    return (
        f'<div class="line" id="{line.tag}"><strong>[{line.tag}]</strong> {reason}'
        f'<div class="scroll">{convert(EQUATIONS[line.tag], display="block")}</div>'
        f'<span class="{agrees}">{left:+.9f} = {right:+.9f}</span>{entries}<br>'
        f"left: {escape(line.left_is)}; right: {escape(line.right_is)};"
        f" largest difference {line.difference:.0e}</div>"
    )


def _by_hand(sides: Sides) -> Iterator[str]:
    """The most probable of the longest trajectories that are paid: what each of its steps adds to
    the gradient.
    """
    every = sides.every
    length = every.mask.sum(axis=0) * (np.abs(sides.whole) > 0)
    tau = int(np.where(length == length.max(), sides.probability, 0.0).argmax())
    rows: list[list[object]] = []
    gradient = np.zeros_like(sides.logits)
    for t in range(int(every.mask[:, tau].sum())):
        state = every.state[t, tau]
        action = every.action[t, tau]
        seen = sides.mdp.observation[state]
        score = np.eye(sides.mdp.actions)[action] - sides.policy[state]
        weight = sides.power[t, 0] * sides.returns[t, tau]
        gradient[seen] += weight * score
        rows.append(
            [
                t,
                state,
                action,
                f"{sides.policy[state, action]:.3f}",
                f"{every.reward[t, tau]:+.3f}",
                f"{sides.returns[t, tau]:+.3f}",
                f"{weight:+.3f}",
                f"row {seen}: {_numbers(score)}",
            ]
        )
    yield paragraph(
        f"It is drawn with probability {sides.probability[tau]:.4f}, and its return is R(τ) ="
        f" {sides.whole[tau]:+.3f}. The score of a softmax is 1[a] - π(·|s), in the row of θ that"
        " belongs to the state."
    )
    yield table(["t", "sₜ", "aₜ", "π(aₜ|sₜ)", "rₜ₊₁", "Rₜ", "γᵗ Rₜ", "∇ log π(aₜ|sₜ)"], rows)
    yield paragraph("Σₜ γᵗ Rₜ ∇ log π(aₜ|sₜ), what this trajectory says of each row of θ:")
    names = ["row of θ", "this trajectory", "mean over all: ∇J"]
    yield table(
        names,
        [
            [row, _numbers(gradient[row]), _numbers(sides.gradient[row])]
            for row in range(len(gradient))
        ],
    )


def _numbers(values: Float[ndarray, " number"]) -> str:
    return "  ".join(f"{value:+.3f}" for value in values)


def _convergence(sides: Sides) -> str:
    """How far means over N trajectories are from the gradient, drawn and as it is expected."""
    random = np.random.default_rng(0)
    drawn = np.array([[distance(sides, size, random) for size in SIZES] for _ in range(REPEATS)])
    expected = [expected_distance(sides, size) for size in SIZES]

    def draw(axes: Any) -> None:
        axes.loglog(SIZES, drawn.T, ".", color="C0", alpha=0.4)
        axes.loglog(SIZES, expected, color="C1")
        axes.set(xlabel="trajectories N", ylabel="|mean - ∇J|")

    return chart("Distance from the exact gradient", draw)


def distance(sides: Sides, size: int, random: np.random.Generator) -> float:
    """|mean of Σ_t γ^t R_t ∇ log π over `size` trajectories - ∇J|, Euclidean; they are drawn."""
    counts = random.multinomial(size, sides.probability)
    mean = np.tensordot(counts / size, sides.estimates, axes=1)
    return float(np.linalg.norm(mean - sides.gradient))


def expected_distance(sides: Sides, size: int) -> float:
    """The root of the mean square of `distance`: √(Σ_τ p(τ|θ) |g(τ) - ∇J|² / size)."""
    squares = np.sum((sides.estimates - sides.gradient) ** 2, axis=(1, 2))
    return float(np.sqrt(sides.mean(squares) / size))
