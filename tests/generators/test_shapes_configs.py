"""Every mask generator has a config for the built-in world, and it runs."""

import functools
from pathlib import Path
from typing import Any

import pytest
import torch

from maskclippp.config.keys import get_cfg
from maskclippp.config.merging import merge_config_file
from maskclippp.data.shapes.dataset import scene_of
from maskclippp.generators import OfflineSegmentor
from maskclippp.masks.mask_files import write_masks
from maskclippp.meta_arch import MaskCLIPpp
from maskclippp.registry import SEGMENTOR_REGISTRY
from tests.generators.tiny_transformers import (
    save_tiny_model,
    save_tiny_sam,
    save_tiny_sam3,
)
from tests.golden_cases import REPOSITORY

CONFIGS = sorted((REPOSITORY / "configs" / "shapes").glob("linear_psm*.yaml"))

# Random models for generators that read models of the Hub.
HUB_MODELS = {
    "TransformersSegmentor": functools.partial(save_tiny_model, "eomt"),
    "SamSegmentor": functools.partial(save_tiny_sam, "sam2"),
    "Sam3Segmentor": save_tiny_sam3,
}


def scene_record() -> dict[str, Any]:
    """A scene with all annotations that a generator may read."""
    scene = scene_of("val", 0)
    ids = torch.from_numpy(scene.segment_ids)
    label_of = torch.tensor([255, *(segment.category.id - 1 for segment in scene.segments)])
    return {
        "image": torch.from_numpy(scene.image).permute(2, 0, 1),
        "file_name": "scene.jpg",
        "sem_seg": label_of[ids],
        "pan_seg": ids,
        "segments_info": [{"id": segment.id} for segment in scene.segments],
    }


def generator_name(config: Path) -> str:
    cfg = get_cfg()
    merge_config_file(cfg, str(config))
    name: str = cfg.MODEL.MASKCLIPPP.SEGMENTOR.NAME
    return name


def test_there_is_a_config_for_every_generator() -> None:
    generators = {name for name, _ in SEGMENTOR_REGISTRY}
    assert {generator_name(config) for config in CONFIGS} == generators


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_a_config_segments_a_scene(config: Path, tmp_path: Path) -> None:
    cfg = get_cfg()
    merge_config_file(cfg, str(config))
    cfg.MODEL.DEVICE = "cpu"
    record = scene_record()
    if generator_name(config) == OfflineSegmentor.__name__:
        cfg.MODEL.MASKCLIPPP.SEGMENTOR.OFFLINE_ANN_DIR = str(tmp_path)
        ids = torch.arange(1, len(record["segments_info"]) + 1)[:, None, None]
        write_masks(tmp_path / "scene.npz", record["pan_seg"] == ids)
    if save := HUB_MODELS.get(generator_name(config)):
        cfg.MODEL.MASKCLIPPP.SEGMENTOR.PRETRAINED = str(save(tmp_path))
        # Random models are never sure of their masks.
        cfg.MODEL.MASKCLIPPP.SEGMENTOR.SAM.MIN_IOU = -1000.0
        cfg.MODEL.MASKCLIPPP.SEGMENTOR.SAM.MIN_STABILITY = 0.0
        cfg.MODEL.MASKCLIPPP.SEGMENTOR.SAM3.MIN_SCORE = 0.0
    (result,) = MaskCLIPpp(cfg).eval()([record])
    labels = result["sem_seg_labels"]
    assert labels.shape == record["sem_seg"].shape
    # A border between grounds, or between an object and its ground: the masks are not one.
    # Those of a random model may be.
    assert len(labels.unique()) > 1 or generator_name(config) in HUB_MODELS
