"""The pictures show the samples of a training, with the masks that it gets."""

from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.structures import Instances
from PIL import Image

from maskclippp.config.keys import get_cfg
from maskclippp.config.merging import merge_config_file
from maskclippp.data.loader import build_train_loader
from maskclippp.data.shapes.dataset import write_split
from maskclippp.errors import InputError
from maskclippp.visualization import word_colors
from tests.golden_cases import REPOSITORY
from tools import visualize_data

CONFIG = REPOSITORY / "configs/shapes/linear_psm.yaml"


def test_pictures_show_the_first_samples_of_a_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MASKCLIPPP_CACHE", str(tmp_path))
    write_split("train", 3, tmp_path / "shapes_v1" / "train")
    output = tmp_path / "pictures"
    visualize_data.main(
        ["--config-file", str(CONFIG), "--output", str(output), "--count", "2", "SEED", "5"]
    )
    cfg = get_cfg()
    merge_config_file(cfg, CONFIG)
    cfg.SEED, cfg.SOLVER.IMS_PER_BATCH, cfg.DATALOADER.NUM_WORKERS = 5, 2, 0
    batch = next(iter(build_train_loader(cfg)))
    files = sorted(output.iterdir())
    assert [file.stem[:4] for file in files] == ["0000", "0001"]
    for file, sample in zip(files, batch, strict=True):
        assert file.stem.endswith(Path(sample["file_name"]).stem)
        picture = Image.open(file)
        left = picture.crop((0, 0, picture.width // 2, picture.height))
        height, width = sample["image"].shape[-2:]
        shown = np.asarray(left.resize((width, height), Image.Resampling.NEAREST))
        assert np.array_equal(shown, sample["image"].permute(1, 2, 0).numpy())


def test_the_smaller_of_two_overlapping_masks_is_seen() -> None:
    instances = Instances((400, 400))
    instances.gt_masks = torch.zeros(2, 400, 400, dtype=torch.bool)
    instances.gt_masks[0, 100:200, 100:200] = instances.gt_masks[1] = True
    instances.gt_classes = torch.tensor([1, 0])
    image = torch.zeros(3, 400, 400, dtype=torch.uint8)
    drawn = visualize_data.draw_sample(
        {"image": image, "instances": instances}, ["wall", "cat, kitten"]
    )
    wall, cat = (tuple(round(c / 2) for c in color) for color in word_colors(["wall", "cat"]))
    assert drawn.getpixel((400 + 105, 105)) == pytest.approx(cat, abs=1)
    assert drawn.getpixel((400 + 5, 5)) == pytest.approx(wall, abs=1)


def test_a_config_without_training_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"DATASETS\.TRAIN names no set"):
        visualize_data.main(
            ["--config-file", str(CONFIG), "--output", str(tmp_path), "DATASETS.TRAIN", "()"]
        )
