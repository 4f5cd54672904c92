"""Saved masks give what the generator itself gives, and an interrupted run goes on."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image
from torch import Tensor

from maskclippp.config.keys import get_cfg
from maskclippp.data.builtin import coco_panoptic
from maskclippp.data.mappers.images import image_to_tensor
from maskclippp.engine import Trainer
from maskclippp.errors import InputError
from maskclippp.generators import SuperpixelSegmentor
from maskclippp.masks.mask_files import read_masks
from tests.data.panoptic_scene import SIZES, make_coco_panoptic
from tests.tiny_models import tiny_config
from tools import save_masks

DATASET = "save_masks_val"
FORMATS = ["npz", "npy", "json", "png"]


@pytest.fixture
def images(tmp_path: Path) -> Iterator[Path]:
    """A registered dataset of two images; yields their folder."""
    root = make_coco_panoptic(tmp_path / "datasets")
    dataset = dataclasses.replace(coco_panoptic("val"), name=DATASET)
    dataset.register(root)
    yield root / dataset.images
    DatasetCatalog.remove(DATASET)
    MetadataCatalog.remove(DATASET)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "config.yaml"
    file.write_text(
        "INPUT: {FORMAT: RGB, MIN_SIZE_TEST: 0}\n"
        f"DATASETS: {{TEST: [{DATASET}]}}\n"
        "DATALOADER: {NUM_WORKERS: 0}\n"
        "MODEL: {MASKCLIPPP: {SEGMENTOR: {NAME: SuperpixelSegmentor}}}\n"
    )
    return file


def run(config: Path, output: Path, *arguments: str) -> None:
    save_masks.main(
        ["--config-file", str(config), "--output", str(output), "--device", "cpu", *arguments]
    )


def superpixels(image: Path) -> Tensor:
    """What the generator finds in an image."""
    tensor = image_to_tensor(Image.open(image).convert("RGB"))
    (found,) = SuperpixelSegmentor()([{"image": tensor}])
    return found.masks.values


def evaluation_config(output: Path, *options: Any) -> CfgNode:
    return tiny_config(
        *("DATASETS.TEST", (DATASET,), "INPUT.MIN_SIZE_TEST", 0, "DATALOADER.NUM_WORKERS", 0),
        *("OUTPUT_DIR", str(output), "MODEL.MASK_FORMER.TEST.PANOPTIC_ON", True),
        *(".TEMPLATES", "t1", *options),
    )


@pytest.mark.parametrize("file_format", FORMATS)
def test_saved_masks_are_those_of_the_generator(
    file_format: str, images: Path, config: Path, tmp_path: Path
) -> None:
    run(config, tmp_path / "masks", "--format", file_format)
    files = sorted(images.iterdir())
    assert len(files) == len(SIZES)
    for image in files:
        expected = superpixels(image)
        size = (expected.shape[1], expected.shape[2])
        found = read_masks(tmp_path / "masks" / f"{image.stem}.{file_format}", size)
        assert torch.equal(found, expected)


def test_evaluation_with_saved_masks_gives_the_generators_results(
    images: Path, config: Path, tmp_path: Path
) -> None:
    run(config, tmp_path / "masks")
    online = evaluation_config(tmp_path / "a", ".SEGMENTOR.NAME", "SuperpixelSegmentor")
    offline = evaluation_config(
        tmp_path / "b",
        *(".SEGMENTOR.NAME", "OfflineSegmentor", ".SEGMENTOR.OFFLINE_ANN_SUFFIX", ".npz"),
        *(".SEGMENTOR.OFFLINE_ANN_DIR", str(tmp_path / "masks")),
    )
    results = []
    for cfg in (online, offline):
        torch.manual_seed(0)
        results.append(Trainer.test(cfg, Trainer.build_model(cfg)))
    assert results[0]["sem_seg"]["mIoU"] > 0
    assert repr(results[0]) == repr(results[1])  # NaN included


def test_a_folder_of_images_keeps_its_folders(config: Path, tmp_path: Path) -> None:
    for name in ("rome/a.jpg", "rome/b.png", "bonn/x/a.JPG", "bonn/notes.txt"):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 10)).save(path, format="PNG")
    run(config, tmp_path / "masks", "--images", str(tmp_path / "images"), "--format", "png")
    files = {str(path.relative_to(tmp_path / "masks")) for path in tmp_path.rglob("masks/**/*.png")}
    assert files == {"rome/a.png", "rome/b.png", "bonn/x/a.png"}


def test_images_of_a_dataset_that_the_config_describes(
    images: Path, config: Path, tmp_path: Path
) -> None:
    name = "save_masks_custom"
    json_file = images.parent / "annotations" / "panoptic_val2017.json"
    entry = {
        "name": name,
        "kind": "coco_panoptic",
        "images": str(images),
        "annotations": str(json_file),
        "panoptic_maps": str(images.parent / "panoptic_val2017"),
    }
    options = ("DATASETS.CUSTOM", str([entry]), "DATASETS.TEST", f"('{name}',)")
    try:
        run(config, tmp_path / "masks", *options)
    finally:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    assert len(list((tmp_path / "masks").glob("*.npz"))) == len(SIZES)


def test_masks_of_resized_images_have_the_original_size(
    images: Path, config: Path, tmp_path: Path
) -> None:
    run(config, tmp_path / "masks", "INPUT.MIN_SIZE_TEST", "24")
    for image in images.iterdir():
        width, height = Image.open(image).size
        assert len(read_masks(tmp_path / "masks" / f"{image.stem}.npz", (height, width))) > 0


def test_the_generator_sees_resized_images_whatever_resizes_them(
    images: Path, config: Path, tmp_path: Path
) -> None:
    for name, on_device in (("a", "False"), ("b", "True")):
        options = ("INPUT.MIN_SIZE_TEST", "24", "INPUT.RESIZE_ON_DEVICE", on_device)
        run(config, tmp_path / name, *options)
    for image in images.iterdir():
        width, height = Image.open(image).size
        one, other = (
            read_masks(tmp_path / name / f"{image.stem}.npz", (height, width)) for name in "ab"
        )
        assert torch.equal(one, other)


def test_finished_files_are_left_and_missing_ones_made(
    images: Path, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    masks = tmp_path / "masks"
    run(config, masks)
    first, second = sorted(masks.glob("*.npz"))
    first.write_bytes(b"kept")
    second.unlink()
    capsys.readouterr()
    run(config, masks)
    assert "1 of 2 files are there" in capsys.readouterr().out
    assert first.read_bytes() == b"kept"
    assert second.is_file()
    assert not list(masks.glob(".*"))


def test_masks_of_two_generators_are_not_mixed(images: Path, config: Path, tmp_path: Path) -> None:
    run(config, tmp_path / "masks")
    options = ("MODEL.MASKCLIPPP.SEGMENTOR.SUPERPIXELS.NUM_SEGMENTS", "9")
    with pytest.raises(InputError, match=r"made with another SEGMENTOR .*choose another --output"):
        run(config, tmp_path / "masks", *options)


def test_masks_of_another_precision_are_refused(images: Path, config: Path, tmp_path: Path) -> None:
    run(config, tmp_path / "masks")
    next((tmp_path / "masks").glob("*.npz")).unlink()
    with pytest.raises(InputError, match="made with another DTYPE"):
        run(config, tmp_path / "masks", "MODEL.MASKCLIPPP.TEST.DTYPE", "bfloat16")


def test_settings_may_change_while_there_are_no_masks(
    images: Path, config: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="PanGTSegmentor needs the annotation"):
        run(
            config,
            tmp_path / "masks",
            *("--images", str(images), "MODEL.MASKCLIPPP.SEGMENTOR.NAME", "PanGTSegmentor"),
        )
    run(config, tmp_path / "masks", "--images", str(images))
    assert len(list((tmp_path / "masks").glob("*.npz"))) == len(SIZES)


def test_images_that_would_share_a_file_are_named(config: Path, tmp_path: Path) -> None:
    for name in ("a.jpg", "a.png"):
        Image.new("RGB", (20, 10)).save(tmp_path / name)
    with pytest.raises(InputError, match=r"a\.jpg and .*a\.png would share .*a\.npz"):
        run(config, tmp_path / "masks", "--images", str(tmp_path))


def test_a_folder_without_images_is_refused(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run(config, tmp_path / "masks", "--images", str(tmp_path / "nothing"))
    assert "no image below" in capsys.readouterr().err


def test_one_test_set_must_be_named(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run(config, tmp_path / "masks", "DATASETS.TEST", "()")
    assert "name one set at the end of the command" in capsys.readouterr().err


def test_an_output_that_is_a_file_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "masks").touch()
    with pytest.raises(InputError, match=r"--output .*masks cannot be created .*name a folder"):
        save_masks.keep_settings(get_cfg(), tmp_path / "masks", has_masks=False)
