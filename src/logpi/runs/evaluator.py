"""Evaluations of a run's policy while it trains; nothing of them changes what it learns."""

from logpi.core.errors import LogpiError
from logpi.environments.spec import EnvironmentSpec
from logpi.networks.policy import Policy
from logpi.runs.checkpoint import Counters
from logpi.runs.evaluation import Evaluation
from logpi.runs.settings import Settings
from logpi.sampling.seam import Sampler

PER_RUN = 20
EPISODES = 10
# By default an evaluation waits until the steps of all of them are this share of those of the run.
SHARE = 0.03


def return_to_reach(settings: Settings, spec: EnvironmentSpec) -> float | None:
    """The return at which a run stops, if there is one.

    **Raises:** `LogpiError` where the run shall stop when the environment is solved, and it does
    not say what that means; or where no evaluation could tell.
    """
    if settings.stop_at is None:
        return None
    if settings.evaluate_every == 0:
        raise LogpiError("--stop-at needs evaluations, --evaluate-every 0 makes none")
    if settings.stop_at != "solved":
        return settings.stop_at
    if spec.reward_threshold is None:
        raise LogpiError(f"{spec.name} does not say when it is solved: give --stop-at a return")
    return spec.reward_threshold


class Evaluator:
    """Says when an evaluation is due, makes it, and judges by the lower end of its interval: luck
    chooses no policy and stops no run.

    **Raises:** `LogpiError`, as `return_to_reach`.
    """

    def __init__(self, settings: Settings, spec: EnvironmentSpec, sampler: Sampler):
        self._sampler = sampler
        self._every = settings.evaluate_every
        self._stop_at = return_to_reach(settings, spec)
        self.period = self._every
        """Environment steps between two evaluations; 0: there are none."""
        if self.period is None:
            self.period = max(1, settings.steps // PER_RUN)

    def is_due(self, counters: Counters, steps: int) -> bool:
        """Whether a run that has come from `counters` to so many steps is evaluated now.

        It follows from the counters alone: a run that is replayed is evaluated alike.
        """
        if not self.period or steps // self.period == counters.evaluated_at // self.period:
            return False
        if self._every is not None or self._stop_at is not None:
            return True
        _, length = counters.recent_means()
        left = SHARE * steps - counters.evaluated_steps
        return bool(EPISODES * length <= left)  # NaN: False

    def evaluate(self, policy: Policy) -> Evaluation:
        """Fresh episodes with the most probable actions, always the same."""
        return Evaluation(*self._sampler.evaluate(policy, EPISODES, True, beside=True))

    def count(self, evaluation: Evaluation, counters: Counters) -> bool:
        """Count an evaluation after the steps of `counters`; whether it is the best so far."""
        low, _ = evaluation.interval
        counters.evaluated_at = counters.steps
        counters.evaluated_steps += int(evaluation.lengths.sum())
        counters.has_reached = self._stop_at is not None and low >= self._stop_at
        is_best = not counters.best or low > counters.best[0]
        if is_best:
            counters.best = [low, float(counters.steps)]
        return is_best
