"""One file with the masks of all images."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from maskclippp.errors import InputError, UnreadableFileError
from maskclippp.masks.mask_collections import MaskCollection
from maskclippp.masks.run_length import encode_masks

SIZE = (4, 6)


def masks(count: int) -> Tensor:
    ids = torch.arange(SIZE[0] * SIZE[1]).reshape(SIZE) % count
    return ids == torch.arange(count)[:, None, None]


def record(file_name: str = "a/b/x.jpg", **more: Any) -> Any:
    return {"image": torch.zeros(3, *SIZE), "file_name": file_name, **more}


def entries(image_id: Any, count: int) -> list[dict[str, Any]]:
    return [
        {"image_id": image_id, "category_id": 1, "score": 0.5, "segmentation": code}
        for code in encode_masks(masks(count))
    ]


def write(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("image_id", "image"),
    [
        (139, record("000000000139.jpg")),
        (139, record("other.jpg", image_id=139)),
        ("town/a", record(image_id="town/a")),
        ("x", record()),
        ("000139", record("139.png")),
    ],
)
def test_coco_results_are_found_by_the_id_or_the_file(
    image_id: Any, image: Any, tmp_path: Path
) -> None:
    path = write(tmp_path / "all.json", entries(7, 2) + entries(image_id, 3) + entries(8, 1))
    assert torch.equal(MaskCollection(path).masks_of(image), masks(3))


def test_an_annotation_file_names_images_and_those_without_masks(tmp_path: Path) -> None:
    images = [{"id": 5, "file_name": "val/x.jpg"}, {"id": 6, "file_name": "val/empty.jpg"}]
    content = {"images": images, "annotations": entries(5, 3)}
    found = MaskCollection(write(tmp_path / "all.json", content))
    assert torch.equal(found.masks_of(record()), masks(3))
    assert found.masks_of(record("empty.jpg")).shape == (0, *SIZE)


def test_arrays_are_named_like_the_images(tmp_path: Path) -> None:
    ids = np.arange(24).reshape(SIZE) % 3 + 1
    np.savez(tmp_path / "all.npz", **{"x": masks(2).numpy(), "000139": ids})
    found = MaskCollection(tmp_path / "all.npz")
    assert torch.equal(found.masks_of(record()), masks(2))
    assert torch.equal(found.masks_of(record("y.jpg", image_id=139)), masks(3))


FRAMES = [record(f"{number:04d}.jpg", image_id=number + 1) for number in range(3)]


@pytest.mark.parametrize("form", ["array", "array by id", "results", "annotation"])
def test_names_that_are_other_numbers_than_the_ids_find_their_own_masks(
    form: str, tmp_path: Path
) -> None:
    """Frame 0001 has image_id 2, and image_id 1 is frame 0000."""
    path = tmp_path / ("all.npz" if form.startswith("array") else "all.json")
    if form.startswith("array"):
        key = "{0}" if form == "array by id" else "{1}"
        arrays = {key.format(f["image_id"], Path(f["file_name"]).stem): f for f in FRAMES}
        np.savez(path, **{k: masks(f["image_id"]).numpy() for k, f in arrays.items()})
    else:
        images = [{"id": f["image_id"], "file_name": f["file_name"]} for f in FRAMES]
        found = [entry for f in FRAMES for entry in entries(f["image_id"], f["image_id"])]
        write(path, found if form == "results" else {"images": images, "annotations": found})
    collection = MaskCollection(path)
    for number, frame in enumerate(FRAMES, start=1):
        assert torch.equal(collection.masks_of(frame), masks(number))


def test_masks_of_another_number_are_not_taken_for_those_that_are_missing(tmp_path: Path) -> None:
    path = write(tmp_path / "all.json", entries(1, 2))
    with pytest.raises(FileNotFoundError, match="no masks of the image 2 or 0001"):
        MaskCollection(path).masks_of(FRAMES[1])
    np.savez(tmp_path / "all.npz", **{"0002": masks(2).numpy()})
    with pytest.raises(FileNotFoundError, match="no masks of the image 2 or 0001"):
        MaskCollection(tmp_path / "all.npz").masks_of(FRAMES[1])


def test_images_of_one_name_in_two_folders_are_told_apart_by_their_ids(tmp_path: Path) -> None:
    images = [{"id": 5, "file_name": "a/x.jpg"}, {"id": 6, "file_name": "b/x.jpg"}]
    content = {"images": images, "annotations": entries(5, 2) + entries(6, 3)}
    found = MaskCollection(write(tmp_path / "all.json", content))
    assert torch.equal(found.masks_of(record("a/x.jpg", image_id=5)), masks(2))
    assert torch.equal(found.masks_of(record("b/x.jpg", image_id=6)), masks(3))
    with pytest.raises(FileNotFoundError, match="no masks of the image x"):
        found.masks_of(record("b/x.jpg"))


def test_two_images_of_one_name_do_not_share_its_masks(tmp_path: Path) -> None:
    np.savez(tmp_path / "all.npz", x=masks(2).numpy())
    found = MaskCollection(tmp_path / "all.npz")
    for _ in range(2):
        assert found.masks_of(record("a/x.jpg")).shape == (2, *SIZE)
    with pytest.raises(InputError, match=r"'x', which is the name of a/x\.jpg and of b/x\.jpg"):
        found.masks_of(record("b/x.jpg"))


def test_a_key_that_is_a_name_or_an_id_is_ambiguous(tmp_path: Path) -> None:
    np.savez(tmp_path / "all.npz", **{"1": masks(2).numpy(), "2": masks(3).numpy()})
    with pytest.raises(InputError, match="masks of '1', the name of an image, and others of '2'"):
        MaskCollection(tmp_path / "all.npz").masks_of(record("1.jpg", image_id=2))


def test_an_image_that_is_not_there_is_told_with_what_is(tmp_path: Path) -> None:
    found = MaskCollection(write(tmp_path / "all.json", entries(7, 2)))
    with pytest.raises(
        FileNotFoundError, match=r"no masks of the image 9 or x; its 1 keys are such as \['7'\]"
    ):
        found.masks_of(record(image_id=9))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"masks": []}, "expected COCO results, a list of objects"),
        (3, "expected COCO results, a list of objects"),
        ([{"segmentation": {}}], "entry 0 must be an object with 'image_id'"),
        ([[]], "entry 0 must be an object with 'image_id'"),
    ],
)
def test_what_is_no_collection_is_refused(content: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        MaskCollection(write(tmp_path / "all.json", content))


def test_what_is_wrong_with_a_mask_is_told_with_its_image(tmp_path: Path) -> None:
    content = [{"image_id": 9, "segmentation": {"size": [4, 6], "counts": [1]}}]
    found = MaskCollection(write(tmp_path / "all.json", content))
    with pytest.raises(InputError, match=r"all\.json, image 9: mask 0 is not a valid run-length"):
        found.masks_of(record(image_id=9))


@pytest.mark.parametrize("name", ["all.json", "all.npz"])
def test_a_damaged_file_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"{\x00")
    with pytest.raises(UnreadableFileError, match=rf"{name} cannot be read"):
        MaskCollection(tmp_path / name)


def test_a_picture_holds_one_image(tmp_path: Path) -> None:
    (tmp_path / "all.png").touch()
    with pytest.raises(InputError, match=r"from one of .* give the folder with the files"):
        MaskCollection(tmp_path / "all.png")


def test_in_an_annotation_file_the_name_of_the_image_decides(tmp_path: Path) -> None:
    """Its ids are its own: those of the dataset may be of other images."""
    images = [{"id": 1, "file_name": "b.jpg"}, {"id": 2, "file_name": "a.jpg"}]
    content = {"images": images, "annotations": entries(1, 2) + entries(2, 3)}
    found = MaskCollection(write(tmp_path / "all.json", content))
    assert torch.equal(found.masks_of(record("a.jpg", image_id=1)), masks(3))
    assert torch.equal(found.masks_of(record("b.jpg", image_id=2)), masks(2))
