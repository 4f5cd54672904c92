"""Models of the transformers library as parts of mask generators: checked, and loaded as data.

The library is imported only here and where such a generator is built: it is an extra, and slow to
import.
"""

import importlib.util
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from safetensors import SafetensorError
from torch import Tensor, nn

from maskclippp.errors import InputError, MissingPackageError, UnreadableFileError
from maskclippp.files.hub import model_folder
from maskclippp.generators.base import MaskGenerator
from maskclippp.registry import SEGMENTOR_REGISTRY

_KEY = "MODEL.MASKCLIPPP.SEGMENTOR.PRETRAINED"


class HubGenerator(MaskGenerator):
    """A mask generator that is a model of the transformers library, with its image processor."""

    def __init__(self, *, model: nn.Module, processor: Any) -> None:
        super().__init__()
        self.model: Any = model
        self.processor = processor

    @classmethod
    def check_config(cls, cfg: CfgNode) -> None:
        """See :class:`MaskGenerator`: the model is here, or is downloaded now."""
        check_hub_model(cfg.MODEL.MASKCLIPPP.SEGMENTOR, cls.hub_model_types)

    def _inputs(self, images: list[Tensor], **options: Any) -> Any:
        """What the processor makes of images uint8 [3, H, W], on the device of the model."""
        device = next(self.model.parameters()).device
        return self.processor(images, return_tensors="pt", device=device, **options)


def check_hub_model(node: CfgNode, model_types: Collection[str]) -> Path:
    """The folder of the model that a config node SEGMENTOR names.

    Args:
        node: with NAME, PRETRAINED and REVISION.
        model_types: ``model_type`` of the architectures that the generator can use.

    Raises:
        MissingPackageError: transformers is not installed.
        MissingFileError, InputError: see :func:`model_folder`; or a model of another task.
    """
    folder, found = _folder_and_type(node)
    if found not in model_types:
        raise InputError(
            f"{_KEY}: {node.PRETRAINED} is a model of the type {found!r}, but {node.NAME} can use "
            f"{sorted(model_types)}; choose such a model, or another SEGMENTOR.NAME"
        )
    return folder


def segmentor_of_hub_model(node: CfgNode) -> str:
    """The registered name of the generator that can use the model of a config node SEGMENTOR.

    Raises:
        MissingPackageError, MissingFileError, InputError: see :func:`check_hub_model`.
    """
    folder, found = _folder_and_type(node)
    types = {kind: name for name, part in SEGMENTOR_REGISTRY for kind in part.hub_model_types}
    if found not in types:
        raise InputError(
            f"{folder} has a model of the type {found!r}, but mask generators can use "
            f"{sorted(types)}"
        )
    return types[found]


def load_model(auto_class: Any, folder: Path) -> Any:
    """A model from a folder, in float32 and evaluation mode; no code in the folder is executed.

    Args:
        auto_class: such as ``transformers.AutoModel``.
        folder: see :func:`check_hub_model`.

    Raises:
        UnreadableFileError: the files are damaged.
        InputError: the weights are those of another architecture or task.
    """
    try:
        model, report = auto_class.from_pretrained(
            folder,
            dtype=torch.float32,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise _unreadable(folder, error) from error
    if missing := sorted(report["missing_keys"]):
        raise InputError(
            f"{_KEY}: {folder} lacks {len(missing)} weights of {type(model).__name__}, such as "
            f"{missing[0]}: it was trained for another task; choose a model that predicts masks"
        )
    return model.eval()


def load_image_processor(folder: Path, **options: Any) -> Any:
    """What prepares images for the model of a folder; ``options`` replace its settings.

    Raises:
        UnreadableFileError: preprocessor_config.json is missing or damaged.
    """
    import transformers

    auto_class: Any = transformers.AutoImageProcessor
    try:
        return auto_class.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, **options
        )
    except (OSError, ValueError) as error:
        raise _unreadable(folder, error) from error


def _folder_and_type(node: CfgNode) -> tuple[Path, str | None]:
    """The folder of the model that SEGMENTOR names, and its ``model_type``."""
    if importlib.util.find_spec("transformers") is None:
        raise MissingPackageError(
            f"SEGMENTOR.NAME: {node.NAME} needs the package transformers: pip install "
            "'maskclippp[transformers]'"
        )
    folder = model_folder(node.PRETRAINED, node.REVISION, _KEY)
    return folder, _read_config(folder).get("model_type")


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = dict(json.loads((folder / "config.json").read_bytes()))
    except (OSError, ValueError, TypeError) as error:
        raise _unreadable(folder, error) from error
    return content


def _unreadable(folder: Path, error: Exception) -> UnreadableFileError:
    reason = str(error).strip().splitlines()[0][:200]
    return UnreadableFileError(f"{_KEY}: the model in {folder} cannot be loaded: {reason}")
