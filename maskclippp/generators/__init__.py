"""Mask generators ("SEGMENTOR" in configs): images in, masks out."""

from maskclippp.generators.base import (
    ImageMasks,
    MaskGenerator,
    build_generator,
    check_generator,
)
from maskclippp.generators.fcclip import FCCLIPSegmentor
from maskclippp.generators.ground_truth import GTSegmentor, PanGTSegmentor
from maskclippp.generators.hub_models import segmentor_of_hub_model
from maskclippp.generators.mask2former.segmentor import Mask2FormerSegmentor
from maskclippp.generators.offline import OfflineSegmentor
from maskclippp.generators.sam import SamSegmentor
from maskclippp.generators.sam3 import Sam3Segmentor
from maskclippp.generators.superpixels import SuperpixelSegmentor
from maskclippp.generators.transformers_segmentor import TransformersSegmentor

__all__ = [
    "FCCLIPSegmentor",
    "GTSegmentor",
    "ImageMasks",
    "Mask2FormerSegmentor",
    "MaskGenerator",
    "OfflineSegmentor",
    "PanGTSegmentor",
    "Sam3Segmentor",
    "SamSegmentor",
    "SuperpixelSegmentor",
    "TransformersSegmentor",
    "build_generator",
    "check_generator",
    "segmentor_of_hub_model",
]
