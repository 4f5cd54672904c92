"""Training targets from instance annotation: masks of polygons and run-length codes."""

from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from maskclippp.data.mappers.augmentation import Augmented
from maskclippp.data.mappers.targets import Size
from maskclippp.data.mappers.transforms import Segments, Vertices
from maskclippp.errors import InputError
from maskclippp.masks import run_length
from maskclippp.records import Record

Point = list[float]  # x, y

_POINTS_OF_POLYGON = 3


@dataclass(frozen=True)
class ObjectTarget:
    """A mask per object that is not a crowd, in the order of the annotation.

    Polygons are drawn after augmentation, so that their outlines stay sharp.

    Args:
        drop_empty: leave out objects that the crop removes completely.
    """

    objects_key: ClassVar[str | None] = "annotations"
    drop_empty: bool

    def __call__(self, record: Record, size: Size) -> "_Objects":
        """Read the record's ``annotations``.

        Raises:
            InputError: the record has no ``annotations``; or a segmentation is missing, differs in
                size from the image, or has an unknown format; names image and annotation.
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
                masks.append(_decode(segmentation, size, place))
        stacked = np.stack(masks) if masks else np.zeros((0, *size), dtype=np.uint8)
        vertices = Vertices.of(torch.tensor(points, dtype=torch.float64))
        return _Objects(
            size=size,
            parts=(vertices, torch.from_numpy(stacked).as_subclass(Segments)),
            classes=torch.tensor([a["category_id"] for a in objects], dtype=torch.int64),
            polygons=tuple(polygons),
            drop_empty=self.drop_empty,
        )


@dataclass(frozen=True)
class _Objects:
    """``parts`` are the vertices of all polygons, and the masks uint8 [m, h, w] of other objects.

    ``polygons`` gives the vertex counts of each object's polygons, or None for an object with a
    mask.
    """

    size: Size
    parts: tuple[Vertices, Segments]
    classes: Tensor
    polygons: tuple[tuple[int, ...] | None, ...]
    drop_empty: bool

    def instances(self, augmented: Augmented) -> tuple[Tensor, Tensor]:
        masks = self._draw(augmented)
        # Outlines may slightly exceed the image; nothing may be drawn on the padding.
        height, width = augmented.content
        masks[:, height:] = False
        masks[:, :, width:] = False
        if not self.drop_empty:
            return self.classes, masks
        visible = masks.flatten(1).any(dim=1)
        return self.classes[visible], masks[visible]

    def _draw(self, augmented: Augmented) -> Tensor:
        """Masks of all objects, bool [n, h, w]."""
        points, masks = iter(augmented.parts[0].tolist()), iter(augmented.parts[1])
        height, width = augmented.image.shape[1:]
        drawn = torch.zeros((len(self.polygons), height, width), dtype=torch.bool)
        for index, lengths in enumerate(self.polygons):
            if lengths is None:
                drawn[index] = next(masks) != 0
                continue
            rings = [list(islice(points, length)) for length in lengths]
            filled = torch.from_numpy(_fill(rings, *augmented.canvas))[:height, :width]
            drawn[index, : filled.shape[0], : filled.shape[1]] = filled
        return drawn


def _fill(rings: list[list[Point]], height: int, width: int) -> npt.NDArray[np.bool_]:
    """The union of polygons, bool [height, width]."""
    # The published training clips polygons to the crop, which affects single pixels at its border.
    inside = [_clip(ring, height, width) for ring in rings]
    flat = [list(chain.from_iterable(ring)) for ring in inside if len(ring) >= _POINTS_OF_POLYGON]
    return run_length.fill_polygons(flat, (height, width))


def _clip(ring: list[Point], height: int, width: int) -> list[Point]:
    """A polygon clipped to the image, one side at a time (Sutherland and Hodgman, 1974)."""
    for axis, limit, sign in ((0, 0, 1), (0, width, -1), (1, 0, 1), (1, height, -1)):
        kept: list[Point] = []
        for first, second in zip(ring, [*ring[1:], *ring[:1]], strict=True):
            # Signed distances from the side; positive: inside.
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


def _decode(segmentation: Any, size: Size, place: str) -> npt.NDArray[np.uint8]:
    """The mask, uint8 [h, w], of a run-length code (compressed or not) or an array [h, w]."""
    if isinstance(segmentation, dict):
        mask = run_length.decode(segmentation)
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
