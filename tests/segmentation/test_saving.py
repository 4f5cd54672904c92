"""Files of a result, read back by others."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as codec

from maskclippp.files.images import read_panoptic_ids
from maskclippp.visualization import word_colors
from tests.segmentation.test_result import IMAGE, made


def test_pictures(tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg", "a.webp"):
        saved = made().save(tmp_path / "folder" / name)
        with Image.open(saved) as picture:
            assert picture.width == IMAGE.shape[1]


def test_the_index_picture_has_classes_and_colors(tmp_path: Path) -> None:
    result = made()
    with Image.open(result.save(tmp_path / "a.index.png")) as picture:
        labels = np.asarray(picture)
        assert picture.mode == "P"
        assert picture.getpalette()[:9] == [c for color in word_colors(result.names) for c in color]
    assert np.array_equal(labels, np.where(result.labels == -1, 255, result.labels))


def test_coco_panoptic(tmp_path: Path) -> None:
    result = made("semantic")
    content = json.loads(result.save(tmp_path / "a.panoptic.json").read_text())
    (annotation,) = content["annotations"]
    ids = read_panoptic_ids(tmp_path / annotation["file_name"])
    assert np.array_equal(ids, result.panoptic)
    for segment in annotation["segments_info"]:
        assert (ids == segment["id"]).sum() == segment["area"]
    assert [c["isthing"] for c in content["categories"]] == [1, 1, 0]


def test_coco_results(tmp_path: Path) -> None:
    result = made()
    entries = json.loads(result.save(tmp_path / "a.json").read_text())
    for entry, mask in zip(entries, result.masks, strict=True):
        assert np.array_equal(codec.decode(entry["segmentation"]), mask)


def test_arrays(tmp_path: Path) -> None:
    result = made()
    with np.load(result.save(tmp_path / "a.npz"), allow_pickle=False) as arrays:
        assert np.array_equal(arrays["labels"], result.labels)
        assert np.array_equal(arrays["masks"], result.masks)
        assert arrays["names"].tolist() == list(result.names)


def test_wrong_names_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected a name that ends with one of"):
        made().save(tmp_path / "a.gif")
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"cannot be written"):
        made().save(tmp_path / "file" / "a.png")
