"""Images in, rows out: what one process does with a batch."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias, TypedDict

import torch
from detectron2.config import CfgNode
from PIL import Image
from torch import Tensor

from maskclippp.errors import InputError, check_choice
from maskclippp.files.images import decode_image, read_image
from maskclippp.predictor import Predictor
from maskclippp.predictor.images import as_pillow
from maskclippp.predictor.models import build_model
from maskclippp.predictor.predictor import INSTANCE_THRESHOLD
from maskclippp.segmentation import TASKS, Segmentation, Task
from maskclippp.words.given import Words, given_words

Picture: TypeAlias = Image.Image | InputError  # an image that was read, or why it was not

# What does not change labels; the type of numbers has an entry of its own.
_IRRELEVANT = (
    *("OUTPUT_DIR", "MODEL.DEVICE", "MODEL.WEIGHTS", "MODEL.MASKCLIPPP.TEST.DTYPE"),
    *("MODEL.MASKCLIPPP.TEXT_CACHE", "MODEL.MASKCLIPPP.TEXT_CHUNK_SIZE"),
)
_LABELS = ("height", "width", "segments", "error")


class Row(TypedDict, total=False):
    """What was found in an image.

    ``segments`` are COCO results (:meth:`Segmentation.to_coco`). For an image that cannot be read,
    ``error`` says why, ``height`` and ``width`` are None, and there are no segments.
    """

    image: str
    height: int | None
    width: int | None
    segments: list[dict[str, Any]]
    error: str | None
    index_png: str | None


class Labeler:
    """Labels batches of images; a callable class as Ray Data's ``map_batches`` takes it.

    Args:
        classes: see :func:`maskclippp.words.given.given_words`.
        things: synonyms of the classes that have instances.
        model, weights, generator, device, dtype, revision: see
            :func:`maskclippp.predictor.models.build_model`.
        task: "semantic", "panoptic", "instance" or "masks": what the segments are.
        threshold: the least score of an instance.
        column: of the images in a batch.
        batch_size: images that are encoded together, if they are of the same size; default: that
            of :attr:`Predictor.batch_size`.

    Raises:
        InputError: unknown names, wrong words, or unusable files.
    """

    def __init__(
        self,
        classes: Words,
        things: Iterable[str] | None = None,
        *,
        model: str | Path = "default",
        weights: str | Path | None = None,
        generator: str | None = None,
        device: str | None = None,
        dtype: str = "auto",
        revision: str | None = None,
        task: Task = "semantic",
        threshold: float = INSTANCE_THRESHOLD,
        column: str = "image",
        batch_size: int | None = None,
    ) -> None:
        check_choice("task", task, TASKS)
        if not 0 <= threshold <= 1:
            raise InputError(f"threshold {threshold}: expected a score in 0..1")
        if batch_size is not None and batch_size < 1:
            raise InputError(f"batch_size {batch_size}: expected a positive number")
        if things is not None and not isinstance(things, str):
            things = list(things)  # they are read twice
        given_words(classes, things)  # wrong ones are told before a model is fetched
        self._cfg, built = build_model(model, weights, generator, device, dtype, revision)
        sizes = self._cfg.INPUT
        self.predictor = Predictor(
            built, min_size=sizes.MIN_SIZE_TEST, max_size=sizes.MAX_SIZE_TEST
        ).set_classes(classes, things)
        self.task = task
        self.threshold = threshold
        self.column = column
        self.batch_size = batch_size or self.predictor.batch_size

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Label a batch.

        Args:
            batch: column -> one value per image. Those of ``column`` are paths, contents of image
                files (bytes), or pixels as the :class:`Predictor` takes them. A column ``path``
                names such images in their segments (``image_id``).

        Returns:
            The other columns (and that of the images, if it has paths), with ``height``, ``width``,
            ``segments`` and ``error`` of each image; see :class:`Row`.
        """
        if self.column not in batch:
            raise InputError(
                f"expected a column {self.column!r} with images, found {sorted(batch)}: name it "
                "by column="
            )
        images = list(batch[self.column])
        are_paths = all(isinstance(image, str | Path) for image in images)
        names = map(str, images) if are_paths else batch.get("path", [""] * len(images))
        found = self.segment(map(read_picture, images))
        rows: list[dict[str, Any]] = [
            {**row_of(one, str(name))} for one, name in zip(found, names, strict=True)
        ]
        kept = {key: values for key, values in batch.items() if are_paths or key != self.column}
        labels = {key: [row[key] for row in rows] for key in _LABELS}
        return {**kept, **labels}

    def segment(self, pictures: Iterable[Picture]) -> list[Segmentation | InputError]:
        """The segmentations of images, with the errors of those that were not read, in order."""
        given = list(pictures)
        readable = [picture for picture in given if not isinstance(picture, InputError)]
        found = self.predictor.stream(
            readable, task=self.task, threshold=self.threshold, batch_size=self.batch_size
        )
        results = iter(list(found))
        return [picture if isinstance(picture, InputError) else next(results) for picture in given]

    def fingerprint(self) -> dict[str, str]:
        """What labels depend on: the type of numbers, and SHA-256 of config, words and weights."""
        model, words = self.predictor.model, self.predictor.words
        things = sorted(words.thing_classes)
        tensors = {**model.state_dict(), **_prefixed(model.mask_generator.state_dict())}
        return {
            "dtype": self._cfg.MODEL.MASKCLIPPP.TEST.DTYPE,
            "config": _sha256_of_text(_relevant(self._cfg).dump()),
            "words": _sha256_of_text(json.dumps([words.vocabulary.classes, things])),
            "weights": _sha256_of_tensors(tensors),
        }


def read_picture(image: Any) -> Picture:
    """A path, the content of a file, or pixels -> the image, or why it cannot be read."""
    try:
        if isinstance(image, bytes):
            return decode_image(image, "in memory", reduce_depth=True)
        if isinstance(image, str | Path):
            return read_image(Path(image).expanduser(), reduce_depth=True)
        return as_pillow(image)
    except InputError as error:
        return error


def row_of(found: Segmentation | InputError, name: str) -> Row:
    """The row of an image of that name."""
    row: Row = {"image": name, "height": None, "width": None, "segments": [], "error": None}
    if isinstance(found, InputError):
        row["error"] = found.sentence
    else:
        row["height"], row["width"] = found.orig_shape
        row["segments"] = found.to_coco(name)
    return row


def _relevant(cfg: CfgNode) -> CfgNode:
    cfg = cfg.clone()
    cfg.defrost()
    for key in _IRRELEVANT:
        *nodes, last = key.split(".")
        node = cfg
        for name in nodes:
            node = node[name]
        del node[last]
    return cfg


def _prefixed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"generator.{name}": tensor for name, tensor in tensors.items()}


def _sha256_of_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _sha256_of_tensors(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
