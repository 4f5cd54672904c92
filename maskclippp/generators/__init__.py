"""Mask generators ("SEGMENTOR" in configs): images in, masks out."""

from maskclippp.generators.base import GeneratedMasks, MaskGenerator, build_generator
from maskclippp.generators.ground_truth import GTSegmentor, PanGTSegmentor
from maskclippp.generators.offline import OfflineSegmentor
from maskclippp.generators.superpixels import SuperpixelSegmentor
from maskclippp.generators.swin import D2SwinTransformer

__all__ = [
    "D2SwinTransformer",
    "GTSegmentor",
    "GeneratedMasks",
    "MaskGenerator",
    "OfflineSegmentor",
    "PanGTSegmentor",
    "SuperpixelSegmentor",
    "build_generator",
]
