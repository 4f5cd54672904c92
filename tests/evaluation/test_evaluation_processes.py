"""Two real processes give exactly the results of one."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist
from detectron2.utils import comm

from maskclippp.evaluation import (
    InstanceEvaluator,
    MaskAccuracyEvaluator,
    PanopticEvaluator,
    SemanticEvaluator,
)
from tests.engine.processes import run_in_processes
from tests.evaluation.golden_datasets import GoldenDataset, registered
from tests.golden_cases import GoldenCase, cases

CASES = [c for c in cases("eval_") if (c.path / "pred" / "panoptic.json").is_file()]

PICTURES = ("sem_seg_pictures.png", "panoptic_seg_pictures.png", "mask_acc_pictures.png")
IN_ORDER_OF_PROCESSES = ("sem_seg_predictions.json", "coco_instances_results.json")


def evaluate(
    dataset: GoldenDataset, images: slice, folder: Path | None = None, threads: int = 0
) -> dict[str, Any]:
    """All evaluators over some of the images; {} on other ranks than the first."""
    truth, words = dataset.ground_truth, dataset.words("some_seen")
    results: dict[str, Any] = {}
    for kind, outputs in (
        (SemanticEvaluator, dataset.semantic_outputs()),
        (PanopticEvaluator, dataset.panoptic_outputs()),
        (InstanceEvaluator, dataset.instance_outputs()),
        (MaskAccuracyEvaluator, dataset.mask_class_outputs("sem")),
    ):
        evaluator = kind(truth, folder, words=words, threads=threads)
        for image, output in list(zip(dataset.inputs, outputs, strict=True))[images]:
            evaluator.process([image], [output])
        results.update(evaluator.evaluate() or {})
    return results


def evaluate_share(
    case: GoldenCase, folder: str, first_idle: bool, *, rank: int, world_size: int
) -> None:
    """Evaluate every other image, or all on the last rank; write what the evaluators return."""
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world_size
    )
    with registered(case) as dataset:
        share = slice(rank, None, world_size)
        if first_idle:
            share = slice(None) if rank == world_size - 1 else slice(0)
        results = evaluate(dataset, share, Path(folder, "together"), threads=2)
    assert comm.get_world_size() == world_size
    Path(folder, f"rank{rank}.json").write_text(json.dumps(results))
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.parametrize(
    ("case", "first_idle"),
    [*((case, False) for case in CASES), (CASES[0], True)],
    ids=[*map(str, CASES), f"{CASES[0]}-first-without-images"],
)
def test_two_processes_equal_one(case: GoldenCase, first_idle: bool, tmp_path: Path) -> None:
    exit_codes = run_in_processes(evaluate_share, case, str(tmp_path), first_idle, world_size=2)
    assert exit_codes == [0, 0]
    with registered(case) as dataset:
        alone = evaluate(dataset, slice(None), tmp_path / "alone")
    together = json.loads((tmp_path / "rank0.json").read_text())
    # As text, because NaN differs from itself.
    assert json.dumps(together) == json.dumps(alone)
    assert {"sem_seg", "panoptic_seg", "bbox", "segm", "mask_acc"} == set(together)
    assert json.loads((tmp_path / "rank1.json").read_text()) == {}
    files = {file.name: file for file in (tmp_path / "alone").iterdir()}
    assert set(PICTURES) <= set(files)
    for file in files.values():
        if file.name not in IN_ORDER_OF_PROCESSES:
            assert (tmp_path / "together" / file.name).read_bytes() == file.read_bytes(), file.name
