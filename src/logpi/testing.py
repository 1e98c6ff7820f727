"""For the test suites of people who write estimators."""

from collections.abc import Collection
from typing import Any

from logpi.checking.checker import check
from logpi.checking.verdict import VerdictName
from logpi.core.user_files import name_of
from logpi.estimators.contract import Estimator


def assert_exact(estimator: Estimator, **options: Any) -> None:
    """Fail unless the expected gradient of `estimator` is exactly that of the target; `options` as
    in `logpi.check`.

    **Raises:** `AssertionError` with the whole report; `LogpiError` for an estimator that cannot be
    checked.
    """
    assert_verdict(estimator, "exact", **options)


def assert_verdict(
    estimator: Estimator,
    verdict: VerdictName,
    *,
    causes: Collection[str] | None = None,
    **options: Any,
) -> None:
    """Fail unless this is the verdict, and these are the names of the causes where they are given:
    for a bias that is deliberate, and should stay the one that it is.

    **Raises:** as `assert_exact`.
    """
    report = check(estimator, **options)
    name = name_of(estimator)
    if report.verdict != verdict:
        raise AssertionError(f"{name} is {report.verdict}, not {verdict}\n{report}")
    found = {cause.name for cause in report.diagnosis}
    if causes is not None and found != {*causes}:
        raise AssertionError(
            f"{name} has the causes {sorted(found)}, not {sorted(causes)}\n{report}"
        )
