"""Class-agnostic masks without a trained model: merged SLIC superpixels."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from scipy import ndimage
from scipy.cluster.hierarchy import DisjointSet
from torch import Tensor

from maskclippp.errors import InputError
from maskclippp.generators.base import ImageMasks, MaskGenerator
from maskclippp.masks.label_maps import masks_of_labels
from maskclippp.masks.soft_masks import SoftMasks
from maskclippp.records import Record
from maskclippp.registry import SEGMENTOR_REGISTRY

BoolArray = np.ndarray[Any, np.dtype[np.bool_]]
IntArray = np.ndarray[Any, np.dtype[np.int64]]
FloatArray = np.ndarray[Any, np.dtype[np.float64]]


@SEGMENTOR_REGISTRY.register()
class SuperpixelSegmentor(MaskGenerator):
    """Partitions an image into regions of similar color.

    SLIC superpixels (Achanta et al., 2012) are merged with neighbors whose mean CIELAB color is
    closer than a threshold, nearest pairs first. Each region is one mask. The defaults were chosen
    on photographs and drawn scenes by ``tools/superpixel_defaults.py``.

    Args:
        num_segments: superpixels before merging.
        compactness: weight of space against color in SLIC, which scales colors to 0..1.
        merge_threshold: largest CIELAB distance of regions that are merged.
        min_area: regions with a smaller share of the image are merged with their nearest neighbor.
    """

    @configurable
    def __init__(
        self,
        *,
        num_segments: int = 150,
        compactness: float = 0.3,
        merge_threshold: float = 3.0,
        min_area: float = 0.0005,
    ) -> None:
        super().__init__()
        if num_segments < 1:
            raise InputError(f"SUPERPIXELS.NUM_SEGMENTS: expected >= 1, found {num_segments}")
        self.num_segments = num_segments
        self.compactness = compactness
        self.merge_threshold = merge_threshold
        self.min_area = min_area

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Arguments from the complete config."""
        node = cfg.MODEL.MASKCLIPPP.SEGMENTOR.SUPERPIXELS
        return {
            "num_segments": node.NUM_SEGMENTS,
            "compactness": node.COMPACTNESS,
            "merge_threshold": node.MERGE_THRESHOLD,
            "min_area": node.MIN_AREA,
        }

    def forward(self, records: Sequence[Record]) -> list[ImageMasks]:
        """See :class:`MaskGenerator`."""
        return [ImageMasks(SoftMasks(self._masks(record["image"]))) for record in records]

    def _masks(self, image: Tensor) -> Tensor:
        # Slow to import, and only needed by this generator.
        import skimage.color
        import skimage.segmentation

        pixels = image.permute(1, 2, 0).cpu().numpy()
        lab = skimage.color.rgb2lab(pixels.astype(np.float64) / 255)
        superpixels = skimage.segmentation.slic(
            lab,
            n_segments=self.num_segments,
            compactness=self.compactness,
            convert2lab=False,
            start_label=0,
        )
        regions = torch.from_numpy(self._merge(superpixels, lab))
        return masks_of_labels(regions, torch.arange(int(regions.max()) + 1))

    def _merge(self, superpixels: IntArray, lab: FloatArray) -> IntArray:
        """Merge neighbors closer than the threshold -> the region of every pixel."""
        count = int(superpixels.max()) + 1
        areas = np.bincount(superpixels.ravel(), minlength=count).astype(np.float64)
        labels = np.arange(count)
        colors = np.stack(
            [ndimage.mean(lab[:, :, c], superpixels, labels) for c in range(3)], axis=1
        )
        colors = np.nan_to_num(colors)
        pairs = _neighbors(superpixels)
        sets = DisjointSet(range(count))
        smallest = self.min_area * superpixels.size
        while True:
            roots = np.array([sets[label] for label in range(count)])
            ends = np.unique(np.sort(roots[pairs], axis=1), axis=0)
            ends = ends[ends[:, 0] != ends[:, 1]]
            if len(ends) == 0:
                break
            distance = np.linalg.norm(colors[ends[:, 0]] - colors[ends[:, 1]], axis=1)
            distance[areas[ends].min(axis=1) < smallest] = -1  # always merged
            if distance.min() >= self.merge_threshold:
                break
            for index in _independent(ends, distance, self.merge_threshold):
                first, second = ends[index]
                sets.merge(first, second)
                root, other = (first, second) if sets[first] == first else (second, first)
                total = areas[root] + areas[other]
                colors[root] += (colors[other] - colors[root]) * (areas[other] / total)
                areas[root] = total
        return np.unique(roots[superpixels], return_inverse=True)[1].reshape(superpixels.shape)


def _neighbors(regions: IntArray) -> IntArray:
    """Pairs [n, 2] of labels that touch horizontally or vertically."""
    across = np.stack([regions[:, :-1].ravel(), regions[:, 1:].ravel()], axis=1)
    down = np.stack([regions[:-1].ravel(), regions[1:].ravel()], axis=1)
    pairs = np.concatenate([across, down])
    return np.unique(np.sort(pairs[pairs[:, 0] != pairs[:, 1]], axis=1), axis=0)


def _independent(ends: IntArray, distance: FloatArray, threshold: float) -> list[int]:
    """One round of merges: nearest pairs first, each region in at most one pair."""
    taken: set[int] = set()
    chosen = []
    for index in np.argsort(distance, kind="stable"):
        if distance[index] >= threshold:
            break
        pair = {int(end) for end in ends[index]}
        if taken.isdisjoint(pair):
            taken |= pair
            chosen.append(int(index))
    return chosen
