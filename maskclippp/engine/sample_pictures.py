"""Pictures of predictions, for TensorBoard and W&B."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from detectron2.utils.events import EventWriter
from PIL import Image
from torch import nn

from maskclippp.records import Record

_LARGEST_SIDE = 512
NOTHING = -1  # the class of pixels that no segment has


@dataclass(frozen=True)
class Picture:
    """One picture of a test image and what the model finds in it, after so many iterations."""

    iteration: int
    name: str
    image: Image.Image


def draw_predictions(
    model: nn.Module, records: Iterable[Record], class_names: Sequence[str]
) -> list[Image.Image]:
    """Test images with the segments that the model finds, as small pictures.

    Results without a label per pixel (instances, classes of given masks) are not drawn.
    """
    was_training = model.training
    model.eval()
    drawn = []
    with torch.no_grad():
        for record in records:
            labels = _labels(model([record])[0])
            if labels is not None:
                drawn.append(_draw(record["image"], labels, class_names))
    model.train(was_training)
    return drawn


def _labels(result: Any) -> npt.NDArray[np.int64] | None:
    """The class of every pixel [H, W]."""
    if "panoptic_seg" in result:
        ids, segments = result["panoptic_seg"]
        table = torch.full((int(ids.max()) + 1,), NOTHING)
        for segment in segments:
            table[segment["id"]] = segment["category_id"]
        return table[ids.cpu().long()].numpy()
    if "sem_seg_labels" in result:
        return result["sem_seg_labels"].cpu().long().numpy()
    if "sem_seg" in result:
        return result["sem_seg"].argmax(dim=0).cpu().numpy()
    return None


def _draw(image: torch.Tensor, labels: Any, class_names: Sequence[str]) -> Image.Image:
    from maskclippp.visualization import draw_labels  # few trainings ask for pictures

    scale = min(1.0, _LARGEST_SIDE / max(labels.shape))
    height, width = (max(1, round(side * scale)) for side in labels.shape)
    pixels = Image.fromarray(image.permute(1, 2, 0).cpu().contiguous().numpy())
    small = np.asarray(pixels.resize((width, height), Image.Resampling.BILINEAR))
    small_labels = Image.fromarray(labels.astype(np.int32)).resize(
        (width, height), Image.Resampling.NEAREST
    )
    return draw_labels(small, np.asarray(small_labels), class_names, legend=True)


class TensorBoardPictures(EventWriter):
    """Writes pictures into an event file of its own beside that of the scalars.

    Args:
        folder: of the event files.
        pictures: are taken from this list when they are written.
    """

    def __init__(self, folder: str, pictures: list[Picture]) -> None:
        from torch.utils.tensorboard import SummaryWriter  # takes a second

        self._pictures = pictures
        self._writer = SummaryWriter(folder, filename_suffix=".pictures")

    def write(self) -> None:
        """Write the pictures that are new."""
        for picture in self._pictures:
            pixels = np.asarray(picture.image)
            self._writer.add_image(picture.name, pixels, picture.iteration, dataformats="HWC")
        self._pictures.clear()

    def close(self) -> None:
        """Finish the file."""
        self._writer.close()
