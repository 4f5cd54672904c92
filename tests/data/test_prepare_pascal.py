"""The scripts for PASCAL VOC and PASCAL Context make what the originals say."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.io import loadmat

from tests.data.original_layouts import ADE_FOLDERS, CONTEXT_MASKS, STEMS, make_context, make_voc
from tests.data.preparation_runs import load_script, pixels, run_main, run_process

IMAGES = [(split, stem) for split in STEMS for stem in STEMS[split]]
# Aeroplane is the first of the 59 classes, person the 37th, wood the last.
CONTEXT_CLASSES = {0: 255, 2: 0, 284: 36, 458: 58}


@pytest.fixture(scope="module")
def voc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("voc")
    make_voc(root)
    run_process("prepare_pascal_voc_sem_seg", root)
    return root


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("context")
    make_context(root)
    assert run_main("prepare_pascal_ctx_sem_seg", root, workers=2) == 0
    run_process("prepare_pascal_ctx_full_sem_seg", root)
    return root


@pytest.mark.parametrize(("split", "stem"), IMAGES)
def test_voc_with_background_keeps_the_values(voc: Path, split: str, stem: str) -> None:
    name = f"2007_00000{stem}"
    original = pixels(voc / "VOCdevkit" / "VOC2012" / "SegmentationClass" / f"{name}.png")
    folder = voc / "pascal_voc_d2" / "annotations_pascal21" / ADE_FOLDERS[split]
    assert (pixels(folder / f"{name}.png") == original).all()
    assert set(np.unique(original)) == {0, 1, 15, 20, 255}


@pytest.mark.parametrize(("split", "stem"), IMAGES)
def test_voc_without_background_ignores_it_like_the_border(
    voc: Path, split: str, stem: str
) -> None:
    name = f"2007_00000{stem}"
    original = pixels(voc / "VOCdevkit" / "VOC2012" / "SegmentationClass" / f"{name}.png")
    folder = voc / "pascal_voc_d2" / "annotations_pascal20" / ADE_FOLDERS[split]
    expected = np.vectorize({0: 255, 1: 0, 15: 14, 20: 19, 255: 255}.get)(original)
    assert (pixels(folder / f"{name}.png") == expected).all()


@pytest.mark.parametrize(("split", "stem"), IMAGES)
def test_images_are_copied_unchanged(voc: Path, context: Path, split: str, stem: str) -> None:
    for root, year, name in (
        (voc, 2012, f"2007_00000{stem}"),
        (context, 2010, f"2008_00000{stem}"),
    ):
        original = root / "VOCdevkit" / f"VOC{year}" / "JPEGImages" / f"{name}.jpg"
        target = root / ("pascal_voc_d2" if root == voc else "pascal_ctx_d2") / "images"
        copy = target / ADE_FOLDERS[split] / f"{name}.jpg"
        assert copy.read_bytes() == original.read_bytes()


@pytest.mark.parametrize(("split", "stem"), IMAGES)
def test_later_masks_of_context_cover_earlier_ones(context: Path, split: str, stem: str) -> None:
    folder = context / "pascal_ctx_d2" / "annotations_ctx59" / ADE_FOLDERS[split]
    made = pixels(folder / f"2008_00000{stem}.png")
    expected = np.zeros(made.shape, int)
    for category, (top, bottom), (left, right) in CONTEXT_MASKS:
        expected[top:bottom, left:right] = category
    assert (made == np.vectorize(CONTEXT_CLASSES.get)(expected)).all()


@pytest.mark.parametrize(("split", "stem"), IMAGES)
def test_459_classes_come_from_the_matlab_files(context: Path, split: str, stem: str) -> None:
    name = f"2008_00000{stem}"
    source = context / "VOCdevkit" / "VOC2010" / "trainval" / f"{name}.mat"
    original = loadmat(source)["LabelMap"].astype(int)
    folder = context / "pascal_ctx_d2" / "annotations_ctx459" / ADE_FOLDERS[split]
    made = pixels(folder / f"{name}.tif")
    assert (made == (original - 1) % 65536).all()
    assert {0, 458, 65535} <= set(np.unique(made))


def test_the_59_classes_are_those_of_pascal_in_detail() -> None:
    """Their category ids, which its own evaluation uses."""
    script = load_script("prepare_pascal_ctx_sem_seg")
    assert list(script.load_class_list("pascal_context_59").ids) == [
        *(2, 9, 18, 19, 22, 23, 25, 31, 33, 34, 44, 45, 46, 59, 65, 68, 72, 80, 85, 98),
        *(104, 105, 113, 115, 144, 158, 159, 162, 187, 189, 207, 220, 232, 258, 259, 260),
        *(284, 295, 296, 308, 324, 326, 347, 349, 354, 355, 360, 366, 368, 397, 415, 416),
        *(420, 424, 427, 440, 445, 454, 458),
    ]


def test_devkit_folder_may_be_left_out(tmp_path: Path) -> None:
    make_voc(tmp_path)
    (tmp_path / "VOCdevkit" / "VOC2012").rename(tmp_path / "VOC2012")
    assert run_main("prepare_pascal_voc_sem_seg", tmp_path) == 0


def test_context_category_beyond_the_59_is_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_context(tmp_path)
    file = tmp_path / "VOCdevkit" / "VOC2010" / "trainval_merged.json"
    content = json.loads(file.read_text())
    content["annos_segmentation"][-1]["category_id"] = 3
    file.write_text(json.dumps(content))
    assert run_main("prepare_pascal_ctx_sem_seg", tmp_path) == 1
    assert "2008_000003.jpg: value 3 is not a class" in caplog.text


def test_mask_of_another_size_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make_context(tmp_path)
    file = tmp_path / "VOCdevkit" / "VOC2010" / "trainval_merged.json"
    content = json.loads(file.read_text())
    content["images"][1]["height"] += 1
    file.write_text(json.dumps(content))
    assert run_main("prepare_pascal_ctx_sem_seg", tmp_path) == 1
    assert "2008_000002.jpg: its mask has the size [24, 18], expected (25, 18)" in caplog.text


@pytest.mark.parametrize("damage", [b"", b"MATLAB 7.3 MAT-file" + b" " * 200])
def test_unreadable_matlab_file_is_named(
    damage: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_context(tmp_path)
    assert run_main("prepare_pascal_ctx_sem_seg", tmp_path) == 0
    file = tmp_path / "VOCdevkit" / "VOC2010" / "trainval" / "2008_000002.mat"
    file.write_bytes(damage)
    assert run_main("prepare_pascal_ctx_full_sem_seg", tmp_path) == 1
    assert f"{file}: is not a readable MATLAB 5 file" in caplog.text
