"""Predictions on test images go to TensorBoard or W&B after an evaluation, if a key asks for it."""

from pathlib import Path

import numpy as np
import pytest
import torch
import wandb
from detectron2.utils.events import EventStorage
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb.proto import wandb_internal_pb2

from maskclippp.config.keys import get_cfg
from maskclippp.config.merging import merge_config_file
from maskclippp.data.shapes.dataset import write_split
from maskclippp.engine import Trainer
from maskclippp.engine.sample_pictures import Picture, draw_predictions
from maskclippp.engine.wandb_writer import WandbWriter
from maskclippp.visualization import word_colors
from tests.engine.test_wandb_writer import read_log
from tests.engine.toy import toy_config
from tests.golden_cases import REPOSITORY


def train(folder: Path, pictures: int) -> EventAccumulator:
    """One iteration on the shapes world and an evaluation; what TensorBoard reads of it."""
    for split in ("train", "val"):
        write_split(split, 3, folder / "shapes_v1" / split)
    cfg = get_cfg()
    merge_config_file(cfg, REPOSITORY / "configs/shapes/linear_psm_superpixels.yaml")
    cfg.MODEL.DEVICE, cfg.OUTPUT_DIR = "cpu", str(folder)
    cfg.MODEL.MASKCLIPPP.TEMPLATES = "t1"
    cfg.SOLVER.MAX_ITER, cfg.SOLVER.IMS_PER_BATCH, cfg.DATALOADER.NUM_WORKERS = 1, 1, 0
    cfg.TEST.LOGGED_PICTURES = pictures
    Trainer(cfg).train()
    events = EventAccumulator(str(folder), size_guidance={"images": 0})
    events.Reload()
    return events


@pytest.mark.parametrize("pictures", [0, 2])
def test_tensorboard_shows_as_many_predictions_as_asked_for(
    pictures: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MASKCLIPPP_CACHE", str(tmp_path))
    events = train(tmp_path, pictures)
    names = [f"shapes_val/picture_{number}" for number in range(pictures)]
    assert events.Tags()["images"] == names
    assert [event.step for name in names for event in events.Images(name)] == [1] * pictures
    assert len(list(tmp_path.glob("*.pictures"))) == (pictures > 0)
    assert {"sem_seg/mIoU(S)", "sem_seg/mIoU(U)"} <= set(events.Tags()["scalars"])


class LeftHalf(torch.nn.Module):
    """Finds the second class on the left, and nothing on the right."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, records: list[dict[str, torch.Tensor]]) -> list[dict[str, object]]:
        assert not self.training
        height, width = records[0]["image"].shape[1:]
        ids = torch.zeros(height, width, dtype=torch.int32)
        ids[:, : width // 2] = 1
        if self.kind == "sem_seg_labels":
            return [{self.kind: ids.long()}]
        return [{"panoptic_seg": (ids, [{"id": 1, "category_id": 1}])}]


@pytest.mark.parametrize("kind", ["sem_seg_labels", "panoptic_seg"])
def test_pictures_have_the_colors_of_what_was_found(kind: str) -> None:
    model = LeftHalf(kind).train()
    record = {"image": torch.zeros(3, 600, 1200, dtype=torch.uint8)}
    (picture,) = draw_predictions(model, [record], ["wall", "cat, kitten"])
    assert model.training
    assert picture.width == 512
    _, cat = word_colors(["wall", "cat"])
    assert picture.getpixel((10, 10)) == pytest.approx([c / 2 for c in cat], abs=1)


def test_wandb_gets_the_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    image = Image.fromarray(np.full((8, 12, 3), 7, dtype=np.uint8))
    pictures = [Picture(3, "val/picture_0", image)]
    with EventStorage(3):
        writer = WandbWriter.from_config(toy_config(tmp_path), pictures)
        writer.write()
        writer.close()
    wandb.teardown()  # waits until the service has written its files
    assert not pictures
    (run,) = tmp_path.glob("wandb/offline-run-*")
    (file,) = run.glob("files/media/images/val/picture_0_*.png")
    assert np.array_equal(np.asarray(Image.open(file).convert("RGB")), np.asarray(image))
    (log,) = run.glob("*.wandb")
    steps = set()
    for message in read_log(log.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(message)
        keys = [item.key or item.nested_key[0] for item in record.history.item]
        if "val/picture_0" in keys:
            steps.add(record.history.step.num)
    assert steps == {3}
