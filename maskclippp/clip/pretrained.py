"""Sources of pretrained CLIP weights: ``PRETRAINED`` and ``LOAD_FROM`` of a config.

``PRETRAINED`` is one of: a tag of the model in open_clip (downloaded once, unless the file
``pretrained/<model>-<tag>.<suffix>`` exists), the path of a file, ``eva_clip`` | ``eva01_clip`` |
``eva02_clip`` for the only weights of an EVA model, ``shapes`` for the model that ships with the
package, or ``random``.
"""

import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import huggingface_hub
import huggingface_hub.constants
from detectron2.config import CfgNode
from huggingface_hub.errors import HTTPError
from open_clip.constants import HF_SAFE_WEIGHTS_NAME
from open_clip.pretrained import download_pretrained, get_pretrained_cfg
from open_clip.pretrained import list_pretrained_tags_by_model as list_tags
from torch import Tensor

from maskclippp.clip.model_names import model_config, nearest, open_clip_name
from maskclippp.clip.weight_layouts import ClipWeights, split_clip_state
from maskclippp.errors import InputError, MissingFileError
from maskclippp.files.json_files import read_json
from maskclippp.files.shards import weights_in
from maskclippp.files.weights import read_weights

logger = logging.getLogger(__name__)

_TIMEOUT_SECONDS = 10
_TABLE, _TOKENS = "token_embedding.weight", "token_embedding.tokens"

_PACKAGE = Path(__file__).resolve().parents[1]
_SHIPPED_WEIGHTS = {"shapes": _PACKAGE / "data" / "shapes" / "weights" / "shapes_clip.safetensors"}

# Names in published configs, and the prefix of the models that they are for.
_EVA_ALIASES = {"eva_clip": "EVA0", "eva01_clip": "EVA01-", "eva02_clip": "EVA02-"}
# Files published by the EVA-CLIP project, in the folder where published configs expect them.
_FOLDER = Path("pretrained")
_EVA_FOLDER = _FOLDER / "eva_clip"
_EVA_FILES = {
    "EVA01-g-14": "EVA01_CLIP_g_14_psz14_s11B.pt",
    "EVA01-g-14-plus": "EVA01_CLIP_g_14_plus_psz14_s11B.pt",
    "EVA02-B-16": "EVA02_CLIP_B_psz16_s8B.pt",
    "EVA02-L-14": "EVA02_CLIP_L_psz14_s4B.pt",
    "EVA02-L-14-336": "EVA02_CLIP_L_336_psz14_s6B.pt",
}


@dataclass(frozen=True)
class PretrainedFile:
    """A file of CLIP weights; ``quick_gelu``: they are known to need QuickGELU."""

    path: Path
    quick_gelu: bool = False


def read_pretrained(node: CfgNode, tower: Literal["visual", "text"]) -> ClipWeights | None:
    """The CLIP weights that a config node names; None for random ones.

    The keys of ``LOAD_FROM`` that start with ``LOAD_BEG_KEY`` override those of ``PRETRAINED``.

    Args:
        node: of either kind of tower.
        tower: the tower to load; ``LOAD_FROM`` must contain weights for it.

    Raises:
        MissingFileError: the file does not exist and cannot be downloaded.
        InputError: unknown names, or unusable files.
    """
    weights = None
    if node.PRETRAINED != "random":
        file = find_pretrained(node.MODEL_NAME, node.PRETRAINED)
        logger.info("Loading %s from %s", node.MODEL_NAME, file.path)
        state = with_all_tokens(read_weights(file.path), node.MODEL_NAME)
        weights = split_clip_state(state, source=node.PRETRAINED)
        weights.quick_gelu |= file.quick_gelu
    if node.LOAD_FROM:
        later = _read_later(node, tower)
        weights = later if weights is None else weights.overlaid(later)
    return weights


def with_all_tokens(state: Mapping[str, Tensor], model_name: str) -> Mapping[str, Tensor]:
    """The state with a whole token table, if it has rows for some tokens only.

    Such a file has int64 ids [R] in ``token_embedding.tokens`` and their rows [R, W] in
    ``token_embedding.weight``. The rows of all other tokens are zero.
    """
    if _TOKENS not in state:
        return state
    rows = state[_TABLE]
    table = rows.new_zeros(model_config(model_name)["text_cfg"]["vocab_size"], rows.shape[1])
    table[state[_TOKENS]] = rows
    return {**{key: value for key, value in state.items() if key != _TOKENS}, _TABLE: table}


def find_pretrained(model_name: str, pretrained: str, *, download: bool = True) -> PretrainedFile:
    """The file that ``PRETRAINED`` names for a model, downloaded if it is a tag of open_clip.

    Raises:
        MissingFileError: the download failed, or the file is absent and ``download`` is False.
        InputError: neither a file nor a tag; lists the tags of the model.
    """
    if pretrained in _SHIPPED_WEIGHTS:
        return PretrainedFile(_SHIPPED_WEIGHTS[pretrained])
    path = _local(Path(pretrained).expanduser())
    if pretrained and path.is_file():
        return PretrainedFile(path, _needs_quick_gelu(path))
    name = open_clip_name(model_name)
    tags = list_tags(name)
    tag = pretrained
    if pretrained in _EVA_ALIASES and name.startswith(_EVA_ALIASES[pretrained]):
        original = _EVA_FOLDER / _EVA_FILES.get(name, "")
        if original.is_file():
            return PretrainedFile(original)
        tag = tags[0] if len(tags) == 1 else pretrained
    settings = get_pretrained_cfg(name, tag)
    if not settings:
        raise InputError(
            f"PRETRAINED: {pretrained!r} is neither an existing file nor a tag of {model_name!r}"
            f"{_near_tags(tag, tags)}; its tags are {tags or 'none'}, 'random' gives untrained "
            "weights"
        )
    path = _file_of_tag(name, tag, settings, download=download)
    return PretrainedFile(path, settings.get("quick_gelu", False))


def _needs_quick_gelu(path: Path) -> bool:
    """Whether the ``config.json`` of Hugging Face's transformers beside the weights says so."""
    config = path.parent / "config.json"
    if not config.is_file():
        return False
    content: Any = read_json(config, Any, f"the configuration of {path.name}")
    towers = [content, *content.values()] if isinstance(content, dict) else []
    return any(isinstance(t, dict) and t.get("hidden_act") == "quick_gelu" for t in towers)


def _local(path: Path) -> Path:
    """The path, or that of the weights in the folder that it names."""
    return (weights_in(path) if path.is_dir() else None) or path


def _near_tags(tag: str, tags: list[str]) -> str:
    near = nearest(tag.replace("-", "_"), tags)
    return f" (did you mean {' or '.join(near)}?)" if near else ""


def _file_of_tag(name: str, tag: str, settings: dict[str, Any], *, download: bool) -> Path:
    """The file of a tag: placed by hand, in open_clip's cache, or downloaded into it."""
    origin, file_name = _origin(settings)
    by_hand = _FOLDER / f"{name}-{tag}{Path(file_name).suffix}"
    if by_hand.is_file():
        return by_hand
    try:
        return _fetched(settings) if download else _cached(settings)
    except (OSError, RuntimeError, HTTPError) as error:
        original = (
            f" (or {_EVA_FILES[name]} of EVA-CLIP, put into {_EVA_FOLDER})"
            if name in _EVA_FILES
            else ""
        )
        raise MissingFileError(
            f"PRETRAINED: the weights {tag!r} of {name!r} are not on this machine and could not "
            f"be downloaded ({error}). Download {origin} elsewhere and put the file at {by_hand} "
            f"in the working directory{original}"
        ) from error


def _fetched(settings: dict[str, Any]) -> Path:
    """The file of a tag, downloaded into open_clip's cache unless it is there."""
    with suppress(OSError, RuntimeError):
        return _cached(settings)
    if settings.get("hf_hub"):
        # Without network this fails at once, where the download would try for 46 seconds.
        repository = settings["hf_hub"].rpartition("/")[0]
        huggingface_hub.HfApi().model_info(repository, timeout=_TIMEOUT_SECONDS)
    return Path(download_pretrained(settings))


def _cached(settings: dict[str, Any]) -> Path:
    """The file of a tag in open_clip's cache; nothing is downloaded."""
    if not settings.get("hf_hub") and settings.get("url"):
        path = Path("~/.cache/clip", _origin(settings)[1]).expanduser()
        if not path.is_file():
            raise FileNotFoundError(f"{path} does not exist")
        return path
    constants = huggingface_hub.constants
    offline, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        return Path(download_pretrained(settings))
    finally:
        constants.HF_HUB_OFFLINE = offline


def _origin(settings: dict[str, Any]) -> tuple[str, str]:
    """A description of where the file of a tag is published, and its name."""
    if not settings.get("hf_hub"):
        url: str = settings.get("url") or settings["file"]
        return url, PurePosixPath(url).name
    repository, _, file_name = settings["hf_hub"].rpartition("/")
    file_name = file_name or HF_SAFE_WEIGHTS_NAME
    return f"{file_name} of {repository} (Hugging Face hub)", file_name


def _read_later(node: CfgNode, tower: Literal["visual", "text"]) -> ClipWeights:
    """The part of LOAD_FROM selected by LOAD_BEG_KEY."""
    chosen = node.LOAD_BEG_KEY
    state = read_weights(_local(Path(node.LOAD_FROM).expanduser()), known=[chosen])
    # The prefix may include the tower.
    stripped = chosen.removesuffix("visual.").removesuffix("text.")
    later = {k.removeprefix(stripped): v for k, v in state.items() if k.startswith(chosen)}
    if not later:
        raise InputError(
            f"LOAD_FROM: no key of {node.LOAD_FROM} starts with LOAD_BEG_KEY {chosen!r}; "
            f"the file has for example {sorted(state)[:3]}"
        )
    weights = split_clip_state(later, source=node.LOAD_FROM)
    if not (weights.visual if tower == "visual" else weights.text):
        raise InputError(
            f"LOAD_FROM: {node.LOAD_FROM} has nothing for the {tower} tower behind LOAD_BEG_KEY "
            f"{chosen!r}, only {sorted(later)[:3]}; its keys have to be those of a CLIP model "
            "there ('visual.*' for the image tower). A fine-tuned model as a whole is loaded by "
            "MODEL.WEIGHTS"
        )
    return weights
