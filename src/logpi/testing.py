"""For the test suites of people who write estimators."""

from typing import Any

from logpi.checking.checker import check
from logpi.estimators.contract import Estimator


def assert_exact(estimator: Estimator, **options: Any) -> None:
    """Fail unless the expected gradient of `estimator` is exactly that of the target; `options` as
    in `logpi.check`.

    **Raises:** `AssertionError` with the whole report; `LogpiError` for an estimator that cannot be
    checked.
    """
    report = check(estimator, **options)
    if report.verdict != "exact":
        raise AssertionError(f"{getattr(estimator, '__name__', estimator)} is not exact\n{report}")
