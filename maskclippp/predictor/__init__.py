"""The way in for people: images and words in, segmentations out."""

from maskclippp.predictor.images import images_of
from maskclippp.predictor.pictures import EncodedPicture
from maskclippp.predictor.predictor import INSTANCE_THRESHOLD, ImageLike, Predictor

__all__ = ["INSTANCE_THRESHOLD", "EncodedPicture", "ImageLike", "Predictor", "images_of"]
