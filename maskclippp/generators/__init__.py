"""Mask generators ("SEGMENTOR" in configs): images in, masks out."""

from maskclippp.generators.base import (
    ImageMasks,
    MaskGenerator,
    build_generator,
    check_generator,
)
from maskclippp.generators.fcclip import FCCLIPSegmentor
from maskclippp.generators.ground_truth import GTSegmentor, PanGTSegmentor
from maskclippp.generators.mask2former.segmentor import Mask2FormerSegmentor
from maskclippp.generators.offline import OfflineSegmentor
from maskclippp.generators.superpixels import SuperpixelSegmentor

__all__ = [
    "FCCLIPSegmentor",
    "GTSegmentor",
    "ImageMasks",
    "Mask2FormerSegmentor",
    "MaskGenerator",
    "OfflineSegmentor",
    "PanGTSegmentor",
    "SuperpixelSegmentor",
    "build_generator",
    "check_generator",
]
