"""The study's verdicts: paired by seed, with an interval, open to failure."""

import json
import math
import statistics

import pytest

from shapes import learning_rates, protocol, study
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


def test_learning_rates_are_the_best_on_scenes_that_are_not_reported() -> None:
    measured = json.loads((study.REPOSITORY / "shapes" / "learning_rates.json").read_text())
    best = {
        name: float(max(found, key=lambda multiplier: statistics.harmonic_mean(found[multiplier])))
        for name, found in measured.items()
    }
    assert best == study.MULTIPLIERS
    assert learning_rates.DATASET != protocol.DATASET


@pytest.mark.parametrize("setting", study.SETTINGS)
def test_the_printed_studies_are_those_of_the_readme(setting: str) -> None:
    content = json.loads((study.REPOSITORY / "shapes" / f"study_{setting}.json").read_text())
    readme = (study.REPOSITORY / "README.md").read_text(encoding="utf-8")
    for name in study.TUNED:
        assert study.mean_and_spread(content["scores"][name], "mask accuracy") in readme


def test_the_table_has_a_row_per_config_and_a_line_per_claim() -> None:
    names = ("plain_clip", *study.TUNED)
    results = {name: [scores(float(i)), scores(i + 1.0)] for i, name in enumerate(names)}
    verdicts = study.judge(results)
    text = study.markdown(results, verdicts)
    assert all(f"| {name} | " in text for name in names)
    assert len(verdicts) == text.count("points: **") == 18
