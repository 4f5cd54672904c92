"""The datasets and predictions of the golden ``eval_*`` cases, registered for the evaluators."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BitMasks, Instances
from PIL import Image
from pycocotools import mask as mask_codec

from maskclippp.evaluation import GroundTruth
from maskclippp.files.images import read_label_map, read_panoptic_ids
from maskclippp.words import RequestedWords, Vocabulary
from tests.data.real_samples import sample_root
from tests.golden_cases import GoldenCase

Outputs = dict[str, dict[str, Any]]


class GoldenDataset:
    """Records, inputs and recorded predictions of one case."""

    def __init__(self, case: GoldenCase) -> None:
        self.case = case
        self.expected = case.info["expected"]
        self.tolerance = case.info["tolerance_abs"]
        self.name = f"golden_{case}"

    @property
    def ground_truth(self) -> GroundTruth:
        return GroundTruth(self.name)

    @property
    def inputs(self) -> list[dict[str, Any]]:
        return [dict(record) for record in DatasetCatalog.get(self.name)]

    def semantic_outputs(self) -> list[dict[str, Any]]:
        folder = self.case.path / "pred"
        folder = folder / "semseg" if (folder / "semseg").is_dir() else folder
        return [
            {"sem_seg_labels": torch.from_numpy(read_label_map(folder / Path(file).name))}
            for file in (record["sem_seg_file_name"] for record in self.inputs)
        ]

    def panoptic_outputs(self) -> list[dict[str, Any]]:
        folder = self.case.path / "pred"
        content = json.loads((folder / "panoptic.json").read_text())
        by_image = {a["image_id"]: a for a in content["annotations"]}
        outputs = []
        for record in self.inputs:
            annotation = by_image[record["image_id"]]
            ids = torch.from_numpy(read_panoptic_ids(folder / "panoptic" / annotation["file_name"]))
            outputs.append({"panoptic_seg": (ids, annotation["segments_info"])})
        return outputs

    def instance_outputs(self) -> list[dict[str, Any]]:
        detections = json.loads((self.case.path / "pred" / "instances.json").read_text())
        outputs = []
        for record in self.inputs:
            found = [d for d in detections if d["image_id"] == record["image_id"]]
            with Image.open(record["pan_seg_file_name"]) as image:
                size = (image.height, image.width)
            masks = np.zeros((len(found), *size), dtype=bool)
            for mask, detection in zip(masks, found, strict=True):
                mask[:] = mask_codec.decode(detection["segmentation"])
            instances = Instances(size)
            instances.pred_masks = torch.from_numpy(masks)
            instances.pred_boxes = BitMasks(instances.pred_masks).get_bounding_boxes()
            instances.scores = torch.tensor([d["score"] for d in found], dtype=torch.float64)
            instances.pred_classes = torch.tensor([d["class"] for d in found], dtype=torch.int64)
            outputs.append({"instances": instances})
        return outputs

    def mask_class_outputs(self, kind: str) -> list[dict[str, Any]]:
        classes = json.loads((self.case.path / "pred" / "mask_cls.json").read_text())[kind]
        return [{"mask_cls": torch.tensor(classes[Path(r["file_name"]).stem])} for r in self.inputs]

    def mask_outputs(self) -> list[dict[str, Any]]:
        codes = json.loads((self.case.path / "pred" / "masks.json").read_text())
        outputs = []
        for record in self.inputs:
            image_codes = codes[Path(record["file_name"]).stem]
            with Image.open(record["pan_seg_file_name"]) as image:
                masks = np.zeros((len(image_codes), image.height, image.width), dtype=bool)
            for mask, code in zip(masks, image_codes, strict=True):
                mask[:] = mask_codec.decode(code)
            outputs.append({"pred_masks": torch.from_numpy(masks)})
        return outputs

    def uniformly_seen(self, *, seen: bool) -> RequestedWords:
        """All classes seen, or none."""
        return self._with_seen([seen] * self.ground_truth.num_classes)

    def words(self, name: str) -> RequestedWords:
        """The classes that the case records as seen under ``name``."""
        return self._with_seen(self.case.info["seen_masks_by_contiguous_id"][name])

    def _with_seen(self, seen: list[bool]) -> RequestedWords:
        words = RequestedWords(self.ground_truth.vocabulary, train_vocabulary=Vocabulary(()))
        vars(words)["seen"] = torch.tensor(seen)  # as recorded, whatever words classes share
        return words


def recorded_seen_masks(found: list[GoldenCase], prefix: str) -> list[tuple[GoldenCase, str]]:
    """The cases with the names of the masks for which they record ``<prefix>_<name>``."""
    return [
        (case, name)
        for case in found
        for name in case.info.get("seen_masks_by_contiguous_id", {})
        if f"{prefix}_{name}" in case.info["expected"]
    ]


@contextmanager
def registered(case: GoldenCase, **changes: Any) -> Iterator[GoldenDataset]:
    """Register the dataset of a case for the time of a test; ``changes`` replace its metadata."""
    dataset = GoldenDataset(case)
    panoptic = (case.path / "pred" / "panoptic.json").is_file()
    records, metadata = _panoptic(case) if panoptic else _semantic(case)
    DatasetCatalog.register(dataset.name, lambda: records)
    MetadataCatalog.get(dataset.name).set(**{**metadata, **changes})
    try:
        yield dataset
    finally:
        DatasetCatalog.remove(dataset.name)
        MetadataCatalog.remove(dataset.name)


def _semantic(case: GoldenCase) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    records = [
        {"file_name": file.name, "sem_seg_file_name": str(file)}
        for file in sorted((case.path / "gt").iterdir())
    ]
    names = [f"c{index}" for index in range(case.info["num_classes"])]
    return records, {
        "stuff_classes": names,
        "ignore_label": case.info["ignore_label"],
        "evaluator_type": "sem_seg",
    }


def _panoptic(case: GoldenCase) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    own = case.path / "dataset"
    if own.is_dir():
        json_file, maps, images = own / "panoptic.json", own / "panoptic", own / "images"
        instances, semantic = own / "instances.json", own / "semseg"
    else:  # the two real images beside the cases
        coco = sample_root() / "coco"
        json_file = coco / "annotations" / "panoptic_val2017.json"
        instances = coco / "annotations" / "instances_val2017.json"
        maps, images = coco / "panoptic_val2017", coco / "val2017"
        semantic = case.path.parent / "prepare_coco_semseg" / "coco" / "panoptic_semseg_val2017"
    content = json.loads(json_file.read_text())
    classes = case.info.get("classes") or [
        {**category, "name": f"c{category['id']}"} for category in content["categories"]
    ]
    positions = {entry["id"]: index for index, entry in enumerate(classes)}
    records = [
        {
            "file_name": str(images / f"{Path(annotation['file_name']).stem}.jpg"),
            "image_id": annotation["image_id"],
            "pan_seg_file_name": str(maps / annotation["file_name"]),
            "sem_seg_file_name": str(semantic / annotation["file_name"]),
            "segments_info": [
                {
                    **segment,
                    "category_id": positions[segment["category_id"]],
                    "isthing": bool(classes[positions[segment["category_id"]]]["isthing"]),
                }
                for segment in annotation["segments_info"]
            ],
        }
        for annotation in content["annotations"]
    ]
    return records, {
        "stuff_classes": [entry["name"] for entry in classes],
        "thing_classes": [entry["name"] for entry in classes if entry["isthing"]],
        "stuff_dataset_id_to_contiguous_id": positions,
        "thing_dataset_id_to_contiguous_id": {
            entry["id"]: positions[entry["id"]] for entry in classes if entry["isthing"]
        },
        "ignore_label": case.info["ignore_label"],
        "panoptic_json": str(json_file),
        "panoptic_root": str(maps),
        "json_file": str(instances),
        "evaluator_type": "coco_panoptic_seg",
        "label_divisor": 1000,
    }


def assert_metrics(actual: dict[str, float], expected: dict[str, Any], tolerance: float) -> None:
    """Expected values agree.

    Boundary IoU is compared with its definition elsewhere: the published numbers are those of label
    differences (see NOTES-evaluation.md), in which the inside of every class counts as class 0.
    """
    for name, value in expected.items():
        if name.startswith(("BoundaryIoU-", "min(IoU, B-Iou)-")):
            assert name in actual
            continue
        assert name in actual, name
        assert np.isclose(actual[name], float(value), rtol=0, atol=tolerance, equal_nan=True), (
            name,
            actual[name],
            value,
        )


@contextmanager
def small_dataset(
    records: list[dict[str, Any]], class_names: Sequence[str] = ("a", "b", "c", "d", "e")
) -> Iterator[GroundTruth]:
    """A registered dataset with semantic classes only."""
    DatasetCatalog.register("small_semantic", lambda: records)
    MetadataCatalog.get("small_semantic").set(stuff_classes=list(class_names), ignore_label=255)
    try:
        yield GroundTruth("small_semantic")
    finally:
        DatasetCatalog.remove("small_semantic")
        MetadataCatalog.remove("small_semantic")
