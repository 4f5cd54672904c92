"""The pictures of the manual."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from maskclippp.config.keys import get_cfg
from maskclippp.config.merging import merge_config_file
from maskclippp.data.shapes.dataset import write_split
from maskclippp.engine import Trainer
from shapes import gallery


@pytest.mark.processes
def test_the_gallery_draws_every_picture_that_the_manual_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MASKCLIPPP_CACHE", str(tmp_path))
    write_split("val", 1, tmp_path / "shapes_v1" / "val")
    cfg = get_cfg()
    merge_config_file(cfg, gallery.CONFIGS / "linear_psm.yaml")
    cfg.MODEL.DEVICE = "cpu"
    weights = tmp_path / "model.pth"
    torch.save({"model": Trainer.build_model(cfg).state_dict()}, weights)
    monkeypatch.setattr(gallery, "SCENE", 0)
    monkeypatch.setattr("sys.argv", ["gallery", str(weights), "--output", str(tmp_path / "out")])
    gallery.main()
    shown = gallery.CONFIGS.parents[1] / "docs" / "images"
    drawn = list((tmp_path / "out").glob("*.webp"))
    assert {"scene.webp", "picture.webp", "words.webp", "generators.webp"} <= {
        p.name for p in drawn
    }
    for path in (shown / new.name for new in drawn):
        with Image.open(path) as old, Image.open(tmp_path / "out" / path.name) as new:
            assert new.size == old.size
