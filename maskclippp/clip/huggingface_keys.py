"""CLIP state dicts in the layout of Hugging Face's transformers -> that of open_clip."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

# Patterns of keys, and what replaces them; \\1 is the number of a layer.
_NAMES = {
    r"vision_model\.embeddings\.class_embedding": "visual.class_embedding",
    r"vision_model\.embeddings\.patch_embedding\.weight": "visual.conv1.weight",
    r"vision_model\.embeddings\.position_embedding\.weight": "visual.positional_embedding",
    r"vision_model\.pre_layrnorm\.": "visual.ln_pre.",  # their spelling
    r"vision_model\.post_layernorm\.": "visual.ln_post.",
    r"text_model\.embeddings\.token_embedding\.": "token_embedding.",
    r"text_model\.embeddings\.position_embedding\.weight": "positional_embedding",
    r"text_model\.final_layer_norm\.": "ln_final.",
    r"vision_model\.encoder\.layers\.(\d+)\.": r"visual.transformer.resblocks.\1.",
    r"text_model\.encoder\.layers\.(\d+)\.": r"transformer.resblocks.\1.",
    r"\.layer_norm(1|2)\.": r".ln_\1.",
    r"\.mlp\.fc1\.": ".mlp.c_fc.",
    r"\.mlp\.fc2\.": ".mlp.c_proj.",
    r"\.self_attn\.out_proj\.": ".attn.out_proj.",
}
_PROJECTIONS = {
    "visual_projection.weight": "visual.proj",
    "text_projection.weight": "text_projection",
}
_QUERY = re.compile(r"(.*)\.self_attn\.q_proj\.(weight|bias)")


def to_open_clip_keys(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The state dict with open_clip's names; other layouts are returned unchanged.

    Query, key and value projections [W, W] are joined to [3 W, W]; final projections [D, W] are
    transposed.
    """
    if not any(key.startswith(("vision_model.", "text_model.")) for key in state):
        return state
    renamed = {}
    for key, value in state.items():
        query = _QUERY.fullmatch(key)
        if key in _PROJECTIONS:
            renamed[_PROJECTIONS[key]] = value.T.contiguous()
        elif query is not None:
            block, kind = query.groups()
            parts = [f"{block}.self_attn.{part}_proj.{kind}" for part in "qkv"]
            if all(part in state for part in parts):
                joined = torch.cat([state[part] for part in parts])
                renamed[_renamed(f"{block}.attn.in_proj_{kind}")] = joined
        elif not re.search(r"(\.position_ids|\.self_attn\.[kv]_proj\.\w+)$", key):
            renamed[_renamed(key)] = value
    return renamed


def _renamed(key: str) -> str:
    for pattern, name in _NAMES.items():
        key = re.sub(pattern, name, key, count=1)
    return key
