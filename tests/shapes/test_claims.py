"""The built-in world shows what it claims, on a small budget: broken learning turns this red."""

from pathlib import Path

import pytest

from shapes import protocol
from shapes.study import CONFIGS

BUDGET = ("SOLVER.MAX_ITER", "200", "SOLVER.CHECKPOINT_PERIOD", "200")
NUMBERS = ("all", "seen", "unseen")
pytestmark = pytest.mark.processes


def mask_accuracy(config: str, weights: Path | None, output: Path) -> dict[str, float]:
    evaluation = protocol.EVALUATIONS[0]
    path = CONFIGS / f"{config}.yaml"
    scores = protocol.evaluate(path, evaluation, weights, output, (), lambda line: None)
    return scores["mask accuracy"]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    return mask_accuracy("plain_clip", None, tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    output = tmp_path_factory.mktemp("tuned")
    path = CONFIGS / "linear_psm.yaml"
    weights = protocol.train(path, output / "training", BUDGET, lambda line: None)
    return mask_accuracy("linear_psm", weights, output)


def test_plain_clip_knows_the_words_but_not_crowded_scenes(plain: dict[str, float]) -> None:
    assert all(20 < plain[group] < 60 for group in NUMBERS)


def test_fine_tuning_on_ground_truth_masks_helps_seen_and_unseen_classes(
    plain: dict[str, float], tuned: dict[str, float]
) -> None:
    assert tuned["all"] > plain["all"] + 20
    assert tuned["seen"] > plain["seen"] + 20
    assert tuned["unseen"] > plain["unseen"] + 10
