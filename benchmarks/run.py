"""Measure the parts of any config, and the whole model stage by stage.

    python -m benchmarks.run [--config-file configs/...yaml] [--parts text encoder ...]
        [--against plain] [--output benchmark.json] [sizes] [KEY VALUE ...]

Weights are random, nothing is downloaded. Without a config file, the published ConvNeXt-B mask
classifier is taken. With ``--against plain`` each part is compared, in interleaved runs, with
the straightforward formulation in ``benchmarks/plain``; both must first give the same result.
``--variants`` also runs the encoder in other ways; training and inference know ``bfloat16``.
Further parts:

- masktokens: the blocks of vision transformers that have mask tokens;
- pixeldecoder, decoder: those of the config's mask generator, on images of ``--generator-size``;
- inference: an image of ``--image-size``, brought to the test size of the config, through the whole
  model, and how its time is divided: see model_stages.py for what is made up;
- folder, words: what people wait for: a folder of images, against the evaluation loop, and other
  words for an encoded image.

For these parts but the first, FC-CLIP-L's published config is the default. Tables of all encoders
and of all generators: ``benchmarks.tables``.

Time is the median of ``--repeats`` runs: of the clock, or with ``--cpu-time``, on a busy machine,
that of all threads of the process. Memory is how much the peak grows while the part runs once: of
tensors on CUDA, or of the process's resident memory on a CPU.
"""

import argparse
import importlib
import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from tabulate import tabulate

from benchmarks import (
    classifier_parts,
    encoder_parts,
    generator_parts,
    model_stages,
    predictor_parts,
    training_step,
)
from benchmarks.measure import Measurement
from benchmarks.workload import (
    OURS,
    PLAIN,
    Bench,
    Row,
    Workload,
    name_random_weights,
    register_classes,
)
from maskclippp.clip import VisualEncoder, build_visual_encoder
from maskclippp.clip.open_clip_models import load_text_tower
from maskclippp.clip.visual_encoder import FeatureShape
from maskclippp.config.keys import get_cfg
from maskclippp.config.merging import merge_config_file, merge_options
from maskclippp.devices import set_float32_precision
from maskclippp.errors import exit_on_bad_input
from maskclippp.generators.mask2former.segmentor import MaskTransformerSegmentor
from maskclippp.meta_arch import MaskCLIPpp

REPOSITORY = Path(__file__).resolve().parents[1]

PARTS = ("text", "encoder", "postprocess", "train")  # of every model
GENERATOR_PARTS = ("pixeldecoder", "decoder", "inference", "folder", "words")
ALL_PARTS = (*PARTS, "masktokens", *GENERATOR_PARTS)
GENERATOR_CONFIG = (
    *("configs", "coco-pan", "clip-convnext-large", "fcclip-l"),
    "maskclippp_coco-pan_clip-convnext-large_fcclip-l.yaml",
)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
MIB = 2**20
# Options that are fields of the workload: positive numbers, and pairs of them.
NUMBERS = {
    "classes": "in the vocabulary",
    "batch_size": "images",
    "masks": "per image",
    "mask_stride": "pixels per mask pixel",
    "train_masks": "per image, for train",
    "repeats": "timed runs",
}
SIZES = {
    "image_size": "pixels",
    "grid": "cells of the feature grid, for masktokens",
    "generator_size": "pixels, for pixeldecoder and decoder",
}


def main(arguments: list[str] | None = None) -> None:
    """Measure what the command line asks for; print a table, write JSON."""
    args = parse_arguments(arguments)
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    sizes = {name: getattr(args, name) for name in NUMBERS}
    sizes |= {name: tuple(getattr(args, name)) for name in SIZES}
    workload = Workload(**sizes, dtype=DTYPES[args.dtype])
    cfg = build_config(args, workload.classes)
    set_float32_precision(cfg.FLOAT32_PRECISION)
    plain = importlib.import_module("benchmarks.plain.model") if args.against else None
    clock = time.process_time if args.cpu_time else time.perf_counter
    bench = Bench(workload, torch.device(cfg.MODEL.DEVICE), plain, clock)
    models = Models(cfg)
    rows = [row for part in args.parts for row in run_part(part, bench, models, args.variants)]
    report = {"environment": describe(args, cfg), "results": [as_json(row) for row in rows]}
    sys.stdout.write(as_table(rows) + "\n")
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps(report, indent=2) + "\n")


class Models:
    """The models that parts ask for, built when they do."""

    def __init__(self, cfg: CfgNode) -> None:
        self.cfg = cfg

    @cached_property
    def whole(self) -> MaskCLIPpp:
        """Both towers and all that belongs to them."""
        return MaskCLIPpp(self._without_generator()).to(self.cfg.MODEL.DEVICE)

    @cached_property
    def trained(self) -> MaskCLIPpp:
        """For training steps."""
        return training_step.build(self._without_generator())

    @cached_property
    def encoder(self) -> VisualEncoder:
        """The whole model's if it is there already, else the image tower alone."""
        if "whole" in vars(self):
            return self.whole.visual_encoder
        node = self.cfg.MODEL.MASKCLIPPP.VISUAL_ENCODER
        return build_visual_encoder(node).to(self.cfg.MODEL.DEVICE)

    @cached_property
    def decoders(self) -> tuple[MaskTransformerSegmentor, dict[str, FeatureShape]]:
        """Of the mask generator, and the maps that they read."""
        return generator_parts.build_decoders(model_stages.without_text_towers(self.cfg))

    def _without_generator(self) -> CfgNode:
        """Made-up masks are measured: none is generated."""
        cfg = self.cfg.clone()
        cfg.MODEL.MASKCLIPPP.SEGMENTOR.NAME = "SuperpixelSegmentor"
        return cfg

    def parameters(self) -> dict[str, float]:
        """Millions of parameters per tower."""
        with torch.device("meta"):  # only counted, and without the tokenizer, a file of its own
            text, _ = load_text_tower(self.cfg.MODEL.MASKCLIPPP.TEXT_ENCODER)
        towers = {"image": self.encoder, "text": text}
        return {
            name: sum(p.numel() for p in tower.parameters()) / 1e6 for name, tower in towers.items()
        }


def run_part(part: str, bench: Bench, models: Models, variants: list[str]) -> Iterator[Row]:
    """Measure one part."""
    if part == "text":
        return classifier_parts.text(bench, models.whole)
    if part == "encoder":
        return encoder_parts.encoder(bench, models.encoder, models.parameters(), variants)
    if part == "masktokens":
        return encoder_parts.mask_tokens(bench, models.encoder)
    if part == "pixeldecoder":
        return generator_parts.pixel_decoder(bench, *models.decoders)
    if part == "decoder":
        return generator_parts.decoder(bench, *models.decoders)
    if part == "inference":
        return model_stages.inference(bench, models.cfg, variants)
    if part == "folder":
        return predictor_parts.folder(bench, models.cfg)
    if part == "words":
        return predictor_parts.other_words(bench, models.cfg)
    if part == "postprocess":
        return classifier_parts.postprocess(bench)
    return training_step.train(bench, models.cfg, models.trained, variants)


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """The command line; see --help."""
    default = Workload()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", type=Path)
    parser.add_argument("--parts", nargs="+", choices=ALL_PARTS, default=PARTS)
    parser.add_argument("--against", choices=[PLAIN], help="what to compare with")
    parser.add_argument(
        "--variants",
        nargs="+",
        choices=encoder_parts.VARIANTS,
        default=[],
        metavar="WAY",
        help="other ways to run the encoder: bfloat16, channels_last, a backend of torch.compile",
    )
    parser.add_argument("--output", type=Path, help="JSON file")
    for name, meaning in (NUMBERS | SIZES).items():
        pair: dict[str, Any] = {"nargs": 2, "metavar": ("H", "W")} if name in SIZES else {}
        option, value = f"--{name.replace('_', '-')}", getattr(default, name)
        parser.add_argument(option, type=_positive, default=value, help=meaning, **pair)
    parser.add_argument("--threads", type=_positive, help="CPU threads; default: PyTorch's choice")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=sorted(DTYPES), default="float32", help="of autocast")
    parser.add_argument("--cpu-time", action="store_true", help="seconds of the CPU")
    parser.add_argument("--channels-last", action="store_true", help="memory format of the encoder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("options", nargs=argparse.REMAINDER, metavar="KEY VALUE")
    return parser.parse_args(arguments)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a positive number, found {value}")
    return value


def build_config(args: argparse.Namespace, num_classes: int) -> CfgNode:
    """The config of the command line, with random weights and made-up words."""
    cfg = get_cfg()
    node = cfg.MODEL.MASKCLIPPP
    if args.config_file:
        merge_config_file(cfg, args.config_file)
    elif set(GENERATOR_PARTS) & set(args.parts):
        merge_config_file(cfg, REPOSITORY.joinpath(*GENERATOR_CONFIG))
    else:
        cfg.INPUT.FORMAT = "RGB"
        node.VISUAL_ENCODER.NAME, node.TEXT_ENCODER.NAME = "CLIPConvNeXt", "CLIPTextEncoder"
        for tower in (node.VISUAL_ENCODER, node.TEXT_ENCODER):
            tower.MODEL_NAME = "convnext_base_w_320"
        node.VISUAL_ENCODER.MASK_PRIOR_BEG = 5
        node.VISUAL_ENCODER.FINETUNE_TYPE = "all"
        node.VISUAL_ENCODER.SIZE_DIVISIBILITY = 32
        node.PSM.NAME = "LinearPSM"
    merge_options(cfg, args.options)
    name_random_weights(cfg)
    if args.channels_last:
        node.VISUAL_ENCODER.CHANNELS_LAST = node.VISUAL_ENCODER_F.CHANNELS_LAST = True
    cfg.MODEL.DEVICE = args.device
    cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = (register_classes(num_classes),)
    return cfg


def describe(args: argparse.Namespace, cfg: CfgNode) -> dict[str, Any]:
    """What the numbers hold for."""
    cuda = torch.device(args.device).type == "cuda"
    return {
        "model": cfg.MODEL.MASKCLIPPP.VISUAL_ENCODER.MODEL_NAME,
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(args.device) if cuda else platform.machine(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "arguments": {key: _plain_value(value) for key, value in vars(args).items()},
    }


def _plain_value(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def as_json(row: Row) -> dict[str, Any]:
    """One result; ``..._over_ours`` tells how many times as much as ours the others take."""
    entry: dict[str, Any] = {"part": row.part, "what": row.what, "unit": row.unit, **row.details}
    for name, run in row.runs.items():
        entry[name] = {
            "seconds": run.median,
            "all_seconds": list(run.seconds),
            "per_second": row.items / run.median,
            "peak_memory_mib": None if run.peak_memory is None else run.peak_memory / MIB,
        }
    others = {name: run for name, run in row.runs.items() if name != OURS}
    ours = row.runs[OURS]
    entry["time_over_ours"] = {name: run.median / ours.median for name, run in others.items()}
    entry["memory_over_ours"] = {name: _memory_ratio(run, ours) for name, run in others.items()}
    return entry


def _memory_ratio(run: Measurement, ours: Measurement) -> float | None:
    return run.peak_memory / ours.peak_memory if run.peak_memory and ours.peak_memory else None


def as_table(rows: list[Row]) -> str:
    """One line per measurement."""
    lines = []
    for row in rows:
        for name, run in row.runs.items():
            ratio = run.median / row.runs[OURS].median
            memory = "-" if run.peak_memory is None else f"{run.peak_memory / MIB:.0f}"
            speed = f"{row.items / run.median:.3g} {row.unit}/s"
            more = _memory_ratio(run, row.runs[OURS])
            lines.append([row.part, row.what, name, run.median, speed, memory, ratio, more])
    headers = ["part", "what", "how", "seconds", "speed", "peak MiB", "time / ours", "peak / ours"]
    return tabulate(lines, headers=headers, floatfmt=(*[""] * 3, ".4g", "", "", ".3g", ".3g"))


if __name__ == "__main__":
    with exit_on_bad_input():
        main()
