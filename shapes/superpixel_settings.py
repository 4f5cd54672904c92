"""Choose the settings of the superpixels on training scenes of the built-in world.

Prints, best first, the panoptic quality of each setting if every region took the class of the
segment that it fits best: the mean over all segments of the IoU of matches (IoU above one half),
times the share of segments and regions that are matched. `configs/shapes/Base-Shapes.yaml` has
the first line.

    python -m shapes.superpixel_settings [--scenes 40]
"""

import argparse
import itertools
import sys

import torch
from torch import Tensor

from maskclippp.data.shapes.dataset import scene_of
from maskclippp.generators import SuperpixelSegmentor
from maskclippp.masks.overlap import mask_iou
from shapes.train_generator import image_of, masks_of

NUM_SEGMENTS = (60, 100, 150)
COMPACTNESS = (0.1, 0.3, 1.0)
MERGE_THRESHOLD = (12.0, 16.0, 20.0, 25.0)
MIN_AREA = 0.004


def panoptic_quality(regions: Tensor, truth: Tensor) -> tuple[float, int, int]:
    """Sum of the IoU of matches, their number, and segments plus regions; bool [*, H, W] each."""
    iou = mask_iou(regions, truth)
    matched = iou[iou > 0.5]  # at most one per region and segment
    return float(matched.sum()), len(matched), len(regions) + len(truth)


def main() -> None:
    """Entry point; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scenes", type=int, default=30)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    scenes = [scene_of("train", index) for index in range(arguments.scenes)]
    truths = [masks_of(scene, [segment.id for segment in scene.segments]) for scene in scenes]
    found = []
    for settings in itertools.product(NUM_SEGMENTS, COMPACTNESS, MERGE_THRESHOLD):
        count, compactness, threshold = settings
        segmentor = SuperpixelSegmentor(
            num_segments=count,
            compactness=compactness,
            merge_threshold=threshold,
            min_area=MIN_AREA,
        )
        iou, pairs = 0.0, 0.0
        for scene, truth in zip(scenes, truths, strict=True):
            (regions,) = segmentor([{"image": image_of(scene)}], None).masks
            matched_iou, _, total = panoptic_quality(regions, truth)
            iou, pairs = iou + matched_iou, pairs + total / 2
        found.append((100 * iou / pairs, settings))
    for quality, (count, compactness, threshold) in sorted(found, reverse=True):
        sys.stdout.write(
            f"PQ {quality:.1f}: NUM_SEGMENTS {count}, COMPACTNESS {compactness}, "
            f"MERGE_THRESHOLD {threshold}, MIN_AREA {MIN_AREA}\n"
        )


if __name__ == "__main__":
    main()
