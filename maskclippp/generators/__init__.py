"""Mask generators ("SEGMENTOR" in configs): images in, masks out."""

from maskclippp.clip.swin import D2SwinTransformer
from maskclippp.generators.base import (
    GeneratedMasks,
    MaskGenerator,
    build_generator,
    check_generator,
)
from maskclippp.generators.fcclip import FCCLIPSegmentor
from maskclippp.generators.ground_truth import GTSegmentor, PanGTSegmentor
from maskclippp.generators.mask2former.segmentor import Mask2FormerSegmentor
from maskclippp.generators.offline import OfflineSegmentor
from maskclippp.generators.source import MaskSource, build_mask_source
from maskclippp.generators.superpixels import SuperpixelSegmentor

__all__ = [
    "D2SwinTransformer",
    "FCCLIPSegmentor",
    "GTSegmentor",
    "GeneratedMasks",
    "Mask2FormerSegmentor",
    "MaskGenerator",
    "MaskSource",
    "OfflineSegmentor",
    "PanGTSegmentor",
    "SuperpixelSegmentor",
    "build_generator",
    "build_mask_source",
    "check_generator",
]
