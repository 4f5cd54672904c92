"""Annotated masks as a generator: what remains to be judged is classification."""

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.data import MetadataCatalog
from PIL import Image
from torch import Tensor

from maskclippp.data.mappers import EvaluationMapper
from maskclippp.generators import GTSegmentor, MaskGenerator, PanGTSegmentor, build_generator
from tests.tiny_models import TEST_SET, labeled_record, random_image, tiny_config


def panoptic_record() -> dict[str, Any]:
    ids = torch.zeros(6, 8, dtype=torch.int64)
    ids[:, 2:4], ids[:, 4:] = 70000, 3
    segments = [{"id": 3, "category_id": 1}, {"id": 70000, "category_id": 0, "iscrowd": 1}]
    return {"image": random_image(6, 8), "pan_seg": ids, "segments_info": segments}


def masks_of(generator: MaskGenerator, record: dict[str, Any]) -> Tensor:
    (found,) = generator([record])
    assert found.masks.frame is None
    return found.masks.values


def test_one_mask_per_label_in_ascending_order() -> None:
    record = labeled_record((6, 9), 2, 255, 0)
    masks = masks_of(GTSegmentor(ignore_label=255), record)
    assert masks.dtype == torch.bool
    assert torch.equal(masks[0], record["sem_seg"] == 0)
    assert torch.equal(masks[1], record["sem_seg"] == 2)
    assert len(masks) == 2


def test_the_ignore_label_is_that_of_the_test_set() -> None:
    generator = build_generator(tiny_config("DATASETS.TEST", (TEST_SET,)))
    assert isinstance(generator, GTSegmentor)
    assert generator.ignore_label == 255


def test_an_image_of_ignored_pixels_alone_has_no_masks() -> None:
    masks = masks_of(GTSegmentor(), labeled_record((6, 9), 255))
    assert masks.shape == (0, 6, 9)


def test_one_mask_per_segment_in_the_order_of_the_annotation() -> None:
    record = panoptic_record()
    masks = masks_of(PanGTSegmentor(), record)
    assert torch.equal(masks[0], record["pan_seg"] == 3)
    assert torch.equal(masks[1], record["pan_seg"] == 70000)


def test_no_segments_give_no_masks() -> None:
    record = {**panoptic_record(), "segments_info": []}
    masks = masks_of(PanGTSegmentor(), record)
    assert masks.shape == (0, 6, 8)


@pytest.mark.parametrize("name", ["GTSegmentor", "PanGTSegmentor"])
def test_a_record_without_annotation_is_named(name: str) -> None:
    generator = build_generator(tiny_config(".SEGMENTOR.NAME", name))
    record = {"image": random_image(6, 8), "file_name": "some/image.jpg"}
    with pytest.raises(ValueError, match=rf"{name} needs the annotation .* of some/image\.jpg"):
        generator([record])


def test_masks_take_the_resolution_of_the_generators_encoder() -> None:
    cfg = tiny_config(
        *(".VISUAL_ENCODER_F.NAME", "DummyVisualEncoder", ".SEGMENTOR.NAME", "GTSegmentor"),
        *(".VISUAL_ENCODER_F.TEST_RESIZE_TYPE", "short", ".VISUAL_ENCODER_F.TEST_IMAGE_SIZE", 12),
    )
    masks = masks_of(build_generator(cfg), labeled_record((6, 9), 0, 1))
    assert masks.shape == (2, 12, 18)
    assert masks.sum(dim=0).sub(1).abs().max() < 1e-6


def test_an_unknown_generator_lists_the_valid_names() -> None:
    with pytest.raises(ValueError, match=r"SEGMENTOR\.NAME: 'Sam' is not one of .*'GTSegmentor'"):
        build_generator(tiny_config(".SEGMENTOR.NAME", "Sam"))


def test_every_test_set_has_its_own_ignore_label(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Also the second one, whose ignore label is a class of the first."""
    Image.new("RGB", (4, 1)).save(tmp_path / "image.png")
    Image.fromarray(np.array([[0, 1, 2, 255]], dtype=np.uint8)).save(tmp_path / "labels.png")
    record = {
        "file_name": str(tmp_path / "image.png"),
        "sem_seg_file_name": str(tmp_path / "labels.png"),
    }
    names = ("two_test_sets_first", "two_test_sets_second")
    for name, ignore_label in zip(names, (255, 2), strict=True):
        MetadataCatalog.get(name).set(ignore_label=ignore_label)
        request.addfinalizer(functools.partial(MetadataCatalog.remove, name))
    cfg = tiny_config("DATASETS.TEST", names)
    generator = build_generator(cfg)
    batch = [EvaluationMapper(cfg, name, with_ground_truth=True)(record) for name in names]
    first, second = (found.masks.values for found in generator(batch))
    assert first.int().argmax(dim=2).tolist() == [[0], [1], [2]]
    assert second.int().argmax(dim=2).tolist() == [[0], [1], [3]]
