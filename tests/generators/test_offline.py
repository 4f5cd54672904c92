"""OfflineSegmentor finds the masks of each image, and says what it looked for."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from maskclippp.errors import InputError
from maskclippp.generators import OfflineSegmentor, build_generator
from maskclippp.masks.mask_files import write_masks
from maskclippp.masks.run_length import encode_masks
from tests.tiny_models import random_image, tiny_config, tiny_model

SIZE = (48, 64)


def halves(size: tuple[int, int] = SIZE) -> Tensor:
    """A left and a right mask."""
    left = (torch.arange(size[1]) < size[1] // 2).expand(size)
    return torch.stack([left, ~left])


def save(path: Path, masks: Tensor) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_masks(path, masks)


def record(file_name: str, size: tuple[int, int] = SIZE) -> dict[str, Any]:
    return {
        "image": random_image(*size),
        "height": size[0],
        "width": size[1],
        "file_name": file_name,
    }


def offline_config(folder: Path, suffix: str = ".npz", *options: Any) -> tuple[Any, ...]:
    return (
        *(".SEGMENTOR.NAME", "OfflineSegmentor", ".SEGMENTOR.OFFLINE_ANN_DIR", str(folder)),
        *(".SEGMENTOR.OFFLINE_ANN_SUFFIX", suffix, *options),
    )


@pytest.mark.parametrize("suffix", [".npz", ".npy", ".json", ".png", "_masks.npz"])
def test_masks_are_found_by_the_name_of_the_image(suffix: str, tmp_path: Path) -> None:
    save(tmp_path / f"street.view{suffix}", halves())
    generator = build_generator(tiny_config(*offline_config(tmp_path, suffix)))
    (found,) = generator([record("some/folder/street.view.jpg")])
    assert torch.equal(found.masks.values, halves())
    assert found.logits is None


def test_images_of_the_same_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    save(tmp_path / "rome" / "a.npz", halves()[:1])
    save(tmp_path / "val" / "bonn" / "a.npz", halves()[1:])
    save(tmp_path / "a.npz", halves())
    generator = OfflineSegmentor(folder=tmp_path, suffix=".npz")
    files = ["data/val/rome/a.jpg", "data/val/bonn/a.jpg", "/data/elsewhere/a.jpg", "a.jpg"]
    found = generator([record(file) for file in files])
    rome, bonn, *others = (image.masks.values for image in found)
    assert torch.equal(rome, halves()[:1])
    assert torch.equal(bonn, halves()[1:])
    assert all(torch.equal(masks, halves()) for masks in others)


def test_masks_have_the_original_size_whatever_the_image_was_resized_to(tmp_path: Path) -> None:
    save(tmp_path / "a.npz", halves())
    resized = {**record("a.jpg"), "image": random_image(24, 32)}
    generator = OfflineSegmentor(folder=tmp_path, suffix=".npz")
    assert generator([resized])[0].masks.values.shape == (2, *SIZE)


def test_masks_of_another_size_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "a.npz", halves((24, 32)))
    generator = OfflineSegmentor(folder=tmp_path, suffix=".npz")
    with pytest.raises(ValueError, match=r"a\.npz is 24 x 32, but its image is 48 x 64"):
        generator([record("a.jpg")])


def test_an_absent_file_tells_what_was_looked_for_and_what_is_there(tmp_path: Path) -> None:
    for name in ("a.npz", "val/b.npz", "c.json"):
        save(tmp_path / name, halves())
    generator = OfflineSegmentor(folder=tmp_path, suffix=".npz")
    with pytest.raises(FileNotFoundError) as caught:
        generator([record("val/x.jpg")])
    assert f"no masks of image val/x.jpg: {tmp_path / 'x.npz'} does not exist" in str(caught.value)
    assert f"{tmp_path} has 2 files that end with '.npz'" in str(caught.value)


def test_an_image_without_name_cannot_be_looked_up(tmp_path: Path) -> None:
    generator = OfflineSegmentor(folder=tmp_path, suffix=".npz")
    with pytest.raises(ValueError, match=r"only \['image'\]; give 'file_name' or choose another"):
        generator([{"image": random_image(*SIZE)}])


@pytest.mark.parametrize("folder", ["", "no/such/folder"])
def test_the_folder_must_exist(folder: str) -> None:
    with pytest.raises(FileNotFoundError, match=rf"OFFLINE_ANN_DIR: '{folder}' is not a folder"):
        OfflineSegmentor(folder=folder, suffix=".npz")


@pytest.mark.parametrize("suffix", ["", "npz", ".pkl"])
def test_the_suffix_must_end_with_a_format(suffix: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"OFFLINE_ANN_SUFFIX.* found 'image{suffix}'"):
        OfflineSegmentor(folder=tmp_path, suffix=suffix)


def test_an_image_without_masks_has_no_segments(tmp_path: Path) -> None:
    save(tmp_path / "empty.npz", halves()[:0])
    save(tmp_path / "full.npz", halves())
    model = tiny_model(
        *offline_config(tmp_path),
        *("MODEL.MASK_FORMER.TEST.PANOPTIC_ON", True, "MODEL.MASK_FORMER.TEST.INSTANCE_ON", True),
    ).eval()
    empty, full = model([record("empty.jpg"), record("full.jpg")])
    assert not empty["panoptic_seg"][0].any()
    assert empty["panoptic_seg"][1] == []
    assert len(empty["instances"]) == 0
    assert empty["sem_seg_labels"].shape == SIZE
    assert full["panoptic_seg"][1]


def test_one_file_may_hold_the_masks_of_all_images(tmp_path: Path) -> None:
    codes = [{"image_id": 1, "segmentation": code} for code in encode_masks(halves())]
    (tmp_path / "results.json").write_text(json.dumps(codes))
    generator = build_generator(tiny_config(*offline_config(tmp_path / "results.json", "")))
    (found,) = generator([{**record("a.jpg"), "image_id": 1}])
    assert torch.equal(found.masks.values, halves())


@pytest.mark.parametrize("suffix", ["/../../secret.npz", "/a.npz", "../a.npy"])
def test_suffix_cannot_leave_the_folder(suffix: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"OFFLINE_ANN_SUFFIX.*found the path"):
        OfflineSegmentor(folder=tmp_path, suffix=suffix)
