"""The datasets that ship registered, read from builtin.yaml.

Deviations from the published registration; each fixes a bug:

* COCO and ADE20K instance sets load: categories are matched by id, not by name.
* Mapillary categories have the official ids 1..65; a JSON that counts from 0 is accepted as well.
* Images and label maps are paired by name, never by their position among the files.
* Every image must exist before a run starts, not only the first one.
* Things and stuff of Cityscapes are numbered like those of every other panoptic set.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from detectron2.data import MetadataCatalog

from maskclippp.data.dataset import Dataset
from maskclippp.data.instances import InstanceDataset
from maskclippp.data.layout import SPLIT_FOLDERS
from maskclippp.data.panoptic import PanopticDataset
from maskclippp.data.semantic import SemanticDataset
from maskclippp.errors import InputError
from maskclippp.words import load_class_list

_CATALOG = Path(__file__).with_name("builtin.yaml")


def cityscapes_image(stem: str) -> str:
    """``<city>/<scene>_leftImg8bit.png`` of ``<scene>_gtFine_panoptic``."""
    return f"{_cityscapes_scene(stem)}_leftImg8bit.png"


def cityscapes_labels(stem: str) -> str:
    """``<city>/<scene>_gtFine_labelTrainIds.png`` of ``<scene>_gtFine_panoptic``."""
    return f"{_cityscapes_scene(stem)}_gtFine_labelTrainIds.png"


def _cityscapes_scene(stem: str) -> str:
    parts = stem.split("_")
    if len(parts) < 3:
        raise InputError(
            f"{stem} is not a file of Cityscapes; these are named <city>_<sequence>_<frame>_..."
        )
    city, sequence, frame = parts[:3]
    return f"{city}/{city}_{sequence}_{frame}"


_KINDS: dict[str, type[Dataset]] = {
    "coco_panoptic": PanopticDataset,
    "index_png": SemanticDataset,
    "coco_instances": InstanceDataset,
}
# The field of a dataset for each key whose name differs from it.
_FIELDS = {
    "words": "class_list",
    "evaluator": "evaluator_type",
    "ignore": "ignore_label",
    "instances": "instances_json",
    "suffix": "label_suffix",
}
_ANNOTATIONS = {
    "coco_panoptic": "panoptic_json",
    "index_png": "labels",
    "coco_instances": "instances_json",
}
_FILE_NAMES = {"cityscapes": {"image_of": cityscapes_image, "semantic_of": cityscapes_labels}}


def _datasets(entry: Mapping[str, Any]) -> Iterator[Dataset]:
    """One dataset per split of an entry of the catalog."""
    settings = dict(entry)
    kind, splits = settings.pop("kind"), settings.pop("splits", tuple(SPLIT_FOLDERS))
    extra: dict[str, Any] = {}
    if "file_names" in settings:
        extra = dict(_FILE_NAMES[settings.pop("file_names")])
    fields = {**_FIELDS, "annotations": _ANNOTATIONS[kind]}
    for split in splits:
        values = {
            fields.get(key, key): value.format(split=split, folder=SPLIT_FOLDERS[split])
            if isinstance(value, str)
            else value
            for key, value in settings.items()
        }
        yield _KINDS[kind](**values, **extra)


DATASETS: Mapping[str, Dataset] = {
    dataset.name: dataset
    for entry in yaml.safe_load(_CATALOG.read_text(encoding="utf-8"))
    for dataset in _datasets(entry)
}
"""All of them, by name."""


def coco_panoptic(split: str) -> PanopticDataset:
    """COCO 2017 panoptic (133 classes), split ``train`` or ``val``."""
    dataset = DATASETS[f"openvocab_coco_2017_{split}_panoptic_with_sem_seg"]
    assert isinstance(dataset, PanopticDataset)
    return dataset


def register_builtin(root: Path) -> None:
    """Register all of them below ``root``; no file of a dataset is read."""
    for dataset in DATASETS.values():
        dataset.register(root)
    # Published without a dataset, for programs that only ask for names.
    things = load_class_list("coco_panoptic").things()
    names = {
        "thing_classes": list(things.names),
        "thing_colors": [list(color) for color in things.colors],
    }
    for split in SPLIT_FOLDERS:
        MetadataCatalog.get(f"openvocab_coco_2017_{split}_panoptic").set(**names)
