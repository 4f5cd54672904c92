"""The way in for people: images and words in, segmentations out."""

from maskclippp.predictor.images import images_of
from maskclippp.predictor.predictor import EncodedPicture, ImageLike, Predictor

__all__ = ["EncodedPicture", "ImageLike", "Predictor", "images_of"]
