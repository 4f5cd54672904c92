"""Datasets, mappers and loaders. Importing this package registers every dataset, reading none."""

from maskclippp.data.coco_panoptic import register_coco_panoptic
from maskclippp.data.panoptic import datasets_root
from maskclippp.data.shapes import register_shapes

register_coco_panoptic(datasets_root())
register_shapes()
