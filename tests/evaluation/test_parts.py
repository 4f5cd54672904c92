"""What an evaluator has summed up can be taken out in parts, and gives the same in another one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from maskclippp.evaluation import InstanceEvaluator, PanopticEvaluator, SemanticEvaluator
from tests.evaluation.golden_datasets import registered
from tests.golden_cases import cases

CASE = [c for c in cases("eval_") if (c.path / "pred" / "panoptic.json").is_file()][-1]


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("threads", [0, 2])
@pytest.mark.parametrize(
    ("kind", "outputs_of"),
    [
        (SemanticEvaluator, lambda dataset: dataset.semantic_outputs()),
        (PanopticEvaluator, lambda dataset: dataset.panoptic_outputs()),
        (InstanceEvaluator, lambda dataset: dataset.instance_outputs()),
    ],
)
def test_parts_give_the_same_results_and_files(
    kind: Any, outputs_of: Callable[[Any], list[Any]], threads: int, tmp_path: Path
) -> None:
    with registered(CASE) as dataset:
        outputs = outputs_of(dataset)
        whole = kind(dataset.ground_truth, tmp_path / "whole")
        whole.process(dataset.inputs, outputs)
        expected = whole.evaluate()

        second = kind(dataset.ground_truth, tmp_path / "parts", threads=threads)
        first = kind(dataset.ground_truth, tmp_path / "parts", threads=threads)
        for number, (record, output) in enumerate(zip(dataset.inputs, outputs, strict=True)):
            first.process([record], [output])
            if number % 2 == 0:  # the last part is not taken out before the end
                second.add_part(first.take_part())
        second.add_part(first.take_part())
        assert repr(second.evaluate()) == repr(expected)
        assert files(tmp_path / "parts") == files(tmp_path / "whole")
        assert repr(first.evaluate()) == repr(expected)


def test_a_part_has_what_is_new(tmp_path: Path) -> None:
    with registered(CASE) as dataset:
        evaluator = SemanticEvaluator(dataset.ground_truth, tmp_path)
        evaluator.process(dataset.inputs, dataset.semantic_outputs())
        full, empty = evaluator.take_part(), evaluator.take_part()
        copy = SemanticEvaluator(dataset.ground_truth, tmp_path)
        copy.add_part(full)
        confusion = copy.confusion
        copy.add_part(empty)
        assert (copy.confusion == confusion).all()
        assert (evaluator.confusion == confusion).all()
        assert copy.take_part() == empty
