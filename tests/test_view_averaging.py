"""Scores of several views of an image are averaged exactly, in little memory."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from benchmarks.plain import model as plain
from maskclippp import view_averaging as test_time_augmentation
from maskclippp.data.shapes import dataset as shapes
from maskclippp.inference.postprocess import ClassifiedMasks
from maskclippp.masks.soft_masks import Frame, SoftMasks
from maskclippp.meta_arch import MaskCLIPpp
from maskclippp.view_averaging import (
    SemanticTestTimeAugmentation,
    ViewScores,
    augmentation_config,
    best_mean_scores,
    check_augmentation,
)
from tests.engine.test_train_shapes import run_main
from tests.generators.tiny_generators import CONFIGS
from tests.tiny_models import labeled_record, tiny_config, tiny_model

SIZE = (23, 31)
NUM_CLASSES = 5
# Sizes of masks, and how they lie in the padded image; None: they span the image.
FRAMES = [
    ((6, 8), None),
    ((8, 8), Frame((32, 32), (23, 31))),
    ((40, 50), None),
    ((3, 5), Frame((48, 80), (46, 62))),
]


def views() -> list[tuple[SoftMasks, Tensor, bool]]:
    """Masks and logits of views, and whether these are mirrored."""
    return [
        (SoftMasks(torch.rand(4 + index, *size), frame), torch.randn(4 + index, 6), index % 2 == 1)
        for index, (size, frame) in enumerate(FRAMES)
    ]


def mean_scores(made: list[tuple[SoftMasks, Tensor, bool]]) -> Tensor:
    """[K, H, W]: all score maps at once."""
    maps = []
    for masks, logits, mirrored in made:
        scores = plain.semantic_scores(masks.resized(SIZE), logits, NUM_CLASSES, SIZE)
        maps.append(scores.flip(-1) if mirrored else scores)
    return torch.stack(maps).mean(dim=0)


def view_scores(made: list[tuple[SoftMasks, Tensor, bool]]) -> list[ViewScores]:
    return [
        ViewScores.of(ClassifiedMasks(masks, logits, NUM_CLASSES), SIZE, mirrored=mirrored)
        for masks, logits, mirrored in made
    ]


@pytest.mark.parametrize("budget", [1, 5 * 31 * 4 * 7, 10**9])
def test_the_best_mean_score_is_found_in_bands_of_any_height(
    budget: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(test_time_augmentation, "_BUDGET", budget)
    made = views()
    labels = best_mean_scores(view_scores(made))
    assert torch.equal(labels, mean_scores(made).argmax(dim=0))


def test_bands_are_rows_of_the_score_maps() -> None:
    made = views()
    for view, scores in zip(view_scores(made), (mean_scores([one]) for one in made), strict=True):
        assert_close(view.band(4, 11), scores[:, 4:11])


def test_a_view_without_masks_counts_nothing() -> None:
    made = views()
    empty = (SoftMasks(torch.zeros(0, 6, 8)), torch.zeros(0, 6), False)
    assert torch.equal(
        best_mean_scores(view_scores([*made, empty])), best_mean_scores(view_scores(made))
    )


def augmented(*options: Any, segmentor: str = "GTSegmentor") -> SemanticTestTimeAugmentation:
    """A tiny model with any generator, and what it is evaluated by."""
    make = CONFIGS.get(segmentor, tiny_config)
    cfg = make(".SEGMENTOR.NAME", segmentor, *options)
    return SemanticTestTimeAugmentation.from_config(cfg, MaskCLIPpp(cfg).eval())


@pytest.mark.parametrize("segmentor", ["GTSegmentor", "SuperpixelSegmentor", *CONFIGS])
def test_one_view_of_the_original_size_is_the_plain_evaluation(segmentor: str) -> None:
    model = augmented(
        *("TEST.AUG.MIN_SIZES", [50], "TEST.AUG.FLIP", False),
        *(".TEST.ENSEMBLE_ON", True, ".TEST.GEOMETRIC_ENSEMBLE_ALPHA", 0.6),
        segmentor=segmentor,
    )
    record = labeled_record((50, 70), 2, 0, 3)
    (found,), (expected,) = model([record]), model.model([record])
    same = found["sem_seg_labels"] == expected["sem_seg_labels"]
    assert same.float().mean() > 0.999  # equal scores may round to either class
    assert torch.equal(found["category_overlapping_mask"], expected["category_overlapping_mask"])


def test_a_mirrored_image_gives_the_mirrored_result() -> None:
    model = augmented("TEST.AUG.MIN_SIZES", [40, 64], segmentor="SuperpixelSegmentor")
    record = labeled_record((48, 64), 1)
    mirrored = {**record, "image": record["image"].flip(-1)}
    (one,), (other,) = model([record]), model([mirrored])
    same = one["sem_seg_labels"] == other["sem_seg_labels"].flip(-1)
    assert same.float().mean() > 0.99  # sums in another order may round to another class


@pytest.mark.parametrize("segmentor", ["GTSegmentor", "PanGTSegmentor"])
@pytest.mark.parametrize("seed", [1, 4])  # of models for which it makes a difference
def test_annotations_from_which_masks_are_made_are_mirrored_too(seed: int, segmentor: str) -> None:
    torch.manual_seed(seed)
    model = augmented("TEST.AUG.MIN_SIZES", [48], segmentor=segmentor)
    record = labeled_record((48, 64), 2, 255, 0)
    segments = {"pan_seg": record["sem_seg"], "segments_info": [{"id": 2}, {"id": 0}]}
    (result,) = model([{**record, **segments}])
    labels = result["sem_seg_labels"]
    # There is a mask for each class, or segment, that occurs: no label changes inside one.
    assert all(len(labels[record["sem_seg"] == label].unique()) == 1 for label in (0, 2))


def test_the_model_keeps_its_mode() -> None:
    model = tiny_model().eval()
    view = SemanticTestTimeAugmentation(model, min_sizes=[32], max_size=64, flip=False)
    assert not view.training
    assert not model.training


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("TEST.AUG.MIN_SIZES", []), r"MIN_SIZES: expected sizes in pixels, found \[\]"),
        (("TEST.AUG.MIN_SIZES", [0, 32]), r"MIN_SIZES: expected sizes .* found \[0, 32\]"),
        ((".TEST.MASK_ACC", True), r"TEST\.MASK_ACC False"),
        ((".TEST.SEGMENTOR_ONLY", True), r"TEST\.SEGMENTOR_ONLY False"),
        ((".SEGMENTOR.NAME", "OfflineSegmentor"), r"FLIP: the files of OfflineSegmentor"),
    ],
)
def test_what_augmentation_cannot_do_is_refused(options: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_augmentation(tiny_config(*options))


def test_another_model_is_refused() -> None:
    with pytest.raises(ValueError, match=r"MODEL\.META_ARCHITECTURE is Identity"):
        SemanticTestTimeAugmentation.from_config(tiny_config(), torch.nn.Identity())


def test_encoders_that_undo_the_sizes_are_named(caplog: pytest.LogCaptureFixture) -> None:
    check_augmentation(tiny_config(".VISUAL_ENCODER.TEST_RESIZE_TYPE", "short"))
    assert "MIN_SIZES hardly changes what VISUAL_ENCODER sees" in caplog.text


def test_views_are_made_of_the_original_image_and_semantic_results_alone_are_asked_for() -> None:
    outputs = "MODEL.MASK_FORMER.TEST"
    cfg = tiny_config(
        *("INPUT.MIN_SIZE_TEST", 640, f"{outputs}.SEMANTIC_ON", False),
        *(f"{outputs}.PANOPTIC_ON", True, f"{outputs}.INSTANCE_ON", True),
    )
    changed = augmentation_config(cfg)
    assert changed.INPUT.MIN_SIZE_TEST == 0
    test = changed.MODEL.MASK_FORMER.TEST
    assert (test.SEMANTIC_ON, test.PANOPTIC_ON, test.INSTANCE_ON) == (True, False, False)
    assert cfg.INPUT.MIN_SIZE_TEST == 640


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder with a world of four scenes to train on and two to test on."""
    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MASKCLIPPP_CACHE", str(cache))
        folder = shapes.shapes_folder()
    shapes.write_split("train", 4, folder / "train")
    shapes.write_split("val", 2, folder / "val")
    return cache


OPTIONS = (
    *("MODEL.MASKCLIPPP.TEST.MASK_ACC", "False", "MODEL.MASK_FORMER.TEST.PANOPTIC_ON", "True"),
    *("TEST.AUG.ENABLED", "True", "TEST.AUG.MIN_SIZES", "[64, 96]", "TEST.EVAL_PERIOD", "0"),
    *("SOLVER.MAX_ITER", "1"),
)


@pytest.mark.processes
@pytest.mark.parametrize("arguments", [("--eval-only",), ()], ids=["evaluation", "training"])
def test_the_command_evaluates_again_in_a_folder_of_its_own(
    arguments: tuple[str, ...], cache: Path, tmp_path: Path
) -> None:
    expected = "['sem_seg_TTA', 'mIoU', 0.0, 100.0]"
    options = (*OPTIONS, "TEST.EXPECTED_RESULTS", f"[{expected}]")
    if arguments:
        options += ("MODEL.WEIGHTS", "")  # the initial weights, knowingly
    output = tmp_path / "output" / "tiny" / "run"
    assert run_main(cache, tmp_path, *arguments, options=options) == [0], (
        tmp_path / "output.txt"
    ).read_text()
    for folder, tasks in (("inference", 2), ("inference_TTA", 1)):
        content = json.loads((output / folder / "shapes_val" / "results.json").read_text())
        assert len(content["results"]) == tasks
        assert (output / folder / "shapes_val" / "sem_seg_evaluation.json").exists()
    if not arguments:
        last = json.loads((output / "metrics.json").read_text().splitlines()[-1])
        assert "sem_seg_TTA/mIoU" in last
