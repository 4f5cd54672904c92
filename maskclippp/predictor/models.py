"""From a name to a model: configs, entries of the published list, run folders, the Hub."""

import logging
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import torch
from detectron2.config import CfgNode

from maskclippp.alignment import build_psm
from maskclippp.config.keys import get_cfg
from maskclippp.config.merging import merge_config_file
from maskclippp.engine.checkpoint import Checkpointer
from maskclippp.engine.trainer import Trainer
from maskclippp.errors import InputError, MissingFileError, check_choice
from maskclippp.files.hub import HUB_ERRORS, snapshot_folder
from maskclippp.files.published import (
    CONFIGS,
    KINDS,
    Published,
    find_published,
    of_config,
    published,
)
from maskclippp.generators import check_generator, segmentor_of_hub_model
from maskclippp.meta_arch import MaskCLIPpp
from maskclippp.registry import SEGMENTOR_REGISTRY

logger = logging.getLogger(__name__)

SHAPES = "shapes"
DEFAULT = "default"
DEFAULT_CONFIG = CONFIGS / "default" / "finetuned.yaml"
_INITIAL = "initial"
# The fine-tuned checkpoint that is laid over the default model if it is here, and what is
# downloaded without it: image and text tower, and the mask generator, in float32.
_DEFAULT_WEIGHTS = "coco-pan_clip-convnext-base"
_DEFAULT_GIBIBYTES = 0.9
# What a generator reads, besides the sections of MASKCLIPPP below.
_GENERATOR_NODES = ("SEGMENTOR", "VISUAL_ENCODER_F", "TEXT_ENCODER_F", "TEMPLATES_F")
_SHORT_GENERATORS = {"superpixels": "SuperpixelSegmentor"}
_DTYPES = ("auto", "float32", "bfloat16", "float16")


def build_model(
    model: str | Path,
    weights: str | Path | None = None,
    generator: str | None = None,
    device: str | None = None,
    dtype: str = "auto",
    revision: str | None = None,
) -> tuple[CfgNode, MaskCLIPpp]:
    """Build a model for inference.

    Args:
        model: ``shapes`` (the built-in world, no download), ``default`` (for photographs; fetches a
            CLIP and a mask generator when it is first used), the name of a fine-tuned model in the
            published list, the path of a config, a run folder, or the name of a repository on the
            Hub that has ``config.yaml`` and weights.
        weights: a checkpoint; by default that of the model, the folder or the config
            (MODEL.WEIGHTS). "initial": plain CLIP, before any fine-tuning.
        generator: ``superpixels``, the name of a generator in the published list, a registered
            class, a config whose generator is taken, or a model on the Hub; default: of the config.
        device: such as "cuda" or "cpu"; default: CUDA if it is available.
        dtype: "float32", "bfloat16" or "float16"; "auto": bfloat16 on CUDA devices and CPUs that
            compute with it (AVX512-BF16 or AMX), elsewhere what the config says (TEST.DTYPE).
        revision: commit or tag of the Hub repository.

    Returns:
        The config and the model, on its device and in evaluation mode.

    Raises:
        InputError: an unknown name, device or type, unusable files, or a model that is to be
            fine-tuned without its weights.
        MissingFileError: a file that is not here; says how to get it.
    """
    cfg = get_cfg()
    default_weights = _merge_model(cfg, str(model), revision)
    if generator is not None:
        _merge_generator(cfg, generator)
    cfg.DATASETS.TEST = ()
    cfg.MODEL.MASKCLIPPP.TRAIN_MASKS = "ground_truth"
    cfg.MODEL.DEVICE = _device(device)
    cfg.MODEL.MASKCLIPPP.TEST.DTYPE = _dtype(dtype, cfg)
    file = str(weights or default_weights)
    if file == _INITIAL:
        file = ""
        cfg.MODEL.MASKCLIPPP.PSM.NAME = "DummyPSM"
        cfg.MODEL.MASKCLIPPP.USE_LOGIT_SCALE = True
    if file and not Path(file).expanduser().is_file():
        entry = of_config(model) or published().get(str(model))
        remedy = f" (looked in {Path.cwd()})"
        if entry is not None and weights is None:
            remedy = f": {entry.how_to_get()}"
        raise MissingFileError(f"the weights {file} of {model} are not there{remedy}")
    if not file and any(True for _ in build_psm(cfg).parameters()):
        raise InputError(
            f"{model} says neither by MODEL.WEIGHTS nor otherwise which fine-tuned weights it has, "
            f"and its {cfg.MODEL.MASKCLIPPP.PSM.NAME} would be random: give a checkpoint as "
            f"weights, or {_INITIAL!r} for plain CLIP"
        )
    check_generator(cfg)
    built = Trainer.build_model(cfg).eval()
    if not isinstance(built, MaskCLIPpp):
        raise InputError(f"{model}: MODEL.META_ARCHITECTURE is not MaskCLIPpp")
    if file:
        Checkpointer(built).load(str(Path(file).expanduser()), checkpointables=[])
    return cfg, built


def _merge_model(cfg: CfgNode, model: str, revision: str | None) -> str:
    """Merge the model's config; the path of its checkpoint, "" for none."""
    if model == SHAPES:
        merge_config_file(cfg, CONFIGS / "shapes" / "plain_clip_fcclip.yaml")
        return ""
    if model == DEFAULT:
        return _merge_default(cfg)
    path = Path(model).expanduser()
    entry = published().get(model)
    if entry is not None and entry.kind != "model":
        raise InputError(
            f"{model!r} is a {entry.kind}, not a model"
            + ("; pass it as generator" if entry.kind == "generator" else "")
        )
    if entry is not None:
        merge_config_file(cfg, entry.config_file)
        return entry.path
    if path.is_dir():
        return _merge_folder(cfg, path)
    if path.suffix in (".yaml", ".yml"):
        merge_config_file(cfg, path)
        entry = of_config(path)
        return str(cfg.MODEL.WEIGHTS or (entry.path if entry else ""))
    if model.count("/") == 1:
        return _merge_folder(cfg, _from_hub(model, revision))
    return find_published(model, SHAPES, DEFAULT).path  # raises an InputError


def _merge_default(cfg: CfgNode) -> str:
    """The fine-tuned model if its checkpoint is here, else plain CLIP; says which, and its size."""
    entry = published()[_DEFAULT_WEIGHTS]
    is_tuned = entry.local is not None and entry.local.is_file()
    merge_config_file(cfg, DEFAULT_CONFIG)
    node = cfg.MODEL.MASKCLIPPP
    logger.warning(
        "The default model is %s with masks of %s; what is not here of them, at most %.1f GiB, is "
        "downloaded into %s%s",
        *(node.VISUAL_ENCODER.MODEL_NAME, node.SEGMENTOR.PRETRAINED, _DEFAULT_GIBIBYTES),
        huggingface_hub.constants.HF_HUB_CACHE,
        "" if is_tuned else f". It is plain CLIP: for the fine-tuned weights {entry.how_to_get()}",
    )
    return entry.path if is_tuned else _INITIAL


def _merge_folder(cfg: CfgNode, folder: Path) -> str:
    """A run folder, or one from the Hub: ``config.yaml`` and a checkpoint."""
    if not (folder / "config.yaml").is_file():
        raise MissingFileError(f"{folder} has no config.yaml: expected the folder of a run")
    merge_config_file(cfg, folder / "config.yaml")
    newest = Checkpointer(torch.nn.Module(), str(folder)).get_checkpoint_file()
    others = sorted(file for end in ("safetensors", "pth") for file in folder.glob(f"*.{end}"))
    if newest:
        return newest
    if not others:
        raise MissingFileError(f"{folder} has config.yaml, but no checkpoint (.pth, .safetensors)")
    return str(others[0])


def _from_hub(name: str, revision: str | None) -> Path:
    try:
        return snapshot_folder(name, revision, ["config.yaml", "*.safetensors", "*.pth"])
    except HUB_ERRORS as error:
        reason = str(error).split("\n", maxsplit=1)[0]
        raise MissingFileError(
            f"{name} is neither here nor could it be fetched from the Hugging Face Hub "
            f"({reason}); without a network, download it elsewhere and give the folder"
        ) from error


def _merge_generator(cfg: CfgNode, name: str) -> None:
    """Replace the generator of a config, with all that belongs to it."""
    node, entry = cfg.MODEL.MASKCLIPPP, published().get(name)
    registered = _SHORT_GENERATORS.get(name, name)
    if registered in SEGMENTOR_REGISTRY:
        node.SEGMENTOR.NAME = registered
    elif entry is not None and entry.kind == "generator":
        _take_generator(cfg, entry.config_file)
    elif name == SHAPES:
        _take_generator(cfg, CONFIGS / "shapes" / "plain_clip_fcclip.yaml")
    elif Path(name).suffix in (".yaml", ".yml"):
        _take_generator(cfg, Path(name))
    elif "/" in name or Path(name).is_dir():
        node.SEGMENTOR.PRETRAINED = name
        node.SEGMENTOR.NAME = segmentor_of_hub_model(node.SEGMENTOR)
    else:
        names = [e.name for e in published().values() if e.kind == "generator"]
        raise InputError(
            f"generator {name!r} is not one of {[*_SHORT_GENERATORS, SHAPES, *names]}, a "
            "registered class, a config or a model on the Hub"
        )


def _take_generator(cfg: CfgNode, config: Path) -> None:
    donor = get_cfg()
    merge_config_file(donor, config)
    for key in _GENERATOR_NODES:
        cfg.MODEL.MASKCLIPPP[key] = donor.MODEL.MASKCLIPPP[key]
    test = cfg.MODEL.MASK_FORMER.TEST
    for key in ("SEM_SEG_HEAD", "SWIN", "MASK_FORMER"):
        cfg.MODEL[key] = donor.MODEL[key]
    cfg.MODEL.MASK_FORMER.TEST = test


def _device(device: str | None) -> str:
    if device is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).split("\n", maxsplit=1)[0]
        raise InputError(f"device {device!r} cannot be used: {reason}") from error
    return device


def _dtype(dtype: str, cfg: Any) -> str:
    check_choice("dtype", dtype, _DTYPES)
    if dtype != "auto":
        return dtype
    fast = computes_bfloat16(torch.device(cfg.MODEL.DEVICE))
    return "bfloat16" if fast else str(cfg.MODEL.MASKCLIPPP.TEST.DTYPE)


def computes_bfloat16(device: torch.device) -> bool:
    """Whether a device has instructions for bfloat16; others emulate it, slower than float32."""
    if device.type == "cpu":
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return device.type == "cuda" and torch.cuda.is_bf16_supported()


def list_models(kind: str | None = None) -> list[Published]:
    """The published models, generators and CLIPs; ``kind``: "model", "generator" or "clip"."""
    if kind is not None:
        check_choice("kind", kind, KINDS)
    return [entry for entry in published().values() if kind in (None, entry.kind)]
