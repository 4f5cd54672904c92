"""The study's verdicts: paired by seed, with an interval, open to failure."""

import math

import pytest

from shapes import protocol, study
from shapes.study import Verdict


def scores(value: float) -> protocol.Scores:
    return {c: dict.fromkeys(protocol.GROUPS, value) for c in protocol.COLUMNS}


@pytest.mark.parametrize(
    ("differences", "verdict"),
    [
        ([5.0, 5.5, 6.0], "holds"),
        ([-5.0, -5.5, -6.0], "fails"),
        ([0.1, 5.0, 1.0], "undecided"),  # the mean is above its standard error
        ([9.0], "undecided"),
    ],
)
def test_a_claim_is_judged_by_the_interval(differences: list[float], verdict: str) -> None:
    assert Verdict("claim", differences).verdict == verdict


def test_the_interval_is_that_of_students_t() -> None:
    low, high = Verdict("claim", [1.0, 2.0, 3.0]).interval
    half = 4.302653 / math.sqrt(3)  # the 97.5 % quantile with two degrees of freedom
    assert (low, high) == pytest.approx((2 - half, 2 + half), abs=1e-5)


def test_differences_are_paired_by_seed() -> None:
    results = {"plain_clip": [scores(1.0)], "a": [scores(4.0), scores(6.0)]}
    results["b"] = [scores(3.0), scores(7.0)]
    assert study.differences(results, "a", "b", "mask accuracy", "all") == [1.0, -1.0]
    assert study.differences(results, "a", "plain_clip", "mask accuracy", "all") == [3.0, 5.0]


def test_the_table_has_a_row_per_config_and_a_line_per_claim() -> None:
    names = ("plain_clip", *study.TUNED)
    results = {name: [scores(float(i)), scores(i + 1.0)] for i, name in enumerate(names)}
    verdicts = study.judge(results)
    text = study.markdown(results, verdicts)
    assert all(f"| {name} | " in text for name in names)
    assert len(verdicts) == text.count("points: **") == 14
