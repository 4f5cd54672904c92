"""The built-in world's trained generator: what it was shown, how it is made, what it gives."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch.testing import assert_close

from maskclippp.data.shapes.dataset import classes_of, scene_of
from maskclippp.data.shapes.vocabulary import CLASSES
from maskclippp.generators.checkpoints import check_present
from shapes import train_generator as tool

KEY = "MODEL.MASKCLIPPP.SEGMENTOR.PRETRAINED"
STRIDE = 4
VALIDATION_SCENES = 8
CONFIGS = tool.CONFIG.parent
SHIPPED = [
    ("shapes", CONFIGS / "linear_psm_fcclip.yaml"),
    ("shapes_mask2former", CONFIGS / "linear_psm_mask2former.yaml"),
]


def test_only_segments_of_seen_classes_are_shown() -> None:
    scene = scene_of("val", 0)
    segments = tool.segments_of(scene, STRIDE)
    seen = [segment for segment in scene.segments if segment.category.is_seen]
    assert len(seen) < len(scene.segments)
    names = classes_of("train")
    assert [names[label] for label in segments.labels] == [segment.category for segment in seen]
    areas = segments.masks.sum(dim=(1, 2)) * STRIDE**2
    assert_close(areas, torch.tensor([float(segment.area) for segment in seen]))
    unseen_area = sum(s.area for s in scene.segments if not s.category.is_seen)
    assert segments.unlabeled.sum().item() * STRIDE**2 == pytest.approx(unseen_area, rel=1e-4)


def test_the_words_of_training_are_those_of_seen_classes() -> None:
    _, vocabulary = tool.build(tool.CONFIG, [KEY, "random"])
    unseen = {name for category in CLASSES if not category.is_seen for name in category.names}
    assert unseen.isdisjoint(vocabulary.synonyms)
    assert len(vocabulary) == len(classes_of("train"))


def test_training_scenes_are_those_of_no_split() -> None:
    scenes = tool.LabeledScenes(steps=1, batch_size=1, seed=0, stride=STRIDE)
    first = scenes[0].images[0]
    for split in ("train", "val"):
        assert not any(
            np.array_equal(tool.image_of(scene_of(split, index))[:, :128, :128], first)
            for index in range(3)
        )


def test_training_writes_weights_that_a_config_loads(tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    arguments = ["--output", str(file), "--steps", "2", "--batch-size", "1", "--workers", "0"]
    tool.train(tool.parse_arguments([*arguments, "--validation-scenes", "1"]))
    generator, _ = tool.build(tool.CONFIG, [KEY, str(file)])
    again = tmp_path / "again.safetensors"
    tool.save(generator.head, tool.parse_arguments(["--output", str(again)]))
    with safe_open(file, "pt") as first, safe_open(again, "pt") as second:
        assert set(first.keys()) == set(second.keys())
        for key in first.keys():  # noqa: SIM118  (not a dictionary)
            assert torch.equal(first.get_tensor(key), second.get_tensor(key))


@pytest.mark.parametrize(("name", "config"), SHIPPED, ids=["fcclip", "mask2former"])
def test_shipped_weights_are_small_and_tell_how_they_were_made(name: str, config: Path) -> None:
    path = check_present(name, KEY)
    assert path.stat().st_size < 3e6
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
        assert all(file.get_tensor(key).dtype == torch.float16 for key in file.keys())  # noqa: SIM118
    assert json.loads(metadata["settings"])["config"] == config.name
    assert json.loads(metadata["loss"]) == asdict(tool.WEIGHTS)


@pytest.mark.parametrize(
    ("name", "config"),
    [
        pytest.param(
            *SHIPPED[0],
            id="fcclip",
            marks=pytest.mark.xfail(
                strict=True, reason="600 steps are too few for its masks of unseen segments"
            ),
        ),
        pytest.param(*SHIPPED[1], id="mask2former"),
    ],
)
def test_a_shipped_generator_is_above_superpixels_that_are_almost_a_grid(
    name: str, config: Path
) -> None:
    """Superpixels of chosen settings are another matter: see the README."""
    scenes = [scene_of("val", index) for index in range(VALIDATION_SCENES)]
    trained, _ = tool.build(config, [KEY, name])
    settings = {"NUM_SEGMENTS": 150, "COMPACTNESS": 10.0, "MERGE_THRESHOLD": 12.0}
    options = [
        word
        for key, value in {**settings, "MIN_AREA": 0.0005}.items()
        for word in (f"MODEL.MASKCLIPPP.SEGMENTOR.SUPERPIXELS.{key}", str(value))
    ]
    superpixels, _ = tool.build(CONFIGS / "linear_psm_superpixels.yaml", options)
    found, merged = (tool.mask_quality(generator, scenes) for generator in (trained, superpixels))
    for kind in ("seen", "unseen"):
        assert found[kind] > merged[kind] + 0.1
