"""Instance ground truth in COCO's form: a JSON, or the things of a panoptic annotation."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Protocol

from detectron2.utils import comm

from maskclippp.errors import InputError
from maskclippp.evaluation.ground_truth import GroundTruth
from maskclippp.files.images import read_json
from maskclippp.masks import run_length

SWITCH = "MODEL.MASK_FORMER.TEST.INSTANCE_ON"
_IMAGE_KEYS = ("id", "height", "width")


class InstanceTruth(Protocol):
    """What the instance evaluators ask for."""

    @property
    def source(self) -> str:
        """The file that errors name."""

    def check(self) -> None:
        """Raise what is wrong with the annotation, before the model runs."""

    def add(self, image: Mapping[str, Any]) -> tuple[int, int]:
        """Take in an image that was predicted; its (height, width)."""

    def gather(self) -> dict[str, Any] | None:
        """``images``, ``annotations``, ``categories`` on the main process. All must call it."""

    def clear(self) -> None:
        """Forget the images taken in."""


class JsonInstances:
    """The dataset's instance JSON; every image of it counts, predicted or not.

    Args:
        annotation_keys: what every annotation needs beside its image and category.
        image_keys: what every image needs beside id and size.
        category_keys: what every category needs beside id and name.
    """

    def __init__(
        self,
        truth: GroundTruth,
        annotation_keys: Sequence[str],
        image_keys: Sequence[str] = (),
        category_keys: Sequence[str] = (),
    ) -> None:
        self._truth = truth
        self._required_keys = {
            "images": (*_IMAGE_KEYS, *image_keys),
            "annotations": ("image_id", "category_id", *annotation_keys),
            "categories": ("id", "name", *category_keys),
        }

    @property
    def source(self) -> str:
        """The JSON file; a ValueError if the dataset has none."""
        return self._truth.annotation_file("json_file", SWITCH)

    def check(self) -> None:
        """Read the file; its categories must be the dataset's things."""
        mapping = self._truth.metadata.thing_dataset_id_to_contiguous_id
        categories = self._content["categories"]
        absent = [c["name"] for c in categories if c["id"] not in mapping]
        if absent or len(categories) != len(mapping):
            raise InputError(
                f"{self.source} has {len(categories)} categories, dataset "
                f"{self._truth.dataset_name} {len(mapping)} things"
                + (f"; not registered: {', '.join(absent[:5])}" if absent else "")
            )

    def add(self, image: Mapping[str, Any]) -> tuple[int, int]:
        """The image's size; a ValueError if the annotation does not know it."""
        size = self._sizes.get(image.get("image_id"))
        if size is None:
            raise InputError(
                f"image {image['file_name']} has image_id {image.get('image_id')!r}, which is no "
                f"image of {self.source}: records and annotation belong to different datasets"
            )
        return size

    def gather(self) -> dict[str, Any] | None:
        """The whole file."""
        return self._content if comm.is_main_process() else None

    def clear(self) -> None:
        """The file stays."""

    @cached_property
    def _content(self) -> dict[str, Any]:
        content = read_json(
            self.source,
            self._required_keys,
            f"the instance annotation of dataset {self._truth.dataset_name}, because {SWITCH} is "
            "set",
        )
        return numbered(content)

    @cached_property
    def _sizes(self) -> dict[Any, tuple[int, int]]:
        return {i["id"]: (i["height"], i["width"]) for i in self._content["images"]}


class PanopticThings:
    """The things of the panoptic annotation, read image by image as they are predicted.

    For datasets that have no instance JSON, such as Mapillary Vistas.
    """

    def __init__(self, truth: GroundTruth) -> None:
        self._truth = truth
        self.clear()

    @property
    def source(self) -> str:
        """The panoptic JSON; a ValueError if the dataset has none."""
        return self._truth.annotation_file("panoptic_json", SWITCH)

    def check(self) -> None:
        """A ValueError if the dataset has no panoptic annotation either."""
        _ = self.source

    def add(self, image: Mapping[str, Any]) -> tuple[int, int]:
        """Encode the image's things; its size."""
        ids = self._truth.panoptic_ids(image["file_name"])
        height, width = ids.shape
        self._images.append({"id": image["image_id"], "height": height, "width": width})
        for segment in self._truth.segments_info(image["file_name"]):
            category = self._dataset_ids.get(int(segment["category_id"]))
            if category is not None:
                code = run_length.encode_mask(ids == segment["id"])
                self._annotations.append(
                    {
                        "image_id": image["image_id"],
                        "category_id": category,
                        "segmentation": code,
                        "bbox": run_length.box(code),
                        "area": run_length.area(code),
                        "iscrowd": int(segment.get("iscrowd", 0)),
                    }
                )
        return height, width

    def gather(self) -> dict[str, Any] | None:
        """The predicted images of all processes with their things."""
        gathered = comm.gather((self._images, self._annotations))
        if not comm.is_main_process():
            return None
        names = self._truth.metadata.thing_classes
        ids = sorted(self._dataset_ids.items())
        return numbered(
            {
                "images": [image for images, _ in gathered for image in images],
                "annotations": [a for _, annotations in gathered for a in annotations],
                "categories": [
                    {"id": identity, "name": name}
                    for (_, identity), name in zip(ids, names, strict=True)
                ],
            }
        )

    def clear(self) -> None:
        """Forget the images taken in."""
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []

    @cached_property
    def _dataset_ids(self) -> dict[int, int]:
        mapping = self._truth.metadata.thing_dataset_id_to_contiguous_id
        return {contiguous: identity for identity, contiguous in mapping.items()}


def numbered(content: dict[str, Any]) -> dict[str, Any]:
    """The content with annotations numbered from 1, and crowd if they say nothing else: no.

    COCO's evaluation takes id 0 for "unmatched" and merges equal ids; the ids mean nothing else.
    """
    for number, annotation in enumerate(content["annotations"], start=1):
        annotation["id"] = number
        annotation.setdefault("iscrowd", 0)
    content.setdefault("info", {})
    return content
