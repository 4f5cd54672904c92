"""Instance ground truth in COCO's form: a JSON, or the things of a panoptic annotation."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple, Protocol

from maskclippp.data.coco_json import InstanceFile, read_instances
from maskclippp.errors import InputError
from maskclippp.evaluation.ground_truth import GroundTruth
from maskclippp.masks.run_length import area, box, encode_mask
from maskclippp.records import Record

SWITCH = "MODEL.MASK_FORMER.TEST.INSTANCE_ON"


class ImageTruth(NamedTuple):
    """An image and, unless they are all in one file, its annotations in COCO's form."""

    image_id: int | str
    height: int
    width: int
    annotations: Sequence[Mapping[str, Any]] = ()


class InstanceTruth(Protocol):
    """Source of the ground truth of instance evaluators."""

    @property
    def source(self) -> str:
        """The annotation file, for messages."""

    def check(self) -> None:
        """Raise InputError if the annotation file is broken; called before the model runs."""

    def of_image(self, record: Record) -> ImageTruth:
        """The ground truth of a predicted image; may be called from several threads."""

    def content(self, images: Sequence[ImageTruth]) -> Mapping[str, Any]:
        """COCO's ``images``, ``annotations``, and ``categories``, given all predicted images."""


class JsonInstances:
    """The dataset's instance JSON; all of its images count, predicted or not.

    Args:
        keys: required keys of ``images``, ``annotations`` and ``categories``, besides ids, names
            and sizes.
    """

    def __init__(self, truth: GroundTruth, keys: Mapping[str, Sequence[str]]) -> None:
        self._truth = truth
        self._required_keys = {
            "images": ("height", "width", *keys["images"]),
            "annotations": keys["annotations"],
            "categories": keys["categories"],
        }

    @property
    def source(self) -> str:
        """The JSON file; InputError if the dataset has none."""
        return self._truth.annotation_file("json_file", SWITCH)

    def check(self) -> None:
        """Read the file; InputError unless its categories are the dataset's things."""
        mapping = self._truth.metadata.thing_dataset_id_to_contiguous_id
        categories = self._content["categories"]
        absent = [c["name"] for c in categories if c["id"] not in mapping]
        if absent or len(categories) != len(mapping):
            raise InputError(
                f"{self.source} has {len(categories)} categories, dataset "
                f"{self._truth.dataset_name} {len(mapping)} things"
                + (f"; not registered: {', '.join(absent[:5])}" if absent else "")
            )

    def of_image(self, record: Record) -> ImageTruth:
        """The image and its size; InputError if the file lacks it."""
        image_id = record.get("image_id")
        if image_id is None or image_id not in self._sizes:
            raise InputError(
                f"image {record['file_name']} has image_id {image_id!r}, which is not an image of "
                f"{self.source}: records and annotation belong to different datasets"
            )
        return ImageTruth(image_id, *self._sizes[image_id])

    def content(self, _images: Sequence[ImageTruth]) -> Mapping[str, Any]:
        """The whole file."""
        return self._content

    @cached_property
    def _content(self) -> InstanceFile:
        return read_instances(
            self.source,
            f"the instance annotation of dataset {self._truth.dataset_name}, because {SWITCH} is "
            "set",
            required=self._required_keys,
        )

    @cached_property
    def _sizes(self) -> dict[Any, tuple[int, int]]:
        return {i["id"]: (i["height"], i["width"]) for i in self._content["images"]}


class PanopticThings:
    """The things in the panoptic annotation of the predicted images.

    For datasets without an instance JSON, such as Mapillary Vistas.
    """

    def __init__(self, truth: GroundTruth) -> None:
        self._truth = truth

    @property
    def source(self) -> str:
        """The panoptic JSON; InputError if the dataset has none."""
        return self._truth.annotation_file("panoptic_json", SWITCH)

    def check(self) -> None:
        """Raise InputError if the dataset has no panoptic annotation either."""
        _ = self.source

    def of_image(self, record: Record) -> ImageTruth:
        """The size and the things of an image."""
        ids, annotations = self._truth.panoptic_ids(record), []
        for segment in self._truth.segments_info(record):
            category = self._truth.thing_ids.get(int(segment["category_id"]))
            if category is not None:
                code = encode_mask(ids == segment["id"])
                annotations.append(
                    {
                        "image_id": record["image_id"],
                        "category_id": category,
                        "segmentation": code,
                        "bbox": box(code),
                        "area": area(code),
                        "iscrowd": int(segment.get("iscrowd", 0)),
                    }
                )
        height, width = ids.shape
        return ImageTruth(record["image_id"], height, width, annotations)

    def content(self, images: Sequence[ImageTruth]) -> Mapping[str, Any]:
        """The predicted images with their things."""
        return {
            "images": [{"id": i.image_id, "height": i.height, "width": i.width} for i in images],
            "annotations": [annotation for image in images for annotation in image.annotations],
            "categories": [
                {"id": identity, "name": name} for identity, name in self._truth.thing_names.items()
            ],
        }
