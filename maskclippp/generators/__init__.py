"""Mask generators ("SEGMENTOR" in configs): images in, masks out."""

from maskclippp.generators.base import GeneratedMasks, MaskGenerator, build_generator
from maskclippp.generators.ground_truth import GTSegmentor, PanGTSegmentor
from maskclippp.generators.superpixels import SuperpixelSegmentor

__all__ = [
    "GTSegmentor",
    "GeneratedMasks",
    "MaskGenerator",
    "PanGTSegmentor",
    "SuperpixelSegmentor",
    "build_generator",
]
