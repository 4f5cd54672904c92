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
from maskclippp.data.shapes.scenes import draw_scene
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


def test_training_scenes_show_seen_classes_only() -> None:
    for style in (tool.SMALL, tool.FULL):
        scenes = [draw_scene(np.random.default_rng(seed), style) for seed in range(20)]
        shown = {segment.category for scene in scenes for segment in scene.segments}
        assert all(category.is_seen for category in shown)
        assert any(category.is_thing for category in shown)


def test_every_segment_is_annotated_with_its_training_label() -> None:
    scene = draw_scene(np.random.default_rng(0), tool.FULL)
    segments = tool.segments_of(scene, STRIDE)
    names = classes_of("train")
    found = [names[label] for label in segments.labels]
    assert found == [segment.category for segment in scene.segments]
    areas = segments.masks.sum(dim=(1, 2)) * STRIDE**2
    assert_close(areas, torch.tensor([float(segment.area) for segment in scene.segments]))


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


@pytest.mark.parametrize(("name", "config"), SHIPPED, ids=["fcclip", "mask2former"])
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
