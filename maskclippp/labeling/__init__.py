"""Labels for any number of images: in shards, by any number of processes, resumable."""

from maskclippp.labeling.image_list import ImageList, find_images
from maskclippp.labeling.job import Job
from maskclippp.labeling.labeler import Labeler, Row

__all__ = ["ImageList", "Job", "Labeler", "Row", "find_images"]
