"""Annotation of a dataset's records: read from files, derived, or taken from the mapper."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from maskclippp.data.mappers.evaluation import EvaluationMapper
from maskclippp.errors import InputError
from maskclippp.evaluation import GroundTruth
from maskclippp.records import Record
from tests.evaluation.golden_datasets import registered, small_dataset
from tests.golden_cases import cases

CASE = [c for c in cases("eval_") if (c.path / "pred" / "panoptic.json").is_file()][-1]


@pytest.mark.parametrize("value", [5, 254])
def test_label_out_of_range_names_file_value_and_range(value: int, tmp_path: Path) -> None:
    label_file = tmp_path / "labels.png"
    Image.fromarray(np.array([[0, 4, value, 255]], dtype=np.uint8)).save(label_file)
    record = {"file_name": "a.jpg", "sem_seg_file_name": str(label_file)}
    message = r"allows 0\.\.4 and the ignore label 255"
    with small_dataset([record]) as truth, pytest.raises(ValueError, match=message) as error:
        truth.semantic_labels(record)
    assert str(label_file) in str(error.value)
    assert f"value {value} " in str(error.value)


def test_missing_label_file_is_derived_from_the_panoptic_map() -> None:
    with registered(CASE) as dataset:
        for record in dataset.inputs:
            stored = dataset.ground_truth.semantic_labels(record)
            derived = dataset.ground_truth.semantic_labels(
                {**record, "sem_seg_file_name": "absent.png"}
            )
            assert derived.source == record["pan_seg_file_name"]
            assert (derived.labels == stored.labels).all()


def test_record_without_annotation_is_refused() -> None:
    with registered(CASE) as dataset:
        with pytest.raises(InputError, match=r"record of a\.jpg names neither"):
            dataset.ground_truth.semantic_labels({"file_name": "a.jpg"})
        with pytest.raises(InputError, match=r"image a\.jpg .* has no panoptic annotation"):
            dataset.ground_truth.segments_info({"file_name": "a.jpg"})


@pytest.fixture
def mapped() -> Iterator[tuple[GroundTruth, Record, Record]]:
    """A dataset, one of its records, and what the evaluation mapper makes of it."""
    with registered(CASE) as dataset:
        truth, record = dataset.ground_truth, dataset.inputs[0]
        mapper = EvaluationMapper(
            min_size=0, max_size=9999, with_ground_truth=True, ignore_label=truth.ignore_label
        )
        yield truth, record, mapper(record)


def test_maps_of_the_mapper_are_reused(mapped: tuple[GroundTruth, Record, Record]) -> None:
    truth, record, evaluated = mapped
    assert (truth.panoptic_ids(evaluated) == truth.panoptic_ids(record)).all()
    from_file, reused = truth.semantic_labels(record), truth.semantic_labels(evaluated)
    assert reused.source == from_file.source
    assert reused.labels.dtype == from_file.labels.dtype
    assert (reused.labels == from_file.labels).all()
    evaluated["pan_seg"][:] = 7
    evaluated["sem_seg"][:] = 1
    assert (truth.panoptic_ids(evaluated) == 7).all()
    assert (truth.semantic_labels(evaluated).labels == 1).all()


@pytest.mark.parametrize("change", [{"height": 1}, {"ignore_label": 254}])
def test_maps_of_another_size_or_ignore_label_are_not_reused(
    mapped: tuple[GroundTruth, Record, Record], change: dict[str, int]
) -> None:
    truth, record, evaluated = mapped
    evaluated["sem_seg"] = torch.zeros_like(evaluated["sem_seg"])
    changed: Any = {**evaluated, **change}
    expected = truth.semantic_labels(record).labels
    assert (truth.semantic_labels(changed).labels == expected).all()
