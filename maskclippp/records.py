"""The two main roads: the record of an image, and the result for an image.

A :class:`Record` starts as one entry of a dataset, gains an image from a mapper, and is what the
model and the evaluators take. An :class:`ImageResult` is what the model returns for it.
H and W are the size of the image file, h and w those of the image after the mapper.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import torch
from detectron2.structures import Instances
from torch import Tensor

from maskclippp.errors import InputError


class Segment(TypedDict, total=False):
    """One segment of a panoptic annotation. Datasets set the first three keys."""

    id: int  # its value in the panoptic map
    category_id: int  # contiguous class, 0..K-1; result files: the dataset's own id
    isthing: bool
    iscrowd: int  # 1: a group that is neither trained on nor counted as missed
    area: int  # pixels
    bbox: list[float]  # x, y, width, height in pixels


class ObjectAnnotation(TypedDict, total=False):
    """One object of an instance annotation."""

    category_id: int  # contiguous class, 0..K-1
    segmentation: Any  # polygons [[x1, y1, x2, y2, ...], ...], or a run-length code
    bbox: list[float]  # x, y, width, height in pixels
    bbox_mode: int  # detectron2's BoxMode
    iscrowd: int  # 1: a group of objects


class Record(TypedDict, total=False):
    """An image on its way through training or evaluation; every key is optional."""

    # Of the dataset. Paths are absolute, or relative to the working directory.
    file_name: str
    image_id: int | str
    height: int  # H; of results as well
    width: int  # W
    sem_seg_file_name: str  # label map; the file may be missing if the panoptic files exist
    sem_seg_values: tuple[tuple[int, ...], int]  # pixel value of each class, and the ignored one
    pan_seg_file_name: str  # panoptic map: R + 256 G + 65536 B is the segment id
    segments_info: list[Segment]
    annotations: list[ObjectAnnotation]
    neg_category_ids: list[int]  # LVIS: classes verified as absent
    not_exhaustive_category_ids: list[int]  # LVIS: classes that are not annotated exhaustively

    # Of both mappers.
    image: Tensor  # uint8 [3, h, w], RGB

    # Of the train mapper.
    instances: Instances  # gt_classes int64 [n], gt_masks bool [n, h, w]

    # Of the evaluation mapper, with INPUT.RESIZE_ON_DEVICE.
    resize_to: tuple[int, int]  # h and w that the model resizes the image to

    # Of the evaluation mapper, for generators of ground-truth masks.
    sem_seg: Tensor  # int64 [H, W], contiguous classes or ignore_label
    ignore_label: int
    pan_seg: Tensor  # int64 [H, W], segment ids


class ImageResult(TypedDict, total=False):
    """What the model returns for an image in evaluation; the config selects the keys."""

    sem_seg_labels: Tensor  # int64 [H, W], test classes
    sem_seg: Tensor  # float [K, H, W], scores of the test classes
    panoptic_seg: tuple[Tensor, list[Segment]]  # int32 [H, W] segment ids, and the segments
    instances: Instances  # pred_masks bool [n, H, W], pred_boxes, pred_classes int64 [n], scores
    mask_cls: Tensor  # int64 [Q], class of each mask of the generator: mask accuracy
    pred_masks: Tensor  # bool [Q, H, W]: the generator's masks alone
    category_overlapping_mask: Tensor  # bool [K], test classes that training has seen


def output_size(record: Record) -> tuple[int, int]:
    """Height and width of the results of a record: by default those of its image."""
    height, width = record["image"].shape[-2:]
    return record.get("height", height), record.get("width", width)


_IMAGE = "an RGB image as a tensor of shape [3, height, width] and type uint8, values 0..255"


def check_images(records: Sequence[Record]) -> None:
    """Check what a caller of the model gives as images.

    Raises:
        InputError: names the record, and the form of an image that is expected and found.
    """
    if not isinstance(records, Sequence) or not all(isinstance(r, Mapping) for r in records):
        raise InputError(
            "the model takes a list with a dictionary per image, such as [{'image': image}] with "
            f"{_IMAGE}; found {_kind(records)}"
        )
    for index, record in enumerate(records):
        found = _image_problem(record.get("image"))
        if found:
            raise InputError(f"image of record {index}: expected {_IMAGE}; found {found}")
        for key in ("height", "width"):
            size = record.get(key, 1)
            if not isinstance(size, int) or isinstance(size, bool) or size < 1:
                raise InputError(
                    f"{key} of record {index}: expected a positive number of pixels, found {size!r}"
                )


def _image_problem(image: Any) -> str:
    """What is wrong with an image, with the remedy; empty: nothing."""
    if isinstance(image, str | bytes) or hasattr(image, "__fspath__"):
        return f"the path {image!r}: read the file first"
    if not isinstance(image, Tensor):
        remedy = ": torch.from_numpy makes a tensor of it" if hasattr(image, "dtype") else ""
        return _kind(image) + remedy
    shape = tuple(image.shape)
    if image.ndim == 4:
        return f"shape {list(shape)}: give each image of a batch its own dictionary"
    if image.ndim != 3 or shape[0] != 3 or 0 in shape:
        found = f"shape {list(shape)}"
        if image.ndim == 3 and shape[-1] in (3, 4):
            return f"{found}: image.permute(2, 0, 1)[:3] puts the colors first"
        if image.ndim == 2 or (image.ndim == 3 and shape[0] == 1):
            return f"{found}: image.expand(3, -1, -1) makes a gray image RGB"
        return f"{found}: image[:3] drops opacity" if image.ndim == 3 and shape[0] == 4 else found
    if image.dtype == torch.uint8:
        return ""
    if not image.is_floating_point():
        return f"type {image.dtype}: convert it with image.to(torch.uint8)"
    # As in detectron2's demos, floats are accepted if they are 0..255.
    low, high = (float(value) for value in image.detach().aminmax())
    if 0 < high <= 1 and low >= 0:
        return f"values {low:.3g}..{high:.3g}: (255 * image).to(torch.uint8) converts them"
    return "" if low >= 0 and high <= 255 else f"values {low:.3g}..{high:.3g}"


def _kind(value: Any) -> str:
    if value is None:
        return "nothing"
    shape = getattr(value, "shape", None)
    size = f" of shape {list(shape)}" if shape is not None else ""
    return f"{type(value).__module__}.{type(value).__qualname__}{size}".removeprefix("builtins.")
