"""Trained generators of a few thousand random parameters."""

from typing import Any

from detectron2.config import CfgNode

from maskclippp.generators import build_generator
from maskclippp.generators.mask2former.segmentor import MaskTransformerSegmentor
from tests.tiny_models import MODEL_NAME, TRAIN_CLASSES, tiny_config

NUM_QUERIES = 6
_HEAD = (
    *("MODEL.SEM_SEG_HEAD.CONVS_DIM", 32, "MODEL.SEM_SEG_HEAD.MASK_DIM", 32),
    *("MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS", 1),
    *("MODEL.SEM_SEG_HEAD.NUM_CLASSES", len(TRAIN_CLASSES)),
    *("MODEL.MASK_FORMER.HIDDEN_DIM", 32, "MODEL.MASK_FORMER.NHEADS", 4),
    *("MODEL.MASK_FORMER.DIM_FEEDFORWARD", 32, "MODEL.MASK_FORMER.DEC_LAYERS", 4),
    *("MODEL.MASK_FORMER.NUM_OBJECT_QUERIES", NUM_QUERIES),
    *(".SEGMENTOR.PRETRAINED", "random", ".VISUAL_ENCODER_F.PRETRAINED", "random"),
    *(".VISUAL_ENCODER_F.SIZE_DIVISIBILITY", 32),
)


def fcclip_config(*options: Any) -> CfgNode:
    """A tiny mask classifier with a tiny FC-CLIP; options as of ``tiny_config``."""
    return tiny_config(
        *_HEAD,
        *(".SEGMENTOR.NAME", "FCCLIPSegmentor", ".TEMPLATES_F", "t1"),
        *(".VISUAL_ENCODER_F.NAME", "CLIPConvNeXt", ".VISUAL_ENCODER_F.MODEL_NAME", MODEL_NAME),
        *(".VISUAL_ENCODER_F.OUT_FEATURES", [f"stage{number}_f" for number in (1, 2, 3, 4)]),
        *(".VISUAL_ENCODER_F.MASK_PRIOR_BEG", 5),
        *(".TEXT_ENCODER_F.NAME", "CLIPTextEncoder", ".TEXT_ENCODER_F.MODEL_NAME", MODEL_NAME),
        *(".TEXT_ENCODER_F.PRETRAINED", "random", *options),
    )


def mask2former_config(*options: Any) -> CfgNode:
    """A tiny mask classifier with a tiny Mask2Former on Swin; options as of ``tiny_config``."""
    maps = [f"res{number}_f" for number in (2, 3, 4, 5)]
    return tiny_config(
        *_HEAD,
        *(".SEGMENTOR.NAME", "Mask2FormerSegmentor", ".SEGMENTOR.IN_FEATURES", maps),
        *(".SEGMENTOR.TRANSFORMER_IN_FEATURES", maps[1:]),
        *(".VISUAL_ENCODER_F.NAME", "D2SwinTransformer", ".VISUAL_ENCODER_F.OUT_FEATURES", maps),
        *("MODEL.SWIN.EMBED_DIM", 8, "MODEL.SWIN.DEPTHS", [1, 1, 1, 1]),
        *("MODEL.SWIN.NUM_HEADS", [1, 1, 2, 2], "MODEL.SWIN.WINDOW_SIZE", 4, *options),
    )


CONFIGS = {"FCCLIPSegmentor": fcclip_config, "Mask2FormerSegmentor": mask2former_config}


def tiny_generator(name: str, *options: Any) -> MaskTransformerSegmentor:
    """The tiny generator of a registered name, with its encoder."""
    generator = build_generator(CONFIGS[name](*options))
    assert isinstance(generator, MaskTransformerSegmentor)
    return generator
