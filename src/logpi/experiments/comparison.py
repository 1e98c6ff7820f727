"""`logpi compare`: which of several methods is better, and whether that is more than chance."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from logpi.core.errors import LogpiError
from logpi.core.say import in_columns
from logpi.experiments.groups import Group, find_groups
from logpi.experiments.statistics import (
    LEVEL,
    Chance,
    Estimate,
    estimate,
    interquartile_mean,
    judge_difference,
    mean,
    median,
    performance_profile,
    probability_of_improvement,
)

FEWEST_SEEDS = 5
PROFILE_POINTS = 101


@dataclass(frozen=True)
class Scores:
    """What the runs of a group are worth in one environment: the mean return of each seed's last
    evaluation.
    """

    name: str
    by_seed: dict[int, float]

    @property
    def values(self) -> np.ndarray:
        """In the order of the seeds."""
        return np.array([self.by_seed[seed] for seed in sorted(self.by_seed)])


@dataclass(frozen=True)
class Summary:
    """One group in one environment."""

    scores: Scores
    mean: Estimate
    median: Estimate
    iqm: Estimate

    @staticmethod
    def of(scores: Scores) -> "Summary":
        """Mean, median and IQM with their intervals."""
        values = scores.values
        return Summary(
            scores,
            mean=estimate(mean, values),
            median=estimate(median, values),
            iqm=estimate(interquartile_mean, values),
        )


@dataclass(frozen=True)
class Difference:
    """Two groups in one environment; `p` takes the number of such tests into account."""

    ours: Scores
    theirs: Scores
    improvement: Estimate
    test: Chance
    p: float

    @property
    def is_real(self) -> bool:
        """Whether the difference is more than chance."""
        return self.p < LEVEL

    def __str__(self) -> str:
        better = max(self.ours, self.theirs, key=lambda scores: scores.values.mean())
        worse = self.theirs if better is self.ours else self.ours
        how = "paired by seed" if self.test.is_paired else "seeds permuted"
        chance = f"p = {self.p:.2g}, {how}"
        if self.is_real:
            verdict = f"{better.name} is better than {worse.name}: more than chance ({chance})"
        elif np.array_equal(self.ours.values, self.theirs.values):
            verdict = f"{better.name} and {worse.name} are the same in every seed"
        else:
            verdict = (
                f"{better.name} is not better than {worse.name} by more than chance ({chance})"
            )
        fewest = min(len(self.ours.by_seed), len(self.theirs.by_seed))
        if fewest < FEWEST_SEEDS:
            verdict += f"; {fewest} seeds are too few to tell, take at least {FEWEST_SEEDS}"
        return (
            f"{verdict}\n  {self.ours.name} beats {self.theirs.name} with probability"
            f" {self.improvement}"
        )


@dataclass(frozen=True)
class Comparison:
    """What was found, for each environment: a summary of each group, and its difference from the
    first.
    """

    summaries: dict[str, list[Summary]]
    differences: dict[str, list[Difference]]

    def __str__(self) -> str:
        return "\n\n".join(self._section(name) for name in self.summaries)

    def _section(self, environment: str) -> str:
        rows = [("", "seeds", "mean", "median", "IQM")]
        for each in self.summaries[environment]:
            count = str(len(each.scores.by_seed))
            estimates = (str(each.mean), str(each.median), str(each.iqm))
            rows.append((each.scores.name, count, *estimates))
        head = f"{environment}: return of each seed's last evaluation, 95 % intervals over seeds"
        return "\n".join([head, *in_columns(rows), *map(str, self.differences[environment])])

    def to_json(self) -> dict[str, Any]:
        """By environment: `groups` with scores, estimates and profile, and `differences`."""
        return {
            environment: {
                "groups": _groups_to_json(self.summaries[environment]),
                "differences": [
                    {
                        "ours": each.ours.name,
                        "theirs": each.theirs.name,
                        "probability_of_improvement": list(each.improvement),
                        "p": each.p,
                        "paired": each.test.is_paired,
                        "more_than_chance": each.is_real,
                    }
                    for each in self.differences[environment]
                ],
            }
            for environment in self.summaries
        }


def compare(*patterns: str | Path) -> Comparison:
    """Compare groups of runs: folders or patterns, or one folder of a sweep with several settings.

    Each is compared with the first one. With several such tests their p is that of Holm's method.

    **Raises:** `LogpiError` where there is nothing to compare.
    """
    groups = find_groups(patterns)
    if len(groups) < 2:
        raise LogpiError("compare needs two groups of runs, or a sweep with several settings")
    return compare_groups(groups)


def compare_groups(groups: Sequence[Group]) -> Comparison:
    """Compare groups of runs, each with the first.

    **Raises:** `LogpiError` where no environment has finished runs of two of them.
    """
    environments = sorted({name for group in groups for name in group.environments})
    summaries: dict[str, list[Summary]] = {}
    differences: dict[str, list[Difference]] = {}
    for environment in environments:
        scores = [_scores(group, environment) for group in groups]
        present = [each for each in scores if each.by_seed]
        if len(present) > 1:
            summaries[environment] = [Summary.of(each) for each in present]
            differences[environment] = _differences(present)
    if not summaries:
        known = "; ".join(f"{group.name}: {', '.join(group.environments)}" for group in groups)
        raise LogpiError(f"no environment has finished runs of two groups ({known})")
    return Comparison(summaries, differences)


def _scores(group: Group, environment: str) -> Scores:
    """The last evaluations of a group's finished runs.

    **Raises:** `LogpiError` where two of them have one seed.
    """
    by_seed: dict[int, float] = {}
    for run in group.runs:
        settings = run.settings
        evaluation = run.last_evaluation()
        if settings.environment != environment or evaluation is None:
            continue
        if settings.seed in by_seed:
            raise LogpiError(
                f"{group.name} has two runs of seed {settings.seed} in {environment}: give the"
                " settings that are to be compared as groups of their own"
            )
        by_seed[settings.seed] = evaluation.most_probable.mean
    return Scores(group.name, by_seed)


def _differences(scores: Sequence[Scores]) -> list[Difference]:
    """Each group beside the first."""
    first, *others = scores
    tests = []
    for other in others:
        is_paired = first.by_seed.keys() == other.by_seed.keys()
        tests.append(judge_difference(other.values, first.values, is_paired))
    adjusted = _holm([test.p for test in tests])
    return [
        Difference(
            ours=other,
            theirs=first,
            improvement=estimate(probability_of_improvement, other.values, first.values),
            test=test,
            p=p,
        )
        for other, test, p in zip(others, tests, adjusted, strict=True)
    ]


def _holm(values: Sequence[float]) -> list[float]:
    """Probabilities of several tests, such that the chance of any false one stays below the level
    (Holm 1979).
    """
    order = sorted(range(len(values)), key=lambda number: values[number])
    factors = range(len(values), 0, -1)
    scaled = [
        min(1.0, factor * values[number]) for factor, number in zip(factors, order, strict=True)
    ]
    rising = list(itertools.accumulate(scaled, max))
    return [rising[order.index(number)] for number in range(len(values))]


def _groups_to_json(summaries: Sequence[Summary]) -> list[dict[str, Any]]:
    """Scores, estimates, and the share of seeds above each return of a common scale."""
    values = np.concatenate([each.scores.values for each in summaries])
    thresholds = np.linspace(values.min(), values.max(), PROFILE_POINTS)
    return [
        {
            "name": each.scores.name,
            "scores": {str(seed): score for seed, score in each.scores.by_seed.items()},
            "mean": list(each.mean),
            "median": list(each.median),
            "iqm": list(each.iqm),
            "profile": {
                "above": thresholds.tolist(),
                "share": performance_profile(each.scores.values, thresholds).tolist(),
            },
        }
        for each in summaries
    ]
