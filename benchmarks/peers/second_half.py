"""What both runners that keep a clock print of it."""

from collections.abc import Sequence


def rate(clock: Sequence[tuple[int, float]], steps: int) -> float | None:
    """Steps a second from half of `steps` to the end, `clock` holding (steps, seconds); None where
    it ends there."""
    half = next(i for i, (done, _) in enumerate(clock) if done >= steps / 2)
    (s0, t0), (s1, t1) = clock[half], clock[-1]
    return (s1 - s0) / (t1 - t0) if s1 > s0 else None
