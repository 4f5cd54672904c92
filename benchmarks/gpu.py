"""Everything that only a GPU can show, in one command of ten minutes.

    python -m benchmarks.gpu [--output gpu_results] [--minutes 10] [--device cuda] [--quick]

First whether it computes what a CPU does (``benchmarks.gpu_checks``), then how fast, by
``benchmarks.run``: the published ConvNeXt-B, ConvNeXt-L and EVA-L with FC-CLIP. Weights are random,
and nothing is downloaded. Every step is a process of its own: what one breaks leaves the others
whole. Steps that no longer fit into the time are named as not run. report.json and report.md
name the card. ``--quick`` is tiny models and one step of a kind: whether the command works.
"""

import argparse
import json
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate

REPOSITORY = Path(__file__).resolve().parents[1]
_CONFIGS = {
    "ConvNeXt-B": "clip-convnext-base/fcclip-b/maskclippp_coco-pan_clip-convnext-base_fcclip-b",
    "ConvNeXt-L": "clip-convnext-large/fcclip-l/maskclippp_coco-pan_clip-convnext-large_fcclip-l",
    "EVA-L": "eva-clip-vit-l-14-336/fcclip-l/maskclippp_coco-pan_eva-clip-vit-l-14-336_fcclip-l",
}
# TFLOP/s in bfloat16 by the makers' data sheets, without sparsity.
_PEAK = {"H200": 989, "H100": 989, "A100": 312, "L40S": 362, "4090": 165, "A6000": 155}
_TINY = (
    *("--classes", "7", "--image-size", "64", "96", "--masks", "5", "--train-masks", "3"),
    *("--repeats", "1"),
)
_TINY_MODEL = tuple(
    word
    for tower in ("VISUAL_ENCODER", "TEXT_ENCODER")
    for word in (f"MODEL.MASKCLIPPP.{tower}.MODEL_NAME", "shapes_convnext")
)


@dataclass(frozen=True)
class Step:
    """A process: ``module`` with ``arguments`` and ``--output``; ``options`` come last."""

    name: str
    module: str
    arguments: tuple[str, ...]
    options: tuple[str, ...] = ()


@dataclass
class Outcome:
    """What became of a step: ``status`` ("ok" or what went wrong), seconds, and its report."""

    name: str
    status: str
    seconds: float = 0.0
    report: Any = field(default=None)


def steps(device: str, *, quick: bool) -> Iterator[Step]:
    """All steps, the most important ones first."""
    on = ("--device", device)
    yield Step("checks", "benchmarks.gpu_checks", on + (("--quick",) if quick else ()))
    if quick:
        parts = ("--parts", "encoder", "postprocess", "--against", "plain")
        yield Step("tiny model", "benchmarks.run", (*parts, *_TINY, *on), _TINY_MODEL)
        return
    sizes = ("--image-size", "512", "768", "--classes", "150", "--repeats", "7", *on)
    half = ("--dtype", "bfloat16")
    for model, config in _CONFIGS.items():
        file = ("--config-file", str(REPOSITORY / "configs" / "coco-pan" / f"{config}.yaml"))
        for batch_size in (1, 8, 16):
            arguments = (*file, "--parts", "inference", "--batch-size", str(batch_size))
            name = f"inference of {model}, batch of {batch_size}"
            yield Step(name, "benchmarks.run", (*arguments, *sizes, *half))
    for model, config in _CONFIGS.items():
        file = ("--config-file", str(REPOSITORY / "configs" / "coco-pan" / f"{config}.yaml"))
        ways = ("--variants", "channels_last", "inductor", "cudagraphs")
        encoder = (*file, "--parts", "encoder", "--batch-size", "8", *sizes, *half, *ways)
        yield Step(f"encoder of {model}, eager and compiled", "benchmarks.run", encoder)
        plain = (*file, "--against", "plain", *sizes)
        yield Step(f"training of {model}", "benchmarks.run", (*plain, *half, "--parts", "train"))
        parts = ("--parts", "pixeldecoder", "decoder", "postprocess")
        yield Step(f"parts of {model}", "benchmarks.run", (*plain, *parts))


def run_steps(todo: Iterator[Step], folder: Path, seconds: float) -> list[Outcome]:
    """Run one step after the other until the time is over."""
    end = time.monotonic() + seconds
    done = []
    for number, step in enumerate(todo):
        left = end - time.monotonic()
        if left < 1:
            done.append(Outcome(step.name, "not run: the time was over"))
            continue
        sys.stderr.write(f"{step.name} ({left:.0f} seconds left)\n")
        done.append(_run(step, folder / f"{number:02d}.json", left))
    return done


def _run(step: Step, file: Path, seconds: float) -> Outcome:
    command = [sys.executable, "-m", step.module, *step.arguments, "--output", str(file)]
    start = time.monotonic()
    try:
        with file.with_suffix(".log").open("w") as log:
            code = subprocess.run(
                [*command, *step.options],
                cwd=REPOSITORY,
                stdout=log,
                stderr=subprocess.STDOUT,
                timeout=seconds,
                check=False,
            ).returncode
        status = "ok" if code == 0 else f"exit status {code}: see {log.name}"
    except subprocess.TimeoutExpired:
        status = "stopped: the time was over"
    report = json.loads(file.read_text()) if file.is_file() else None
    return Outcome(step.name, status, time.monotonic() - start, report)


def describe(device: str) -> dict[str, Any]:
    """The machine that the numbers hold for."""
    cuda = torch.device(device).type == "cuda"
    return {
        "card": torch.cuda.get_device_name(device) if cuda else f"none: {platform.machine()} CPU",
        "torch": torch.__version__,
        "CUDA": torch.version.cuda if cuda else None,
        "cuDNN": torch.backends.cudnn.version() if cuda else None,
    }


def as_markdown(machine: dict[str, Any], outcomes: list[Outcome]) -> str:
    """Checks, then speed; every table under the name of the card."""
    parts = [f"# {machine['card']}", ", ".join(f"{k} {v}" for k, v in machine.items())]
    parts.append(
        tabulate(
            [[o.name, o.status, f"{o.seconds:.0f}"] for o in outcomes],
            headers=["step", "status", "seconds"],
            tablefmt="github",
        )
    )
    checks = outcomes[0].report or {}
    lines = [
        [
            name,
            check["problem"] or "passed",
            "; ".join(f"{k}: {v}" for k, v in check["found"].items()),
        ]
        for name, check in checks.items()
    ]
    parts.append(tabulate(lines, headers=["check", "result", "found"], tablefmt="github"))
    peak = next((tera for name, tera in _PEAK.items() if name in machine["card"]), None)
    lines = []
    for outcome in outcomes[1:]:
        for result in (outcome.report or {}).get("results", ()):
            for way in (w for w, r in result.items() if isinstance(r, dict) and "per_second" in r):
                speed, memory = result[way]["per_second"], result[way]["peak_memory_mib"]
                share = ""
                if peak and "tflop" in result:  # of all images of a batch
                    share = f"{result['tflop'] / result[way]['seconds'] / peak:.0%}"
                size = "" if memory is None else f"{memory:.0f}"
                what = f"{result['part']}: {result['what']}"
                lines.append(
                    [outcome.name, what, way, f"{speed:.3g} {result['unit']}/s", size, share]
                )
    headers = ["step", "what", "how", "speed", "peak MiB", "share of bfloat16 peak"]
    parts.append(tabulate(lines, headers=headers, tablefmt="github", disable_numparse=True))
    return "\n\n".join(parts) + "\n"


def main(arguments: list[str] | None = None) -> None:
    """Run all steps and write the report; status 1 if a step failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path("gpu_results"), help="folder")
    parser.add_argument("--minutes", type=float, default=9.5, help="for all steps together")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="tiny models, one step of a kind")
    args = parser.parse_args(arguments)
    folder = args.output.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    todo = steps(args.device, quick=args.quick)
    machine = describe(args.device)
    outcomes = run_steps(todo, folder, args.minutes * 60)
    report = {"machine": machine, "steps": [asdict(outcome) for outcome in outcomes]}
    (folder / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    table = as_markdown(machine, outcomes)
    (folder / "report.md").write_text(table)
    sys.stdout.write(table)
    sys.exit(any(outcome.status != "ok" for outcome in outcomes))


if __name__ == "__main__":
    main()
