"""Whether a device computes what a CPU does: what no machine without a GPU can test.

    python -m benchmarks.gpu_checks [--device cuda] [--quick] --output checks.json

Golden cases are those of the tests; other models are tiny and random. Every check is reported, also
if others fail.
"""

import argparse
import json
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from detectron2.config import CfgNode
from detectron2.utils.events import EventStorage
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from benchmarks.deformable_sampling import check_ways
from benchmarks.measure import measure
from maskclippp.data.loader import Batch
from maskclippp.devices import set_float32_precision
from maskclippp.engine.optimizer import build_optimizer
from maskclippp.engine.train_step import TrainStep
from maskclippp.inference.image_resize import resize_like_pillow
from maskclippp.meta_arch import MaskCLIPpp
from tests.generators.tiny_generators import fcclip_config, mask2former_config
from tests.golden_cases import cases
from tests.golden_evaluations import (
    check_evaluation_with_a_generator,
    check_evaluation_with_true_masks,
    check_training_step,
)
from tests.tiny_eva import options_of
from tests.tiny_models import ALL_TASKS, labeled_record, striped_record, tiny_config

# The mean difference of a CPU's and the device's values, relative to the CPU's mean magnitude.
TOLERANCES = {"float32": 1e-4, "bfloat16": 0.1, "float16": 0.05}
_OPTIONS = (*ALL_TASKS, ".TEXT_CACHE", False)
_MODELS: dict[str, Callable[[], CfgNode]] = {
    "ConvNeXt": partial(tiny_config, *_OPTIONS),
    "EVA02": partial(tiny_config, *options_of("EVA02"), *_OPTIONS),
    "FC-CLIP": partial(fcclip_config, *_OPTIONS),
    "Mask2Former": partial(mask2former_config, *_OPTIONS),
}
_RECORD_SIZE, _STEPS, _LOSS_LIMIT = (96, 128), 4, 0.05


def built(make: Callable[[], CfgNode], device: torch.device) -> MaskCLIPpp:
    """The model of a config on a device; random, but always the same."""
    cfg = make()
    cfg.MODEL.DEVICE = str(device)
    torch.manual_seed(0)
    model = MaskCLIPpp(cfg)
    torch.manual_seed(1)  # the generator's weights are random, too
    if not model.inference.segmentor_only:
        model._get_generator()
    return model.to(device)


def goldens(device: torch.device) -> dict[str, Any]:
    """Whole models of the golden cases, in training and evaluation, in float32."""
    checks = {
        "meta_arch_train": check_training_step,
        "meta_arch_eval_gt": check_evaluation_with_true_masks,
        "meta_arch_eval_fcclip": check_evaluation_with_a_generator,
        "meta_arch_eval_m2f": check_evaluation_with_a_generator,
    }
    passed = []
    for prefix, check in checks.items():
        for case in cases(prefix):
            with tempfile.TemporaryDirectory() as folder:
                check(case, Path(folder), device)
            passed.append(str(case))
    return {"passed": passed}


def parity(device: torch.device) -> dict[str, Any]:
    """Logits and masks of every kind of model, in three precisions, against the CPU in float32."""
    torch.manual_seed(0)
    record = labeled_record(_RECORD_SIZE, 0, 1, 3)
    report, wrong = {}, []
    for name, make in _MODELS.items():
        (expected,) = built(make, torch.device("cpu")).eval().classify_masks([record])
        model = built(make, device).eval()
        for dtype, limit in TOLERANCES.items():
            model.inference = replace(model.inference, dtype=dtype)
            (found,) = model.classify_masks([record])
            difference = max(
                _relative_difference(found.logits, expected.logits),
                _relative_difference(found.masks.values, expected.masks.values),
            )
            report[f"{name} {dtype}"] = f"{difference:.1e} (allowed {limit:.0e})"
            if not difference <= limit:
                wrong.append(f"{name} {dtype}")
            model([record])  # all results can be computed
    assert not wrong, f"{wrong}: {report}"
    return report


def _relative_difference(found: Tensor, expected: Tensor) -> float:
    found, expected = found.float().cpu(), expected.float()
    return float((found - expected).abs().mean() / expected.abs().mean().clamp(min=1e-6))


def training(device: torch.device) -> dict[str, Any]:
    """Losses of all steps, against a CPU in float32; whether a second run gives the same bits."""
    dtypes = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if device.type == "cpu":
        del dtypes["float16"]
    expected = _losses(torch.device("cpu"))
    report: dict[str, Any] = {}
    for name, dtype in dtypes.items():
        first, second = (_losses(device, dtype) for _ in range(2))
        difference = max(abs(a - b) for a, b in zip(first, expected, strict=True))
        report[f"{name}, largest difference"] = f"{difference:.1e} (allowed {_LOSS_LIMIT})"
        report[f"{name} repeats bit for bit"] = first == second
        assert difference <= _LOSS_LIMIT, report
    return report


def _losses(
    device: torch.device,
    dtype: torch.dtype | None = None,
    wrap: Callable[[nn.Module], nn.Module] = lambda model: model,
) -> list[float]:
    options = ("SOLVER.CLIP_GRADIENTS.ENABLED", True, "SOLVER.BASE_LR", 1e-3, ".TEXT_CACHE", False)
    cfg = tiny_config(*options, "SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "full_model")
    model = built(lambda: cfg, device)
    torch.manual_seed(0)
    batch = [striped_record((64, 64), [0, 1]), striped_record((96, 64), [2])]
    optimizer = build_optimizer(cfg, model)
    step = TrainStep(wrap(model), optimizer, seed=0, autocast_dtype=dtype)
    step.data_loader = [batch] * _STEPS
    losses = []
    with EventStorage() as storage:
        for iteration in range(_STEPS):
            step.run(iteration)
            losses.append(storage.latest()["total_loss"][0])
    return losses


def process_group(device: torch.device) -> dict[str, Any]:
    """A process group of one process, by NCCL on CUDA; the losses are those without."""
    backend = "nccl" if device.type == "cuda" else "gloo"
    expected = _losses(device)
    with tempfile.TemporaryDirectory() as folder:
        dist.init_process_group(backend, init_method=f"file://{folder}/x", rank=0, world_size=1)
        wrapper = partial(DistributedDataParallel, gradient_as_bucket_view=True)
        losses = _losses(device, None, wrapper)
        dist.destroy_process_group()
    torch.testing.assert_close(losses, expected, rtol=1e-4, atol=1e-4)
    return {"backend": backend}


def compiled(device: torch.device) -> dict[str, Any]:
    """COMPILE: the embeddings are those without."""
    backend = "inductor" if device.type == "cuda" else "aot_eager"
    images = [labeled_record(_RECORD_SIZE, 0, 1)]
    results = []
    for name in ("", backend):
        make = partial(_MODELS["EVA02"], ".VISUAL_ENCODER.COMPILE", name)
        results.append(built(make, device).eval().classify_masks(images)[0].logits)
    torch.testing.assert_close(*results, rtol=1e-3, atol=1e-3)
    return {"backend": backend}


def memory(device: torch.device, images: int = 200) -> dict[str, Any]:
    """Images of many sizes: memory stops growing."""
    model = built(_MODELS["FC-CLIP"], device).eval()
    half = 0
    for number in range(images):
        side = 64 + 32 * (number % 5)
        model([labeled_record((side, 96), 0, 1)])
        if number == images // 2:
            half = _allocated(device)
    growth = _allocated(device) - half
    assert growth < 2**20, f"{growth} bytes in {images // 2} images"
    return {"images": images, "bytes more after the second half": growth}


def _allocated(device: torch.device) -> int:
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else 0


def resizing(device: torch.device) -> dict[str, Any]:
    """INPUT.RESIZE_ON_DEVICE: the bytes are those on the CPU, which are Pillow's."""
    image, size = torch.randint(0, 256, (3, 427, 640), dtype=torch.uint8), (800, 1199)
    there = image.to(device)
    assert torch.equal(resize_like_pillow(there, size).cpu(), resize_like_pillow(image, size))
    runs = measure({"ours": lambda: resize_like_pillow(there, size)}, 10, device)
    return {"milliseconds": runs["ours"].median * 1e3}


def pinned(device: torch.device) -> dict[str, Any]:
    """Batches of the loaders are pinned, with the masks in their instances."""
    if device.type != "cuda":
        return {"not on": device.type}
    (record,) = Batch([striped_record((64, 64), [0, 1])]).pin_memory()
    tensors = [record["image"], *record["instances"].get_fields().values()]
    assert all(tensor.is_pinned() for tensor in tensors), [t.is_pinned() for t in tensors]
    return {"tensors": len(tensors)}


def waits(device: torch.device) -> dict[str, Any]:
    """Where the host waits for CUDA in one image, as CUDA tells; not asserted."""
    if device.type != "cuda":
        return {"not on": device.type}
    report = {}
    for name in ("FC-CLIP", "EVA02"):
        model = built(_MODELS[name], device).eval()
        record = labeled_record(_RECORD_SIZE, 0, 1, 3)
        model([record])
        torch.cuda.set_sync_debug_mode("warn")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model([record])
        torch.cuda.set_sync_debug_mode("default")
        places = [f"{Path(w.filename).name}:{w.lineno}" for w in caught]
        report[name] = {place: places.count(place) for place in places}
    return report


def sampling(device: torch.device) -> dict[str, Any]:
    """Ways of deformable sampling: equal results and gradients, and their times."""
    return check_ways(device)


CHECKS = (
    goldens,
    parity,
    training,
    process_group,
    compiled,
    memory,
    resizing,
    pinned,
    waits,
    sampling,
)


def run_checks(
    device: torch.device, checks: Iterable[Callable[[torch.device], dict[str, Any]]]
) -> dict[str, Any]:
    """Per check what it found, and what went wrong ("": nothing)."""
    report = {}
    for check in checks:
        try:
            report[check.__name__] = {"problem": "", "found": check(device)}
        except Exception as error:  # noqa: BLE001  the others are to be run
            traceback.print_exc()
            problem = f"{type(error).__name__}: {error}"
            report[check.__name__] = {"problem": problem[:2000], "found": {}}
    return report


def main(arguments: list[str] | None = None) -> None:
    """Run all checks and write what they found; status 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="few images")
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args(arguments)
    set_float32_precision("highest")
    checks = [partial(c, images=6) if args.quick and c is memory else c for c in CHECKS]
    for check, original in zip(checks, CHECKS, strict=True):
        check.__name__ = original.__name__  # type: ignore[attr-defined]
    report = run_checks(torch.device(args.device), checks)
    args.output.write_text(json.dumps(report, indent=2) + "\n")
    sys.exit(any(result["problem"] for result in report.values()))


if __name__ == "__main__":
    main()
