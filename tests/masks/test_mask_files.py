"""Masks in files: the formats of other programs, and errors that name the file."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as rle
from torch import Tensor

from maskclippp.masks.mask_files import FORMATS, read_masks, write_masks

SIZE = (4, 6)


def partition(count: int, size: tuple[int, int] = SIZE) -> Tensor:
    """Masks that share all pixels between them."""
    ids = torch.arange(size[0] * size[1]).reshape(size) % count
    return ids == torch.arange(count)[:, None, None]


def encoded(mask: Tensor) -> dict[str, Any]:
    code = rle.encode(np.asfortranarray(mask.numpy().astype(np.uint8)))
    return {"size": list(mask.shape), "counts": code["counts"].decode()}


def as_json(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize(("count", "size"), [(1, SIZE), (3, SIZE), (300, (20, 30))], ids=str)
def test_what_is_written_is_read(
    ending: str, count: int, size: tuple[int, int], tmp_path: Path
) -> None:
    masks = partition(count, size)
    write_masks(tmp_path / f"a{ending}", masks)
    found = read_masks(tmp_path / f"a{ending}", size)
    assert found.dtype == torch.bool
    assert torch.equal(found, masks)


@pytest.mark.parametrize("ending", FORMATS)
def test_no_masks_are_written_and_read(ending: str, tmp_path: Path) -> None:
    write_masks(tmp_path / f"a{ending}", partition(1)[:0])
    assert read_masks(tmp_path / f"a{ending}", SIZE).shape == (0, *SIZE)


@pytest.mark.parametrize("ending", [".json", ".npy", ".npz"])
def test_masks_may_overlap_and_be_empty(ending: str, tmp_path: Path) -> None:
    masks = torch.ones(3, *SIZE, dtype=torch.bool)
    masks[2] = False
    write_masks(tmp_path / f"a{ending}", masks)
    assert torch.equal(read_masks(tmp_path / f"a{ending}", SIZE), masks)


@pytest.mark.parametrize("masks", [torch.ones(2, *SIZE), torch.zeros(2, *SIZE)])
def test_a_png_holds_neither_overlapping_nor_empty_masks(masks: Tensor, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"a\.png: a PNG cannot hold 2 masks .* choose npz or json"
    ):
        write_masks(tmp_path / "a.png", masks.bool())
    assert list(tmp_path.iterdir()) == []


class TestArrays:
    """.npy and .npz"""

    @pytest.mark.parametrize("inside", [1, 255])
    @pytest.mark.parametrize("dtype", ["uint8", "int64", "uint16"])
    def test_integers_are_inside_where_not_zero(
        self, dtype: str, inside: int, tmp_path: Path
    ) -> None:
        masks = partition(3)
        np.save(tmp_path / "a.npy", masks.numpy().astype(dtype) * np.array(inside, dtype))
        assert torch.equal(read_masks(tmp_path / "a.npy", SIZE), masks)

    @pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
    def test_floats_are_probabilities(self, dtype: str, tmp_path: Path) -> None:
        masks = torch.rand(3, *SIZE).numpy().astype(dtype)
        np.savez(tmp_path / "a.npz", masks=masks)
        found = read_masks(tmp_path / "a.npz", SIZE)
        assert torch.equal(found, torch.from_numpy(masks.astype("float32")))

    @pytest.mark.parametrize("dtype", ["int32", "uint16", "uint64"])
    def test_a_plane_of_integers_holds_ids(self, dtype: str, tmp_path: Path) -> None:
        ids = np.zeros(SIZE, dtype)
        ids[0], ids[2] = 700, 5
        np.save(tmp_path / "a.npy", ids)
        expected = torch.from_numpy(np.stack([ids == 5, ids == 700]))
        assert torch.equal(read_masks(tmp_path / "a.npy", SIZE), expected)

    def test_negative_ids_are_no_masks(self, tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", np.full(SIZE, -1))
        assert len(read_masks(tmp_path / "a.npy", SIZE)) == 0

    @pytest.mark.parametrize(
        ("array", "message"),
        [
            (np.zeros(SIZE), r"expected whole numbers .* found float64"),
            (np.full((1, *SIZE), -3.5), r"probabilities in 0\.\.1, found -3\.5 to -3\.5"),
            (np.full((1, *SIZE), np.nan), r"probabilities in 0\.\.1, found nan"),
            (np.zeros((1, *SIZE), complex), r"expected numbers, found complex128"),
            (np.zeros(3), r"expected \[Q, H, W\] masks or \[H, W\] ids, found shape \(3,\)"),
            (np.zeros((2, 6, 4), bool), r"is 6 x 4, but its image is 4 x 6 \(height x width\)"),
        ],
    )
    def test_what_is_no_masks_is_refused(
        self, array: np.ndarray[Any, Any], message: str, tmp_path: Path
    ) -> None:
        np.save(tmp_path / "a.npy", array)
        with pytest.raises(ValueError, match=rf"a\.npy.*{message}"):
            read_masks(tmp_path / "a.npy", SIZE)

    def test_an_archive_needs_an_array_of_that_name(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "a.npz", mask=np.zeros((1, *SIZE), bool))
        with pytest.raises(ValueError, match=r"a\.npz: .* 'masks', found only \['mask'\]"):
            read_masks(tmp_path / "a.npz", SIZE)

    def test_pickled_objects_are_not_loaded(self, tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", np.array([{}], dtype=object), allow_pickle=True)
        np.savez(tmp_path / "a.npz", masks=np.array([{}], dtype=object))
        for file in ("a.npy", "a.npz"):
            with pytest.raises(OSError, match=rf"{file} cannot be read: Object arrays"):
                read_masks(tmp_path / file, SIZE)


class TestIds:
    """.png"""

    @pytest.mark.parametrize("mode", ["L", "P", "I;16"])
    def test_every_positive_value_is_a_mask(self, mode: str, tmp_path: Path) -> None:
        ids = np.zeros(SIZE, np.uint16 if mode == "I;16" else np.uint8)
        ids[0], ids[1] = 255, 7
        picture = Image.fromarray(ids)
        if mode == "P":
            picture.putpalette([0, 0, 0] * 256)
        assert picture.mode == mode
        picture.save(tmp_path / "a.png")
        expected = torch.from_numpy(np.stack([ids == 7, ids == 255]))
        assert torch.equal(read_masks(tmp_path / "a.png", SIZE), expected)

    def test_a_color_picture_is_refused(self, tmp_path: Path) -> None:
        Image.new("RGB", (6, 4)).save(tmp_path / "a.png")
        with pytest.raises(ValueError, match=r"a\.png: expected one channel"):
            read_masks(tmp_path / "a.png", SIZE)


class TestRunLengths:
    """.json"""

    @pytest.mark.parametrize("form", ["bare", "segmentation", "annotations", "uncompressed"])
    def test_forms(self, form: str, tmp_path: Path) -> None:
        masks = partition(3)
        codes: Any = [encoded(mask) for mask in masks]
        if form == "uncompressed":
            runs = [[0, 1, *[2, 1] * 7, 2], [1, 1, *[2, 1] * 7, 1], [2, *[1, 2] * 7, 1]]
            masks = partition(3, (6, 4)).transpose(1, 2)  # runs go down the columns
            codes = [{"size": list(SIZE), "counts": counts} for counts in runs]
        if form in ("segmentation", "annotations"):
            codes = [{"segmentation": code, "area": 8, "stability_score": 0.9} for code in codes]
        if form == "annotations":
            codes = {"image": {"image_id": 1}, "annotations": codes}
        assert torch.equal(read_masks(as_json(tmp_path / "a.json", codes), SIZE), masks)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ({"masks": []}, r"a\.json: expected a list of COCO run-length encodings"),
            (3, r"a\.json: expected a list of COCO run-length encodings"),
            ([{"segmentation": [[0, 0, 3, 0, 3, 3]]}], r"mask 0: .* polygons must be converted"),
            ([{"size": [6, 4], "counts": "0"}], r"mask 0 is 6 x 4, but its image is 4 x 6"),
            ([{"size": [4, 6], "counts": [3, 4]}], r"mask 0 is not a valid .* add up to 7 pixels"),
            ([{"size": [4, 6], "counts": [-1, 25]}], r"mask 0 is not a valid"),
            ([{"size": [4, 6], "counts": ["a"]}], r"mask 0 is not a valid"),
            ([{"size": [4, 6], "counts": None}], r"mask 0 is not a valid .* counts are None"),
            ([{"size": [4, 6], "counts": "999"}], r"mask 0 is not a valid .* add up to 27 pixels"),
            ([{"size": [4, 6], "counts": "5"}], r"mask 0 is not a valid .* add up to 5 pixels"),
            ([{"size": [4, 6], "counts": "8o"}], r"mask 0 is not a valid .* ends within a number"),
            ([{"size": [4, 6], "counts": ""}], r"mask 0 is not a valid .* ends within a number"),
        ],
    )
    def test_what_is_no_masks_is_refused(self, content: Any, message: str, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=message):
            read_masks(as_json(tmp_path / "a.json", content), SIZE)


def test_long_and_short_runs_are_read(tmp_path: Path) -> None:
    masks = torch.zeros(4, 300, 200, dtype=torch.bool)
    masks[0, 7:290, 3:190], masks[1, ::2], masks[2] = True, True, True
    masks[3] = torch.rand(300, 200) > 0.5
    write_masks(tmp_path / "a.json", masks)
    assert torch.equal(read_masks(tmp_path / "a.json", (300, 200)), masks)


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize("share", [0.0, 0.5, 0.7])
def test_a_damaged_file_is_named(ending: str, share: float, tmp_path: Path) -> None:
    path = tmp_path / f"a{ending}"
    write_masks(path, partition(9, (30, 40)))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(OSError, match=rf"a\{ending} cannot be read"):
        read_masks(path, (30, 40))


@pytest.mark.parametrize("ending", FORMATS)
def test_something_else_under_the_name_is_refused(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{ending}"
    path.write_bytes(b"\x80\x04K\x01.")
    with pytest.raises(OSError, match=rf"a\{ending} cannot be read"):
        read_masks(path, SIZE)


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"mask file .*a\.npz does not exist"):
        read_masks(tmp_path / "a.npz", SIZE)


def test_an_unknown_format_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"one of \('\.json', .*\), found 'a\.pkl'"):
        read_masks(tmp_path / "a.pkl", SIZE)


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_a_flipped_bit_in_an_archive_is_noticed(write: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    write(path, masks=partition(3, SIZE).numpy())
    content = path.read_bytes()
    middle = content.index(b"NUMPY") + 200 if write is np.savez else len(content) // 3
    path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    with pytest.raises(OSError, match=r"a\.npz cannot be read"):
        read_masks(path, SIZE)


@pytest.mark.parametrize("count", [255, 256])
def test_every_mask_of_a_picture_has_an_id(count: int, tmp_path: Path) -> None:
    masks = partition(count, (16, 32))
    write_masks(tmp_path / "a.png", masks)
    assert torch.equal(read_masks(tmp_path / "a.png", (16, 32)), masks)
