"""Instance annotation of a record: polygons, run-length codes or arrays, as masks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from pycocotools import mask as mask_codec
from torch import Tensor
from torchvision import tv_tensors

from maskclippp.data.mappers.transforms import Vertices
from maskclippp.errors import InputError

Point = list[float]  # x, y

_POINTS_OF_POLYGON = 3


@dataclass(frozen=True)
class InstanceAnnotations:
    """The objects of an image that are no crowd, in the record's order.

    Polygons are drawn only after the geometry has moved them, so that their outlines stay sharp.

    Attributes:
        classes: int64 [n].
        polygons: per object the number of vertices of each of its polygons; None: it has a mask.
        vertices: of all polygons, one after the other.
        masks: uint8 [m, h, w] of the objects without polygons.
    """

    classes: Tensor
    polygons: tuple[tuple[int, ...] | None, ...]
    vertices: Vertices
    masks: tv_tensors.Mask

    @classmethod
    def of_record(cls, record: Mapping[str, Any], height: int, width: int) -> "InstanceAnnotations":
        """The objects in a record's ``annotations``; ``height`` and ``width`` of its image.

        Raises:
            ValueError: the record has no ``annotations``; or a segmentation is missing, of another
                size than the image, or of no known form; names image and annotation.
        """
        if "annotations" not in record:
            raise InputError(
                f"the record of {record['file_name']} has no instance annotations, which "
                "INPUT.DATASET_MAPPER_NAME asks for: choose an instance dataset, or a mapper for "
                "panoptic or semantic annotation"
            )
        objects = [a for a in record["annotations"] if not a.get("iscrowd", 0)]
        polygons: list[tuple[int, ...] | None] = []
        points: list[float] = []
        masks = []
        for number, annotation in enumerate(objects):
            place = f"{record['file_name']}: object {number} (annotation {annotation.get('id')})"
            segmentation = annotation.get("segmentation")
            if isinstance(segmentation, list):
                rings = _check_polygons(segmentation, place)
                polygons.append(tuple(len(ring) // 2 for ring in rings))
                points.extend(chain.from_iterable(rings))
            else:
                polygons.append(None)
                masks.append(_decode(segmentation, (height, width), place))
        stacked = np.stack(masks) if masks else np.zeros((0, height, width), dtype=np.uint8)
        return cls(
            classes=torch.tensor([a["category_id"] for a in objects], dtype=torch.int64),
            polygons=tuple(polygons),
            vertices=Vertices.of(torch.tensor(points, dtype=torch.float64)),
            masks=tv_tensors.Mask(torch.from_numpy(stacked)),
        )

    def draw(self, vertices: Tensor, masks: Tensor, size: Sequence[int]) -> Tensor:
        """bool [n, *size]: every object's mask, from what the geometry made of the two tensors."""
        height, width = size
        drawn = torch.zeros((len(self.polygons), height, width), dtype=torch.bool)
        remaining_masks = iter(masks.as_subclass(Tensor))
        start = 0
        for index, lengths in enumerate(self.polygons):
            if lengths is None:
                drawn[index] = next(remaining_masks) != 0
                continue
            rings = []
            for length in lengths:
                rings.append(vertices[start : start + length].tolist())
                start += length
            drawn[index] = torch.from_numpy(_fill(rings, height, width))
        return drawn


def _fill(rings: list[list[Point]], height: int, width: int) -> npt.NDArray[np.bool_]:
    """bool [height, width]: the union of polygons."""
    # The published training cuts polygons at the crop, which decides single pixels at its border.
    inside = [_clip(ring, height, width) for ring in rings]
    flat = [list(chain.from_iterable(ring)) for ring in inside if len(ring) >= _POINTS_OF_POLYGON]
    if not flat:
        return np.zeros((height, width), dtype=np.bool_)
    code = mask_codec.merge(mask_codec.frPyObjects(flat, height, width))
    return np.asarray(mask_codec.decode(code), dtype=np.bool_)


def _clip(ring: list[Point], height: int, width: int) -> list[Point]:
    """The part of a polygon within the image: cut side by side (Sutherland and Hodgman, 1974)."""
    for axis, limit, sign in ((0, 0, 1), (0, width, -1), (1, 0, 1), (1, height, -1)):
        kept: list[Point] = []
        for first, second in zip(ring, [*ring[1:], *ring[:1]], strict=True):
            # Signed distances from the side; positive: within.
            near, far = (sign * (point[axis] - limit) for point in (first, second))
            if near >= 0:
                kept.append(first)
            if (near > 0 > far) or (near < 0 < far):
                share = near / (near - far)
                kept.append([a + share * (b - a) for a, b in zip(first, second, strict=True)])
        ring = kept
    return ring


def _check_polygons(rings: list[Any], place: str) -> list[Any]:
    valid = [len(ring) >= 2 * _POINTS_OF_POLYGON and len(ring) % 2 == 0 for ring in rings]
    if not rings or not all(valid):
        raise InputError(
            f"{place}: expected polygons [x1, y1, x2, y2, ...] of at least "
            f"{_POINTS_OF_POLYGON} points, found lists of {[len(ring) for ring in rings]} numbers"
        )
    return rings


def _decode(segmentation: Any, size: tuple[int, int], place: str) -> npt.NDArray[np.uint8]:
    """uint8 [h, w] of a run-length code, compressed or not, or of an array."""
    if isinstance(segmentation, dict):
        if isinstance(segmentation.get("counts"), list):
            segmentation = mask_codec.frPyObjects(segmentation, *segmentation["size"])
        mask = mask_codec.decode(segmentation)
    elif isinstance(segmentation, np.ndarray) and segmentation.ndim == 2:
        mask = (segmentation != 0).astype(np.uint8)
    else:
        raise InputError(
            f"{place}: expected a segmentation of polygons, a run-length code or an array [h, w], "
            f"found {type(segmentation).__name__}"
        )
    if mask.shape != size:
        raise InputError(
            f"{place}: its mask is {mask.shape[0]} x {mask.shape[1]}, the image {size[0]} x "
            f"{size[1]} (height x width)"
        )
    return np.ascontiguousarray(mask)
