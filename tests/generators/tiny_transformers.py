"""Models of the transformers library with a few thousand random parameters, as folders."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers

LABELS = {0: "wall", 1: "tree, palm tree", 2: "sky-other-merged"}
NUM_QUERIES = 7
_SIDE = 64
_SWIN = {
    "embed_dim": 16,
    "depths": [1, 1, 1, 1],
    "num_heads": [1, 2, 4, 8],
    "window_size": 4,
    "out_features": ["stage1", "stage2", "stage3", "stage4"],
}
_DETR = {
    **{"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "num_queries": NUM_QUERIES},
    **{"encoder_attention_heads": 8, "decoder_attention_heads": 8},
    **{"encoder_ffn_dim": 32, "decoder_ffn_dim": 32},
}
_DECODER = {
    **{"hidden_dim": 32, "num_attention_heads": 2, "encoder_layers": 1, "decoder_layers": 2},
    **{"encoder_feedforward_dim": 32, "dim_feedforward": 32, "num_queries": NUM_QUERIES},
}
_EOMT = {
    **{"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "num_blocks": 2},
    **{"num_queries": NUM_QUERIES, "image_size": _SIDE, "patch_size": 16, "intermediate_size": 64},
}


def _mask2former(**labels: Any) -> Any:
    config = transformers.Mask2FormerConfig(
        backbone_config=transformers.SwinConfig(**_SWIN),
        feature_size=32,
        mask_feature_size=32,
        **_DECODER,
        **labels,
    )
    return transformers.Mask2FormerForUniversalSegmentation(config)


def _maskformer(**labels: Any) -> Any:
    config = transformers.MaskFormerConfig(
        backbone_config=transformers.MaskFormerSwinConfig(**_SWIN),
        decoder_config=transformers.DetrConfig(**_DETR),
        mask_feature_size=32,
        fpn_feature_size=32,
        **labels,
    )
    return transformers.MaskFormerForInstanceSegmentation(config)


def _oneformer(**labels: Any) -> Any:
    config = transformers.OneFormerConfig(
        backbone_config=transformers.SwinConfig(**_SWIN),
        conv_dim=32,
        mask_dim=32,
        query_dec_layers=1,
        is_training=False,
        **_DECODER,
        **labels,
    )
    return transformers.OneFormerForUniversalSegmentation(config)


def _eomt(**labels: Any) -> Any:
    return transformers.EomtForUniversalSegmentation(transformers.EomtConfig(**_EOMT, **labels))


def _eomt_dinov3(**labels: Any) -> Any:
    config = transformers.EomtDinov3Config(**_EOMT, **labels)
    return transformers.EomtDinov3ForUniversalSegmentation(config)


def _detr(**labels: Any) -> Any:
    backbone = transformers.ResNetConfig(
        embedding_size=16,
        hidden_sizes=[16, 32, 48, 64],
        depths=[1, 1, 1, 1],
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    config = transformers.DetrConfig(backbone_config=backbone, **_DETR, **labels)
    return transformers.DetrForSegmentation(config)


_SHORT = {"shortest_edge": _SIDE, "longest_edge": 2 * _SIDE}
_SQUARE = {"shortest_edge": _SIDE, "longest_edge": _SIDE}
MODELS: dict[str, tuple[Callable[..., Any], Callable[[], Any]]] = {
    "mask2former": (_mask2former, lambda: transformers.Mask2FormerImageProcessor(size=_SHORT)),
    "maskformer": (_maskformer, lambda: transformers.MaskFormerImageProcessor(size=_SHORT)),
    "oneformer": (_oneformer, lambda: transformers.OneFormerImageProcessor(size=_SHORT)),
    "eomt": (_eomt, lambda: transformers.EomtImageProcessor(size=_SQUARE, do_pad=True)),
    "eomt_dinov3": (
        _eomt_dinov3,
        lambda: transformers.EomtImageProcessor(size=_SQUARE, do_pad=True),
    ),
    "detr": (_detr, lambda: transformers.DetrImageProcessor(size=_SHORT)),
}


def save_tiny_model(kind: str, folder: Path, labels: dict[int, str] | None = None) -> Path:
    """Write a random model of an architecture in MODELS, with its image processor."""
    build, build_processor = MODELS[kind]
    names = labels or LABELS
    torch.manual_seed(0)
    model = build(id2label=names, label2id={name: index for index, name in names.items()})
    # Masks that differ, and classes of which void is seldom the best.
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            if parameter.ndim > 1:
                parameter.data.mul_(2)
        if isinstance(module, torch.nn.Linear) and module.out_features == len(names) + 1:
            torch.nn.init.normal_(module.weight, std=1.0)
            module.bias.data[-1] = -6
    model.save_pretrained(folder)
    build_processor().save_pretrained(folder)
    return folder


def _sam(kind: str) -> tuple[Any, Any]:
    prompt = {"hidden_size": 16, "image_size": _SIDE, "patch_size": 8, "mask_input_channels": 4}
    decoder = {
        "hidden_size": 16,
        "mlp_dim": 32,
        "num_attention_heads": 2,
        "iou_head_hidden_dim": 16,
    }
    if kind == "sam2":
        backbone = transformers.Sam2HieraDetConfig(
            hidden_size=8,
            num_attention_heads=1,
            image_size=[_SIDE, _SIDE],
            blocks_per_stage=[1, 1, 1, 1],
            embed_dim_per_stage=[8, 16, 32, 64],
            num_attention_heads_per_stage=[1, 1, 1, 1],
            window_size_per_stage=[4, 4, 4, 4],
            window_positional_embedding_background_size=[2, 2],
            global_attention_blocks=[],
        )
        vision = transformers.Sam2VisionConfig(
            backbone_config=backbone,
            backbone_channel_list=[64, 32, 16, 8],
            backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]],
            fpn_hidden_size=16,
        )
        config = transformers.Sam2Config(
            vision_config=vision,
            prompt_encoder_config={**prompt, "patch_size": 16},
            mask_decoder_config=decoder,
        )
        processor = transformers.Sam2ImageProcessor(size={"height": _SIDE, "width": _SIDE})
        return transformers.Sam2Model(config), processor
    vision = {
        **{"hidden_size": 16, "output_channels": 16, "num_hidden_layers": 2, "mlp_dim": 32},
        **{"num_attention_heads": 2, "image_size": _SIDE, "patch_size": 8, "window_size": 4},
        **{"global_attn_indexes": [1], "num_pos_feats": 8},
    }
    pad = {"height": _SIDE, "width": _SIDE}
    processor = transformers.SamImageProcessor(size={"longest_edge": _SIDE}, pad_size=pad)
    prefix = "SamHQ" if kind == "sam_hq" else "Sam"
    more = {"vit_dim": 16} if kind == "sam_hq" else {}
    config = getattr(transformers, f"{prefix}Config")(
        vision_config=vision,
        prompt_encoder_config={**prompt, "image_embedding_size": 8},
        mask_decoder_config={**decoder, **more},
    )
    return getattr(transformers, f"{prefix}Model")(config), processor


SAM_MODELS = ("sam", "sam_hq", "sam2")


def _vary(model: torch.nn.Module) -> None:
    """Make masks differ, from place to place and from prompt to prompt."""
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            parameter.data.mul_(20 if name.startswith("mask_decoder") else 4)


def save_tiny_sam(kind: str, folder: Path) -> Path:
    """Write a random SAM, SAM-HQ or SAM 2 with its image processor."""
    torch.manual_seed(0)
    model, processor = _sam(kind)
    _vary(model)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def save_tiny_sam3(folder: Path) -> Path:
    """Write a random SAM 3 with its image processor."""
    torch.manual_seed(0)
    layers = {"hidden_size": 16, "num_layers": 1, "num_attention_heads": 2, "dropout": 0.0}
    layers |= {"intermediate_size": 32}
    backbone = transformers.Sam3ViTConfig(
        **{"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2},
        **{"num_attention_heads": 2, "image_size": 56, "pretrain_image_size": 56},
        **{"patch_size": 14, "window_size": 2, "global_attn_indexes": [1]},
    )
    config = transformers.Sam3Config(
        vision_config=transformers.Sam3VisionConfig(
            backbone_config=backbone,
            fpn_hidden_size=16,
            backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]],
        ),
        text_config=transformers.CLIPTextConfig(
            **{"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1},
            **{"num_attention_heads": 2, "max_position_embeddings": 32, "projection_dim": 16},
        ),
        geometry_encoder_config=layers,
        detr_encoder_config=layers,
        detr_decoder_config={**layers, "num_queries": NUM_QUERIES},
        mask_decoder_config={"hidden_size": 16, "num_attention_heads": 2},
    )
    model = transformers.Sam3Model(config)
    _vary(model)
    model.save_pretrained(folder)
    transformers.Sam3ImageProcessor(size={"height": 56, "width": 56}).save_pretrained(folder)
    return folder
