"""Builds the tiny models of golden cases from what the cases say about them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import open_clip
import timm
import torch
from timm.models import register_model
from timm.models.convnext import ConvNeXt
from torch import Tensor

from tests.golden_cases import table_of_rows


def register_convnext(depths: list[int], dims: list[int], norm_eps: float) -> str:
    """A name by which ``timm.create_model`` builds a ConvNeXt of that size.

    The name tells the size: cases may call models of different sizes the same.
    """
    name = "_".join(["golden_convnext", *map(str, depths + dims), f"{norm_eps:g}"])
    name = name.replace("-", "m")
    if timm.is_model(name):
        return name

    def entrypoint(pretrained: bool = False, **kwargs: Any) -> ConvNeXt:
        kwargs = {k: v for k, v in kwargs.items() if not k.startswith(("pretrained", "cache"))}
        model = ConvNeXt(depths=depths, dims=dims, norm_eps=norm_eps, **kwargs)
        model.default_cfg = {"pool_size": (7, 7)}
        return model

    entrypoint.__name__ = name
    entrypoint.__module__ = __name__
    register_model(entrypoint)
    return name


def register_open_clip(name: str, config: Mapping[str, Any], folder: Path) -> None:
    """Make open_clip know a model configuration under ``name``."""
    path = folder / f"{name}.json"
    path.write_text(json.dumps(config))
    open_clip.add_model_config(path)


def register_models(config: Mapping[str, Any], folder: Path) -> None:
    """Register the timm and open_clip models that a meta-architecture case lists."""
    trunks = {
        name: register_convnext(size["depths"], size["dims"], norm_eps=1e-6)
        for name, size in config["timm_models"].items()
    }
    for name, model in config["open_clip_models"].items():
        trunk = trunks[model["vision_cfg"]["timm_model_name"]]
        vision = {**model["vision_cfg"], "timm_model_name": trunk}
        register_open_clip(name, {**model, "vision_cfg": vision}, folder)


def dense_rows(
    weights: Mapping[str, Tensor], shapes: Mapping[str, torch.Size]
) -> dict[str, Tensor]:
    """Expand tables stored as '#rows' and '#row_ids': all other rows are zero.

    Tables without a shape belong to another model, and are left out.
    """
    dense = {k: v for k, v in weights.items() if "#" not in k}
    for key, rows in weights.items():
        name = key.removesuffix("#rows")
        if name != key and name in shapes:
            dense[name] = table_of_rows(rows, weights[f"{name}#row_ids"], shapes[name])
    return dense
