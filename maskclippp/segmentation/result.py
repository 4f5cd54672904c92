"""The result for people: what was found in an image, to look at, to save and to hand on.

Everything is computed when it is first asked for, from the classified masks, by the same functions
as in evaluation (:mod:`maskclippp.inference.postprocess`). H and W are the size of the image,
K is the number of requested classes.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from maskclippp.errors import InputError, MissingPackageError, check_choice
from maskclippp.inference.postprocess import (
    ClassifiedMasks,
    mask_boxes,
    panoptic_segments,
    semantic_labels,
)
from maskclippp.inference.settings import InferenceSettings
from maskclippp.masks.run_length import encode_mask
from maskclippp.masks.soft_masks import SoftMasks
from maskclippp.segmentation.regions import (
    VOID,
    Regions,
    instance_regions,
    mask_regions,
    panoptic_regions,
    semantic_regions,
)
from maskclippp.visualization import draw_regions, word_colors
from maskclippp.words.requested import RequestedWords

Task = Literal["semantic", "panoptic", "instance", "masks"]
TASKS: tuple[Task, ...] = ("semantic", "panoptic", "instance", "masks")
TOP_K = 5

UInt8Array = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Segment:
    """One segment of an image.

    Attributes:
        id: its number, from 1; in panoptic segmentation its value in ``Segmentation.panoptic``.
        label_id: class, 0..K-1.
        label: the first synonym of the class.
        score: probability of the class, in [0, 1].
        is_thing: the class has instances.
        area: pixels.
        bbox_xyxy: box in pixels; x2 and y2 are exclusive.
        top_k: the most probable classes of its mask, as pairs (label, probability), best first.
    """

    id: int
    label_id: int
    label: str
    score: float
    is_thing: bool
    area: int
    bbox_xyxy: tuple[float, float, float, float]
    top_k: tuple[tuple[str, float], ...]


class Segmentation:
    """What was found in an image.

    ``segments``, ``masks``, ``scores``, ``class_ids``, ``boxes`` and ``embeddings`` have one entry
    per segment of the task: semantic: one per class that occurs; panoptic: one per segment;
    instance: one per object, best first; masks: one per mask, in order. ``result[0]`` is a
    segment, ``result["dog"]`` lists the segments of a class.

    Attributes:
        image: uint8 [H, W, 3], RGB.
        task: "semantic", "panoptic", "instance" or "masks".
        names: the K classes, synonyms separated by commas.
        path: the file of the image; None for an image from memory.
        speed: milliseconds per stage.

    Args:
        found: the classified masks of the image.
        words: the classes.
        settings: thresholds of panoptic and instance segmentation.
        mask_embeddings: [Q, D], of all masks.
        threshold: the least score of an instance.
    """

    def __init__(
        self,
        image: UInt8Array,
        found: ClassifiedMasks,
        words: RequestedWords,
        task: Task = "semantic",
        *,
        settings: InferenceSettings | None = None,
        mask_embeddings: Tensor | None = None,
        threshold: float = 0.0,
        path: Path | None = None,
        speed: Mapping[str, float] | None = None,
    ) -> None:
        check_choice("task", task, TASKS)
        if not 0 <= threshold <= 1:
            raise InputError(f"threshold: expected a probability in 0..1, found {threshold}")
        self.image = image
        self.task = task
        self.names = words.vocabulary.names
        self.path = path
        self.speed = dict(speed or {})
        self._found = found
        self._words = words
        self._settings = replace(settings or InferenceSettings(), instance_box_on=False)
        self._mask_embeddings = mask_embeddings
        self._threshold = threshold

    def with_task(self, task: Task) -> "Segmentation":
        """The same image and masks, with the segments of another task."""
        return Segmentation(
            self.image,
            self._found,
            self._words,
            task,
            settings=self._settings,
            mask_embeddings=self._mask_embeddings,
            threshold=self._threshold,
            path=self.path,
            speed=self.speed,
        )

    def compute(self) -> None:
        """Compute the segments of the task now."""
        _ = self._regions

    @property
    def orig_shape(self) -> tuple[int, int]:
        """H and W."""
        return self.image.shape[0], self.image.shape[1]

    @cached_property
    def labels(self) -> IntArray:
        """int64 [H, W]: the most probable class of every pixel; -1 where there is no mask."""
        size, masks = self.orig_shape, self._found.masks
        if len(masks) == 0:
            return np.full(size, VOID, dtype=np.int64)
        labels = semantic_labels(self._found, size)
        covered = SoftMasks(masks.values.amax(dim=0, keepdim=True).float(), masks.frame)
        labels[covered.resized(size)[0] == 0] = VOID
        return labels.cpu().numpy()

    @cached_property
    def panoptic(self) -> npt.NDArray[np.int32]:
        """int32 [H, W]: the id of the panoptic segment of every pixel, 0 for none."""
        ids: npt.NDArray[np.int32] = self._panoptic[0].cpu().numpy()
        return ids

    @cached_property
    def segments(self) -> list[Segment]:
        """The segments of the task."""
        regions = self._regions
        top = self._found.probabilities.topk(min(TOP_K, len(self.names)), dim=1)
        boxes = self.boxes.tolist()
        first = [self.label(index) for index in range(len(self.names))]
        segments = []
        for number, (label, score, mask) in enumerate(
            zip(
                regions.classes.tolist(),
                regions.scores.tolist(),
                regions.mask_index.tolist(),
                strict=True,
            )
        ):
            values, indices = top.values[mask].tolist(), top.indices[mask].tolist()
            segments.append(
                Segment(
                    id=number + 1,
                    label_id=label,
                    label=first[label],
                    score=score,
                    is_thing=self.is_thing(label),
                    area=int(self.masks[number].sum()),
                    bbox_xyxy=tuple(boxes[number]),
                    top_k=tuple(zip((first[index] for index in indices), values, strict=True)),
                )
            )
        return segments

    @cached_property
    def masks(self) -> BoolArray:
        """Bool [N, H, W]."""
        masks: BoolArray = self._regions.masks.cpu().numpy()
        return masks

    @property
    def scores(self) -> FloatArray:
        """float32 [N], in [0, 1]."""
        scores: FloatArray = self._regions.scores.cpu().numpy()
        return scores

    @property
    def class_ids(self) -> IntArray:
        """int64 [N], 0..K-1."""
        classes: IntArray = self._regions.classes.cpu().numpy()
        return classes

    @cached_property
    def boxes(self) -> FloatArray:
        """float32 [N, 4]: x1, y1, x2, y2 in pixels; x2 and y2 are exclusive."""
        boxes: FloatArray = mask_boxes(self._regions.masks).cpu().numpy()
        return boxes

    @property
    def embeddings(self) -> FloatArray | None:
        """float32 [N, D], of length 1: CLIP's embeddings of the masks; None if they are unknown."""
        if self._mask_embeddings is None:
            return None
        chosen = self._mask_embeddings[self._regions.mask_index].float()
        embeddings: FloatArray = torch.nn.functional.normalize(chosen, dim=-1).cpu().numpy()
        return embeddings

    def label(self, class_id: int) -> str:
        """The first synonym of a class."""
        return self._words.vocabulary.classes[class_id][0]

    def is_thing(self, class_id: int) -> bool:
        """Whether a class has instances."""
        return class_id in self._words.thing_classes

    def __len__(self) -> int:
        return len(self._regions.classes)

    def __iter__(self) -> Iterator[Segment]:
        return iter(self.segments)

    def __getitem__(self, which: int | slice | str) -> Any:
        """The segment of a number, the segments of a slice, or those of a class by any synonym."""
        if not isinstance(which, str):
            return self.segments[which]
        classes = self._words.vocabulary.classes
        labels = [index for index, synonyms in enumerate(classes) if which in synonyms]
        if not labels and which not in self.names:
            raise InputError(f"{which!r} is not among the words {list(self.names)[:20]}")
        labels = labels or [self.names.index(which)]
        return [segment for segment in self.segments if segment.label_id in labels]

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.summary()}>"

    def summary(self) -> str:
        """One line: the file, its size, and what was found."""
        height, width = self.orig_shape
        counts: dict[str, int] = {}
        for segment in self.segments:
            counts[segment.label] = counts.get(segment.label, 0) + 1
        listed = ", ".join(
            f"{count} {name}" if count > 1 else name for name, count in counts.items()
        )
        name = f"{self.path.name} " if self.path else ""
        return f"{name}{height} x {width}, {self.task}: {listed or 'nothing'}"

    def plot(
        self, *, opacity: float = 0.5, outlines: bool = True, legend: bool = True, scale: int = 1
    ) -> Image.Image:
        """The image with its segments in color; pixels without one are hatched."""
        regions = np.zeros(self.orig_shape, dtype=np.int64)
        for number in reversed(range(len(self))):  # the best instance lies on top
            regions[self.masks[number]] = number + 1
        colors = word_colors(self.names)
        return draw_regions(
            self.image,
            regions,
            {segment.id: segment.label for segment in self.segments},
            {segment.id: colors[segment.label_id] for segment in self.segments},
            # Objects do not fill the image.
            hatched=None
            if self.task in ("semantic", "panoptic")
            else np.zeros(self.orig_shape, dtype=bool),
            scale=scale,
            opacity=opacity,
            outlines=outlines,
            legend=legend,
        )

    def show(self) -> None:
        """Open the picture in the image viewer of the desktop."""
        self.plot().show()

    def save(self, path: str | Path) -> Path:
        """Write the result; the end of the name says what. See :mod:`.saving`."""
        from maskclippp.segmentation.saving import save

        return save(self, Path(path))

    def to_coco(self, image_id: int | str = 0) -> list[dict[str, Any]]:
        """One COCO result per segment: run-length code, box x, y, width, height, area, score."""
        results = []
        for segment, mask in zip(self.segments, self.masks, strict=True):
            x1, y1, x2, y2 = segment.bbox_xyxy
            results.append(
                {
                    "image_id": image_id,
                    "category_id": segment.label_id,
                    "category_name": segment.label,
                    "segmentation": encode_mask(mask),
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": segment.area,
                    "score": segment.score,
                }
            )
        return results

    def to_hf(self) -> dict[str, Any]:
        """As transformers' ``post_process_panoptic_segmentation`` returns it.

        ``segmentation`` is a tensor [H, W] of segment ids, -1 for none.
        """
        ids = torch.full(self.orig_shape, VOID, dtype=torch.int32)
        for number in reversed(range(len(self))):
            ids[torch.from_numpy(self.masks[number])] = number + 1
        infos = [
            {"id": s.id, "label_id": s.label_id, "was_fused": not s.is_thing, "score": s.score}
            for s in self.segments
        ]
        return {"segmentation": ids, "segments_info": infos}

    def to_supervision(self) -> Any:
        """A ``supervision.Detections``."""
        supervision = _import("supervision", "to_supervision")
        return supervision.Detections(
            xyxy=self.boxes,
            mask=self.masks,
            confidence=self.scores,
            class_id=self.class_ids,
            data={"class_name": np.array([segment.label for segment in self.segments])},
        )

    def to_annotated_image(self) -> tuple[UInt8Array, list[tuple[BoolArray, str]]]:
        """What gradio's ``AnnotatedImage`` shows: the image, and pairs of mask and label."""
        return self.image, [(self.masks[s.id - 1], s.label) for s in self.segments]

    def to_df(self) -> Any:
        """A ``pandas.DataFrame`` with one row per segment."""
        pandas = _import("pandas", "to_df")
        return pandas.DataFrame([asdict(segment) for segment in self.segments])

    @cached_property
    def _panoptic(self) -> tuple[Tensor, list[Any], Tensor]:
        return panoptic_segments(
            self._found, self.orig_shape, self._words.thing_classes, self._settings
        )

    @cached_property
    def _regions(self) -> Regions:
        found, size = self._found, self.orig_shape
        if self.task == "semantic":
            return semantic_regions(found, torch.from_numpy(self.labels))
        if self.task == "panoptic":
            return panoptic_regions(found, *self._panoptic)
        if self.task == "instance":
            things = self._words.thing_classes
            return instance_regions(found, size, things, self._settings, self._threshold)
        return mask_regions(found, size)


def _import(package: str, purpose: str) -> Any:
    import importlib

    try:
        return importlib.import_module(package)
    except ImportError as error:
        # Perhaps one that the package itself needs.
        missing = (error.name or package).partition(".")[0]
        raise MissingPackageError(
            f"{purpose} needs the package {missing}: pip install {package}"
        ) from error
