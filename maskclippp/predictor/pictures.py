"""Images on their way through the predictor, and the time that they take."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from maskclippp.meta_arch import EncodedMasks
from maskclippp.records import Record


@dataclass
class Picture:
    """An image on its way: its pixels, its record, and the time that it took, in ms per stage."""

    pixels: npt.NDArray[np.uint8]
    record: Record
    path: Path | None = None
    speed: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class EncodedPicture:
    """An image with its encoded masks, for :meth:`Predictor.classify`."""

    picture: Picture
    masks: EncodedMasks


class Timed:
    """Adds the time of a block to the pictures that share it."""

    def __init__(self, pictures: Sequence[Picture], stage: str, device: torch.device) -> None:
        self._pictures, self._stage, self._device = pictures, stage, device

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, *_: Any) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        share = 1000 * (time.perf_counter() - self._start) / len(self._pictures)
        for picture in self._pictures:
            picture.speed[self._stage] = share
