"""What the scripts prepare is what is registered: every record loads, every label is a class."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from maskclippp.data.builtin import DATASETS
from maskclippp.data.instances import InstanceDataset
from maskclippp.data.panoptic import PanopticDataset
from maskclippp.data.semantic import SemanticDataset
from maskclippp.data.semantic_maps import check_label_range, read_semantic_labels
from maskclippp.files.images import read_image, read_panoptic_ids
from tests.data import original_layouts as originals
from tests.data.preparation_runs import run_main

# Folder of a dataset -> what makes its originals, and the scripts in the order they are run in.
PREPARATIONS: dict[str, tuple[Callable[[Path], None], tuple[str, ...]]] = {
    "ADEChallengeData2016": (
        originals.make_ade20k,
        ("prepare_ade20k_sem_seg", "prepare_ade20k_ins_seg", "prepare_ade20k_pan_seg"),
    ),
    "ADE20K_2021_17_01": (originals.make_ade20k_full, ("prepare_ade20k_full_sem_seg",)),
    "cityscapes": (originals.make_cityscapes, ("prepare_cityscapes_panoptic",)),
    "coco": (originals.make_coco, ("prepare_coco_semantic_annos_from_panoptic_annos",)),
    "coco stuff": (originals.make_coco_stuff, ("prepare_coco_stuff_sem_seg",)),
    "pascal_ctx_d2": (
        originals.make_context,
        ("prepare_pascal_ctx_sem_seg", "prepare_pascal_ctx_full_sem_seg"),
    ),
    "pascal_voc_d2": (originals.make_voc, ("prepare_pascal_voc_sem_seg",)),
}
SEMANTIC = [d for d in DATASETS.values() if isinstance(d, SemanticDataset)]
PANOPTIC = [d for d in DATASETS.values() if isinstance(d, PanopticDataset)]
INSTANCES = [d for d in DATASETS.values() if isinstance(d, InstanceDataset)]
Dataset = SemanticDataset | PanopticDataset | InstanceDataset
PrepareRoot = Callable[[Dataset], Path]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> PrepareRoot:
    """The root below which a dataset is prepared."""
    roots: dict[str, Path] = {}

    def prepare(dataset: Dataset) -> Path:
        folder = "coco stuff" if "stuff" in dataset.name else dataset.images.split("/")[0]
        if folder not in roots:
            make, scripts = PREPARATIONS[folder]
            roots[folder] = tmp_path_factory.mktemp("datasets")
            make(roots[folder])
            for script in scripts:
                assert run_main(script, roots[folder]) == 0
        return roots[folder]

    return prepare


def check_semantic(record: dict[str, Any], dataset: SemanticDataset | PanopticDataset) -> None:
    semantic = read_semantic_labels(record, dataset.ignore)
    assert semantic.source == record["sem_seg_file_name"]
    image = read_image(record["file_name"])
    assert semantic.labels.shape == (image.height, image.width)
    check_label_range(
        semantic,
        num_classes=len(dataset.classes),
        ignore_label=dataset.ignore,
        dataset_name=dataset.name,
    )


@pytest.mark.parametrize("dataset", SEMANTIC, ids=lambda dataset: dataset.name)
def test_semantic_records(dataset: SemanticDataset, prepared: PrepareRoot) -> None:
    records = dataset.load(prepared(dataset))
    assert len(records) == (1 if "train" in dataset.name else 2)
    for record in records:
        check_semantic(record, dataset)


@pytest.mark.parametrize(
    "dataset",
    [dataset for dataset in PANOPTIC if dataset.images.split("/")[0] in PREPARATIONS],
    ids=lambda dataset: dataset.name,
)
def test_panoptic_records(dataset: PanopticDataset, prepared: PrepareRoot) -> None:
    records = dataset.load(prepared(dataset))
    for record in records:
        ids = read_panoptic_ids(record["pan_seg_file_name"])
        assert set(ids[ids > 0].tolist()) <= {s["id"] for s in record["segments_info"]}
        check_semantic(record, dataset)


@pytest.mark.parametrize(
    "dataset",
    [dataset for dataset in INSTANCES if "ADE" in dataset.images],
    ids=lambda dataset: dataset.name,
)
def test_instance_records(dataset: InstanceDataset, prepared: PrepareRoot) -> None:
    """Person and flag are the 4th and the last of the 100 things."""
    for record in dataset.load(prepared(dataset)):
        assert [a["category_id"] for a in record["annotations"]] == [3, 99, 3]
