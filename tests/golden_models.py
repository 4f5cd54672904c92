"""Builds the tiny models of golden cases from what the cases say about them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import open_clip
import timm
import torch
from open_clip.model import _build_vision_tower
from timm.layers import LayerNorm
from timm.models import register_model
from timm.models.convnext import ConvNeXt
from timm.models.eva import Eva
from torch import Tensor, nn

from maskclippp.masks.batching import InputFormat, PaddedBatch, Resize
from tests.golden_cases import GoldenCase, table_of_rows

# Keys of EVA-CLIP's models that choose another implementation of the same function, or the name.
_EVA_IMPLEMENTATION = ("eva_model_name", "xattn", "fusedLN")


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
        name: register_convnext(size["depths"], size["dims"], size.get("norm_eps", 1e-6))
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


def input_format(case: GoldenCase, variant: str) -> InputFormat:
    """The input processing of an encoder case, in its variant ``<mode>_<resize>[_...]``.

    The configured resizing is that of the mode; in evaluation, a variant may leave it out.
    """
    config, (mode, kind, *_) = case.info["config"], variant.split("_")
    prefix = "TEST_" if mode == "test" else ""
    configured = config.get(f"{prefix}RESIZE_TYPE", kind)
    allowed = {configured, "none"} if mode == "test" else {configured}
    assert kind in allowed, f"{case}: {variant} with {prefix}RESIZE_TYPE {configured}"
    size, scale = config.get(f"{prefix}IMAGE_SIZE", 0), config.get(f"{prefix}IMAGE_SCALE", 1.0)
    resize = Resize(kind, size, scale)
    return InputFormat(
        config["PIXEL_MEAN"],
        config["PIXEL_STD"],
        config["SIZE_DIVISIBILITY"],
        # A frozen encoder resizes as in evaluation, whatever its mode.
        train_resize=resize if mode == "train" else Resize(),
        test_resize=resize if mode == "test" or is_frozen(case) else Resize(),
    )


def is_frozen(case: GoldenCase) -> bool:
    """Whether no parameter of the case's encoder is trained."""
    return bool(case.info["config"]["FINETUNE_TYPE"] == "none")


def encoder_arguments(case: GoldenCase, variant: str) -> dict[str, Any]:
    """The arguments that every encoder takes, from the config of a case."""
    config, suffix = case.info["config"], case.info["config"]["FEATURE_SUFFIX"]
    return {
        "input_format": input_format(case, variant),
        "out_features": [name.removesuffix(suffix) for name in config["OUT_FEATURES"]],
        "feature_suffix": suffix,
        "finetune_type": config["FINETUNE_TYPE"],
    }


def map_names(case: GoldenCase) -> set[str]:
    """Names of the maps that the case's encoder gives."""
    suffix = case.info["config"]["FEATURE_SUFFIX"]
    names = {name.removesuffix(suffix) for name in case.info["config"]["OUT_FEATURES"]}
    return {name + suffix for name in names - {"m_embs"}}


def check_sizes(case: GoldenCase, variant: str, batch: PaddedBatch) -> None:
    """Compare the sizes of the input with those that the case declares for a variant."""
    declared = case.info.get("per_variant", {}).get(variant, {})
    if "image_sizes" in declared:
        assert [list(size) for size in batch.image_sizes] == declared["image_sizes"]
    if "padded_size" in declared:
        assert list(batch.images.shape[-2:]) == declared["padded_size"]


def open_clip_tower(case: GoldenCase) -> nn.Module:
    """open_clip's vision tower of a case, with the activation and the epsilons it declares."""
    info, model = case.info, case.info["open_clip_model_config"]
    quick_gelu = model.get("quick_gelu", info.get("activation") == "QuickGELU")
    tower: nn.Module = _build_vision_tower(model["embed_dim"], model["vision_cfg"], quick_gelu)
    set_epsilons(tower, info)
    return tower


def set_epsilons(tower: nn.Module, info: Mapping[str, Any]) -> None:
    """Give every normalization the epsilon that a case declares for its kind, if it does."""
    for kind, key in ((nn.LayerNorm, "layer_norm_eps"), (nn.BatchNorm2d, "batch_norm_eps")):
        for module in tower.modules():
            if isinstance(module, kind) and info.get(key) is not None:
                module.eps = info[key]


def eva_tower(case: GoldenCase) -> Eva:
    """timm's form of a model that the EVA-CLIP package describes; every key must be known."""
    model = case.info["eva_clip_model_config"]
    vision = {k: v for k, v in model["vision_cfg"].items() if k not in _EVA_IMPLEMENTATION}
    width, rope = vision.pop("width"), vision.pop("rope", False)
    sub_norm, qkv_bias = vision.pop("subln", False), vision.pop("qkv_bias", True)
    grid = vision.pop("pt_hw_seq_len", 16)
    same_frequencies = vision.pop("intp_freq", False)
    tower = Eva(
        img_size=vision.pop("image_size"),
        patch_size=vision.pop("patch_size"),
        embed_dim=width,
        depth=vision.pop("layers"),
        num_heads=width // vision.pop("head_width"),
        mlp_ratio=vision.pop("mlp_ratio"),
        num_classes=model["embed_dim"],
        global_pool="avg" if vision.pop("global_average_pool", False) else "token",
        qkv_bias=qkv_bias,
        qkv_fused=not rope,
        drop_path_rate=vision.pop("drop_path_rate", 0.0),
        patch_drop_rate=vision.pop("patch_dropout", 0.0),
        init_values=vision.pop("ls_init_value", None),
        use_post_norm=vision.pop("postnorm", False),
        norm_layer=LayerNorm,
        swiglu_mlp=vision.pop("naiveswiglu", False),
        scale_mlp=sub_norm,
        scale_attn_inner=sub_norm,
        use_rot_pos_emb=rope,
        ref_feat_shape=(grid, grid) if rope and same_frequencies else None,
    )
    assert not vision, f"{case}: settings without meaning here: {sorted(vision)}"
    set_epsilons(tower, case.info)
    return tower
