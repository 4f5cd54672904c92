"""The built-in datasets, read from builtin.yaml.

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
from maskclippp.data.entries import check_entry, dataset_of
from maskclippp.data.layout import SPLIT_FOLDERS
from maskclippp.data.panoptic import PanopticDataset
from maskclippp.words import load_class_list

_CATALOG = Path(__file__).with_name("builtin.yaml")


def _datasets(entry: Mapping[str, Any]) -> Iterator[Dataset]:
    """One dataset per split of an entry of the catalog."""
    settings = dict(entry)
    for split in settings.pop("splits", SPLIT_FOLDERS):
        of_split = {
            key: value.format(split=split, folder=SPLIT_FOLDERS[split])
            if isinstance(value, str)
            else value
            for key, value in settings.items()
        }
        check_entry(of_split, f"{_CATALOG.name}: {of_split.get('name')}")
        yield dataset_of(of_split)


DATASETS: Mapping[str, Dataset] = {
    dataset.name: dataset
    for entry in yaml.safe_load(_CATALOG.read_text(encoding="utf-8"))
    for dataset in _datasets(entry)
}
"""The built-in datasets by name."""


def coco_panoptic(split: str) -> PanopticDataset:
    """COCO 2017 panoptic (133 classes), split ``train`` or ``val``."""
    dataset = DATASETS[f"openvocab_coco_2017_{split}_panoptic_with_sem_seg"]
    assert isinstance(dataset, PanopticDataset)
    return dataset


def register_builtin(root: Path) -> None:
    """Register the built-in datasets below ``root``, without reading their files."""
    for dataset in DATASETS.values():
        dataset.register(root)
    # As published, these names have metadata but no records.
    things = load_class_list("coco_panoptic").things()
    names = {
        "thing_classes": list(things.names),
        "thing_colors": [list(color) for color in things.colors],
    }
    for split in SPLIT_FOLDERS:
        MetadataCatalog.get(f"openvocab_coco_2017_{split}_panoptic").set(**names)
