"""CLIP state dicts of all published layouts -> the state dicts of open_clip's two towers.

=====================  ==================================  ==========================
layout                 image tower                         text tower
=====================  ==================================  ==========================
open_clip, OpenAI      ``visual.``                         top level
open_clip custom text  ``visual.``, timm: ``.trunk.``      ``text.``
EVA-CLIP               ``visual.``, different names        ``text.``
Hugging Face           ``vision_model.``                   ``text_model.``
=====================  ==================================  ==========================
"""

import logging
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from maskclippp.clip.eva_keys import to_timm_keys
from maskclippp.clip.huggingface_keys import to_open_clip_keys
from maskclippp.clip.position_embedding import resize_position_embedding
from maskclippp.errors import InputError

logger = logging.getLogger(__name__)

# Model settings that OpenAI stored with the weights.
_OPENAI_ENTRIES = frozenset({"input_resolution", "context_length", "vocab_size"})
# Keys of a CLIP state dict that belong to neither tower.
_SHARED_KEYS = frozenset({"logit_scale", "logit_bias"})
# Determined by the context length or the grid; old files store them.
_DERIVED = re.compile(r"(^|\.)(attn_mask|rope\.freqs_cos|rope\.freqs_sin)$")
# Position embeddings of prefix tokens and a square grid: EVA and timm, ViT, ResNet.
_POSITION_KEYS = ("trunk.pos_embed", "positional_embedding", "attnpool.positional_embedding")


@dataclass
class ClipWeights:
    """The tensors of a CLIP model with open_clip's names.

    Attributes:
        source: their origin, for messages.
        visual: state dict of the image tower.
        text: state dict of the text tower.
        logit_scale: log of the similarity scale, if the file has one.
        quick_gelu: the weights are OpenAI's and need QuickGELU.
    """

    source: str
    visual: dict[str, Tensor] = field(default_factory=dict)
    text: dict[str, Tensor] = field(default_factory=dict)
    logit_scale: Tensor | None = None
    quick_gelu: bool = False

    def overlaid(self, later: "ClipWeights") -> "ClipWeights":
        """These tensors, overridden by those of ``later``."""
        scale = self.logit_scale if later.logit_scale is None else later.logit_scale
        return ClipWeights(
            f"{self.source} + {later.source}",
            {**self.visual, **later.visual},
            {**self.text, **later.text},
            scale,
            self.quick_gelu or later.quick_gelu,
        )


def split_clip_state(state: Mapping[str, Tensor], *, source: str) -> ClipWeights:
    """Split the state dict of a CLIP model of any layout.

    Raises:
        InputError: two keys mean the same tensor.
    """
    state = to_open_clip_keys(state)
    kept = {key: value for key, value in state.items() if not _DERIVED.search(key)}
    visual = {
        key.removeprefix("visual."): value
        for key, value in kept.items()
        if key.startswith("visual.")
    }
    others = {
        key: value
        for key, value in kept.items()
        if not key.startswith("visual.") and key not in _SHARED_KEYS | _OPENAI_ENTRIES
    }
    text = {key.removeprefix("text."): value for key, value in others.items()}
    if len(text) < len(others):
        twice = sorted(key for key in others if f"text.{key}" in others)
        raise InputError(
            f"the weights {source!r} have a text tower twice: {twice[:3]} with and without 'text.'"
        )
    return ClipWeights(
        source,
        _eva_by_timm_names(visual, source),
        text,
        kept.get("logit_scale"),
        quick_gelu=state.keys() >= _OPENAI_ENTRIES,
    )


def resize_positions(
    state: Mapping[str, Tensor], tower: nn.Module, *, source: str
) -> dict[str, Tensor]:
    """The weights of an image tower with the position embedding resized to the tower's grid.

    Resizing is logged; an embedding of another width or form is left unchanged.
    """
    own, resized = tower.state_dict(), dict(state)
    for key in _POSITION_KEYS:
        if key not in own or key not in state or own[key].shape == state[key].shape:
            continue
        (before, prefix), (after, own_prefix) = _grid(state[key]), _grid(own[key])
        if prefix is None or prefix != own_prefix or state[key].shape[-1] != own[key].shape[-1]:
            continue
        table = state[key].flatten(0, -2)
        resized[key] = resize_position_embedding(table, (after, after), prefix).view(own[key].shape)
        logger.info(
            "Weights %r: %s resized from a %d x %d grid to %d x %d",
            *(source, key, before, before, after, after),
        )
    return resized


def _eva_by_timm_names(visual: dict[str, Tensor], source: str) -> dict[str, Tensor]:
    """An image tower in EVA-CLIP's layout -> open_clip's; other layouts unchanged."""
    if not any(key.startswith("blocks.") for key in visual):
        return visual
    renamed = to_timm_keys(visual)
    if len(renamed) < len(visual):
        raise InputError(
            f"the weights {source!r} have tensors twice: by the names of EVA-CLIP and of timm"
        )
    return {f"trunk.{key}": value for key, value in renamed.items()}


def _grid(positions: Tensor) -> tuple[int, int | None]:
    """The grid side g and the prefix tokens n of a position embedding [..., n + g*g, C].

    n is None if it has another form.
    """
    if positions.ndim < 2 or positions[..., 0, 0].numel() != 1:
        return 0, None
    side = math.isqrt(positions.shape[-2])
    return side, positions.shape[-2] - side * side
