"""From the command line to a checked configuration and a run directory."""

import argparse
import difflib
import logging
import re
import sys
from datetime import datetime
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import hooks
from detectron2.utils import comm
from detectron2.utils.collect_env import collect_env_info
from detectron2.utils.env import seed_all_rng
from detectron2.utils.logger import setup_logger

from maskclippp import generators
from maskclippp.config.keys import get_cfg
from maskclippp.config.merging import merge_config_file, merge_options
from maskclippp.data.custom import register_custom_datasets
from maskclippp.data.test_loader import checked_batch_size
from maskclippp.devices import set_float32_precision
from maskclippp.engine.progress import JOURNALS
from maskclippp.errors import InputError, UnsupportedError
from maskclippp.files.images import allow_pixels
from maskclippp.view_averaging import check_augmentation
from maskclippp.words.sources import (
    KEY,
    evaluation_vocabulary,
    resolved_selection,
    training_vocabulary,
)

_SEEDS = 2**32  # NumPy takes smaller ones
logger = logging.getLogger(__name__)


def choose_device(args: argparse.Namespace) -> None:
    """Set ``--num-gpus`` if it is not given: 1 where CUDA is available, else 0, the CPU."""
    if args.num_gpus is None:
        args.num_gpus = int(torch.cuda.is_available())


def build_config(args: argparse.Namespace) -> CfgNode:
    """The frozen configuration that the arguments describe; nothing is written.

    Custom datasets are registered, so every process of a run must call this.

    Raises:
        InputError: a wrong file or option (see :mod:`maskclippp.config.merging`), an unknown
            dataset, or a missing device.
    """
    choose_device(args)
    cfg = get_cfg()
    name = "maskclippp"
    if args.config_file:
        merge_config_file(cfg, args.config_file)
        name = Path(args.config_file).stem
    # Stored in args, so that all processes of a run agree, even around midnight.
    if args.tag == "default" and not getattr(args, "tag_is_told", False):
        untold = args.eval_only and "MODEL.WEIGHTS" not in args.opts[::2] and not cfg.MODEL.WEIGHTS
        args.tag = _default_tag(
            Path("output") / name,
            newest=bool(args.resume) or (untold and not means_initial_weights(cfg)),
            unfinished=args.eval_only and bool(args.resume),
        )
    if not args.tag or Path(args.tag).is_absolute() or ".." in Path(args.tag).parts:
        raise InputError(
            f"--tag names a folder in output/{name}, found {args.tag!r}; to write elsewhere, set "
            "OUTPUT_DIR"
        )
    cfg.OUTPUT_DIR = str(Path("output") / name / args.tag)
    merge_options(cfg, args.opts)
    if args.num_gpus == 0:
        cfg.MODEL.DEVICE = "cpu"
    _check_device(cfg.MODEL.DEVICE, args.num_gpus)
    allow_pixels(cfg.INPUT.MAX_IMAGE_PIXELS)
    register_custom_datasets(cfg.DATASETS.CUSTOM)
    _check_datasets(cfg, for_training=not args.eval_only)
    _switch_on_instances(cfg)
    if not args.eval_only:
        if cfg.SOLVER.MAX_ITER < 1:
            raise InputError(
                f"SOLVER.MAX_ITER is {cfg.SOLVER.MAX_ITER}: expected at least one iteration; "
                "--eval-only evaluates without training"
            )
        _check_training_masks(cfg)
    _check_vocabularies(cfg)
    checked_batch_size(cfg)
    if cfg.SEED + comm.get_world_size() > _SEEDS:
        raise InputError(f"SEED: expected a number below 2**32, found {cfg.SEED}")
    if cfg.TEST.AUG.ENABLED:
        check_augmentation(cfg)
    if cfg.TEST.PRECISE_BN.ENABLED and not hasattr(hooks, "PreciseBN"):
        raise UnsupportedError(
            "TEST.PRECISE_BN.ENABLED needs an installed detectron2, but the embedded engine runs: "
            "install detectron2, or set the key to False"
        )
    cfg.freeze()
    return cfg


def setup(cfg: CfgNode, args: argparse.Namespace) -> None:
    """Set up logs and random seeds, as detectron2's default_setup does.

    What helps to repeat a run or to report a bug goes to the log file only.

    Raises:
        InputError: the processes use different vocabularies.
    """
    _check_same_words(cfg)
    rank = comm.get_rank()
    for name in ("fvcore", "detectron2", "maskclippp"):
        setup_logger(cfg.OUTPUT_DIR, distributed_rank=rank, name=name)
        for handler in logging.getLogger(name).handlers:
            if getattr(handler, "stream", None) is sys.stdout:
                handler.addFilter(lambda record: not getattr(record, "only_in_file", False))
    for title, text in (
        ("Process", f"rank {rank} of {comm.get_world_size()}"),
        ("Environment", collect_env_info()),
        ("Command line arguments", str(args)),
        ("Configuration", cfg.dump()),
    ):
        logger.info("%s:\n%s", title, text, extra={"only_in_file": True})
    seed_all_rng(None if cfg.SEED < 0 else cfg.SEED + rank)
    if not args.eval_only:  # images of evaluation have too many sizes
        torch.backends.cudnn.benchmark = cfg.CUDNN_BENCHMARK
    set_float32_precision(cfg.FLOAT32_PRECISION)


def _default_tag(folder: Path, *, newest: bool, unfinished: bool) -> str:
    """Date and time, or the newest run in ``folder`` that can be continued.

    Args:
        newest: take the run with the newest checkpoint, if there is one,
        unfinished: or the newest unfinished evaluation.
    """
    marks = list(folder.glob("*/last_checkpoint")) if newest else []
    if unfinished:
        marks += folder.glob(f"*/inference*/*/{JOURNALS}")
    if marks:
        return max(marks, key=lambda mark: mark.stat().st_mtime).relative_to(folder).parts[0]
    return datetime.now().strftime("%Y%m%d-%H%M%S")


def means_initial_weights(cfg: CfgNode) -> bool:
    """Whether an evaluation without a checkpoint makes sense: nothing of the model is trained.

    So it is with plain CLIP, and where the annotation gives the classes.
    """
    node = cfg.MODEL.MASKCLIPPP
    tuned = (node.VISUAL_ENCODER.FINETUNE_TYPE, node.TEXT_ENCODER.FINETUNE_TYPE)
    return (node.PSM.NAME == "DummyPSM" and set(tuned) <= {"none", ""}) or node.TEST.SEGMENTOR_ONLY


def _check_device(device: str, num_gpus: int) -> None:
    """Raise an InputError if the processes cannot run on ``device``."""
    if re.fullmatch(r"cpu|mps|cuda(:\d+)?", str(device)) is None:
        raise InputError(f"MODEL.DEVICE: expected cuda, cuda:N, mps or cpu, found {device!r}")
    if not device.startswith("cuda"):
        return
    remedy = (
        "use --num-gpus 0 to run on the CPU, or --num-gpus N MODEL.DEVICE cpu for N processes on it"
    )
    if not torch.cuda.is_available():
        raise InputError(
            f"MODEL.DEVICE is {device!r} and --num-gpus {num_gpus}, but CUDA is not available: "
            f"{remedy}"
        )
    if num_gpus > torch.cuda.device_count():
        raise InputError(
            f"--num-gpus {num_gpus}, but there are {torch.cuda.device_count()} CUDA devices: "
            f"lower --num-gpus, or {remedy}"
        )


def _check_datasets(cfg: CfgNode, *, for_training: bool) -> None:
    """Raise an InputError if a required dataset is missing or unknown."""
    for key in ("TRAIN", "TEST"):
        wrong = [name for name in cfg.DATASETS[key] if not isinstance(name, str)]
        if wrong:
            raise InputError(
                f"DATASETS.{key}: expected names of datasets such as ('shapes_val',), found "
                f"{wrong[0]!r}"
            )
    keys = ("TRAIN", "TEST") if for_training else ("TEST",)
    if not cfg.DATASETS[keys[0]]:
        raise InputError(f"DATASETS.{keys[0]} is empty: name at least one dataset")
    known = DatasetCatalog.list()
    for key in keys:
        for name in cfg.DATASETS[key]:
            if not isinstance(name, str):
                raise InputError(f"DATASETS.{key}: expected names of datasets, found {name!r}")
            if name not in known:
                similar = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
                raise InputError(
                    f"DATASETS.{key}: no dataset is registered as {name!r}; "
                    f"similar names: {', '.join(similar) or 'none'} (maskclippp datasets lists "
                    "all). Override it, for example with "
                    f"DATASETS.{key} \"('{(similar or known)[0]}',)\""
                    + ('; "()" trains without evaluation' if key == "TEST" else "")
                )


def _switch_on_instances(cfg: CfgNode) -> None:
    """Let the model return instances if test sets have nothing else to be evaluated on."""
    protocol = cfg.MODEL.MASKCLIPPP.TEST
    if protocol.MASK_ACC or protocol.SEGMENTOR_ONLY:
        return  # only masks are evaluated
    kinds = {MetadataCatalog.get(name).get("evaluator_type", "") for name in cfg.DATASETS.TEST}
    if kinds & {"coco", "lvis"}:
        cfg.MODEL.MASK_FORMER.TEST.INSTANCE_ON = True


def _check_training_masks(cfg: CfgNode) -> None:
    """Raise an InputError if the generator has no masks of the images of a training step.

    Training images are cropped and flipped; they carry the masks and classes of their annotation,
    but not the annotation itself.
    """
    node = cfg.MODEL.MASKCLIPPP
    if node.TRAIN_MASKS != "segmentor":
        return
    generator = generators.check_generator(cfg)
    if generator.reads_mask_files:
        raise InputError(
            f"MODEL.MASKCLIPPP.TRAIN_MASKS segmentor: the files that {node.SEGMENTOR.NAME} reads "
            "hold masks of whole images, but training images are cropped and flipped; choose "
            "another MODEL.MASKCLIPPP.SEGMENTOR.NAME, or set TRAIN_MASKS ground_truth"
        )
    if generator.needs_ground_truth:
        raise InputError(
            "MODEL.MASKCLIPPP.TRAIN_MASKS segmentor trains on generated masks, but "
            f"MODEL.MASKCLIPPP.SEGMENTOR.NAME {node.SEGMENTOR.NAME} returns the annotated ones: "
            "set TRAIN_MASKS ground_truth to train on annotated masks, or choose another "
            "SEGMENTOR.NAME"
        )


def _check_vocabularies(cfg: CfgNode) -> None:
    """Raise the InputError of :mod:`maskclippp.words.sources` if a vocabulary is missing."""
    selection = cfg.DATASETS.VOCABULARY
    if selection in ("auto", "builtin"):
        return  # the model reports missing vocabularies
    training_vocabulary(cfg.DATASETS.TRAIN, selection)
    for name in cfg.DATASETS.TEST:
        evaluation_vocabulary(name, selection)


def _check_same_words(cfg: CfgNode) -> None:
    """Raise an InputError if processes, perhaps on several machines, disagree on the words."""
    found = sorted(set(comm.all_gather(resolved_selection(cfg.DATASETS.VOCABULARY))))
    if len(found) > 1:
        raise InputError(
            f"{KEY} auto means {' and '.join(found)} on different machines of this run: download "
            f"the class lists on all of them, or set {KEY} builtin"
        )
