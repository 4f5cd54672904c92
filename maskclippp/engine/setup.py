"""From the command line to a checked configuration and a run directory."""

import argparse
import difflib
import logging
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import default_argument_parser, default_setup, hooks
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from maskclippp import generators
from maskclippp.config.keys import get_cfg
from maskclippp.config.merging import merge_config_file, merge_options
from maskclippp.data.custom import register_custom_datasets
from maskclippp.detectron2_engine import engine_description
from maskclippp.errors import InputError, UnsupportedError
from maskclippp.files.images import allow_pixels
from maskclippp.files.lock import folder_lock
from maskclippp.view_averaging import check_augmentation
from maskclippp.words.sources import (
    KEY,
    evaluation_vocabulary,
    resolved_selection,
    training_vocabulary,
)

logger = logging.getLogger(__name__)


def argument_parser(
    program: str | None = None, examples: str | None = None
) -> argparse.ArgumentParser:
    """detectron2's arguments, and ``--tag``.

    Args:
        program: its name in the usage; default: of the script.
        examples: shown below the options; default: those of detectron2.
    """
    parser: argparse.ArgumentParser = default_argument_parser(epilog=examples)
    parser.prog = program or parser.prog
    parser.add_argument(
        "--tag",
        default="default",
        help="files go to output/<config name>/<tag>; default: month and day, or the newest run if "
        "--resume is given",
    )
    return parser


def build_config(args: argparse.Namespace) -> CfgNode:
    """The frozen configuration that the arguments describe; nothing is written.

    Custom datasets are registered, so every process of a run must call this.

    Raises:
        InputError: a wrong file or option (see :mod:`maskclippp.config.merging`), an unknown
            dataset, or a missing device.
    """
    cfg = get_cfg()
    name = "maskclippp"
    if args.config_file:
        merge_config_file(cfg, args.config_file)
        name = Path(args.config_file).stem
    # Stored in args, so that all processes of a run agree, even around midnight.
    if args.tag == "default":
        args.tag = _default_tag(Path("output") / name, resume=args.resume)
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
        _check_training_masks(cfg)
    _check_vocabularies(cfg)
    if cfg.TEST.AUG.ENABLED:
        check_augmentation(cfg)
    if cfg.TEST.PRECISE_BN.ENABLED and not hasattr(hooks, "PreciseBN"):
        raise UnsupportedError(
            "TEST.PRECISE_BN.ENABLED needs an installed detectron2, but the embedded engine runs: "
            "install detectron2, or set the key to False"
        )
    cfg.freeze()
    return cfg


@contextmanager
def run_folder(folder: Path) -> Iterator[None]:
    """Create the folder of a run and hold its lock; all processes of the run call this.

    Raises:
        InputError: the folder cannot be created, or another run writes it.
    """
    problem = ""
    with ExitStack() as lock:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if comm.is_main_process():
                lock.enter_context(folder_lock(folder))
        except InputError as error:
            problem = str(error)
        except OSError as error:
            problem = (
                f"OUTPUT_DIR {folder} cannot be created or written ({error.strerror}): choose "
                "another one with OUTPUT_DIR <path> at the end of the command"
            )
        # All processes must stop, since the others would wait forever for one that left.
        problems = [text for text in comm.all_gather(problem) if text]
        if problems:
            raise InputError(problems[0])
        yield


def setup(cfg: CfgNode, args: argparse.Namespace) -> None:
    """Set up logs and random seeds, and write the configuration to OUTPUT_DIR.

    Raises:
        InputError: the processes use different vocabularies.
    """
    _check_same_words(cfg)
    default_setup(cfg, args)
    setup_logger(output=cfg.OUTPUT_DIR, distributed_rank=comm.get_rank(), name="maskclippp")
    logger.info(engine_description())


def _default_tag(folder: Path, *, resume: bool) -> str:
    """Month and day; with ``resume``, the newest run in ``folder``, even of another day."""
    runs = [path.parent for path in folder.glob("*/last_checkpoint")] if resume else []
    if runs:
        return max(runs, key=lambda run: (run / "last_checkpoint").stat().st_mtime).name
    return datetime.now().strftime("%m%d")


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
