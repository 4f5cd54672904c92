"""Choose the default settings of SuperpixelSegmentor on photographs and drawn scenes.

    python tools/superpixel_defaults.py --dataset openvocab_coco_2017_val_panoptic_with_sem_seg
    python tools/superpixel_defaults.py --dataset my_set --config-file my.yaml --images 20

Prints a line per setting: the best reachable mIoU if each region took the class of most of its
pixels (on the images of the datasets, and on scenes of the built-in world), the share of the color
variance of scikit-image's photographs that the regions explain, and the mean number of regions.
Images are halved until their shorter side is at most 300 pixels; both parts of the method depend on
shares of the image, not on pixels. More regions reach more and cost more. Settings with more than
--max-masks regions per image come last; among the others, the highest mean of the numbers is first.
"""

import argparse
import itertools
import math
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import maskclippp  # noqa: F401  (makes detectron2 importable)

# isort: split
import numpy as np
import torch
from detectron2.data import DatasetCatalog
from tabulate import tabulate
from torch import Tensor

from maskclippp.config.keys import get_cfg
from maskclippp.config.merging import merge_config_file
from maskclippp.data.custom import register_custom_datasets
from maskclippp.errors import exit_on_bad_input
from maskclippp.evaluation.assigned_masks import majority_labels
from maskclippp.evaluation.confusion import class_scores, confusion_matrix
from maskclippp.evaluation.ground_truth import GroundTruth
from maskclippp.files.images import read_image
from maskclippp.generators import SuperpixelSegmentor

NUM_SEGMENTS = (100, 150)
COMPACTNESS = (0.1, 0.3, 1.0)
MERGE_THRESHOLD = (0.0, 3.0, 6.0, 12.0)
PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")


class Example(NamedTuple):
    """An image uint8 [3, H, W], and its classes int64 [H, W], ``num_classes`` where unknown."""

    image: Tensor
    truth: Tensor | None = None
    num_classes: int = 0


def dataset_examples(name: str, count: int) -> Iterator[Example]:
    """The first images of a registered dataset."""
    truth = GroundTruth(name)
    for record in DatasetCatalog.get(name)[:count]:
        pixels = np.asarray(read_image(record["file_name"]))
        labels = torch.from_numpy(truth.semantic_labels(record).labels).long()
        step = _step(labels.shape)
        image = torch.from_numpy(pixels[::step, ::step].copy()).permute(2, 0, 1)
        yield Example(image, labels[::step, ::step], truth.num_classes)


def photographs() -> Iterator[Example]:
    """Those of scikit-image, which have no annotation."""
    import skimage.data

    for name in PHOTOGRAPHS:
        pixels = getattr(skimage.data, name)()
        step = _step(pixels.shape[:2])
        yield Example(torch.from_numpy(pixels[::step, ::step].copy()).permute(2, 0, 1))


def _step(size: Sequence[int]) -> int:
    return 2 ** max(0, math.ceil(math.log2(min(size) / 300)))


def reachable(examples: Sequence[Example], regions: Sequence[Tensor]) -> float:
    """Best reachable mIoU in percent: each region takes the class of most of its pixels."""
    counts: np.ndarray = np.zeros(1)
    for example, labels in zip(examples, regions, strict=True):
        assert example.truth is not None
        found = majority_labels(labels, example.truth, example.num_classes)
        maps = (part.numpy().astype(np.int32) for part in (found, example.truth))
        counts = counts + confusion_matrix(*maps, example.num_classes)
    return 100 * float(np.nanmean(class_scores(counts).iou))


def explained(example: Example, labels: Tensor) -> float:
    """Share in percent of the variance of RGB that the mean colors of the regions explain."""
    pixels, flat = example.image.flatten(1).double(), labels.flatten()
    counts = torch.bincount(flat).clamp(min=1)
    means = torch.stack([torch.bincount(flat, weights=channel) / counts for channel in pixels])
    rest = (pixels - means[:, flat]).square().sum()
    return 100 * float(1 - rest / (pixels - pixels.mean(dim=1, keepdim=True)).square().sum())


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", action="append", required=True, help="may be repeated")
    parser.add_argument("--config-file", help="register its DATASETS.CUSTOM")
    parser.add_argument("--images", type=int, default=10, help="per dataset, and scenes")
    parser.add_argument("--max-masks", type=int, default=100)
    args = parser.parse_args()
    with exit_on_bad_input():
        if args.config_file:
            cfg = get_cfg()
            merge_config_file(cfg, args.config_file)
            register_custom_datasets(cfg.DATASETS.CUSTOM)
        sets = {
            name: list(dataset_examples(name, args.images))
            for name in (*args.dataset, "shapes_val")
        }
    sets["photographs"] = list(photographs())
    rows = []
    for count, compactness, threshold in itertools.product(
        NUM_SEGMENTS, COMPACTNESS, MERGE_THRESHOLD
    ):
        segmentor = SuperpixelSegmentor(
            num_segments=count, compactness=compactness, merge_threshold=threshold
        )
        scores, masks = [], []
        for name, examples in sets.items():
            found = [segmentor([{"image": example.image}])[0].masks.values for example in examples]
            regions = [values.to(torch.uint8).argmax(dim=0) for values in found]
            masks += map(len, found)
            if name == "photographs":
                shares = [explained(*pair) for pair in zip(examples, regions, strict=True)]
                scores.append(float(np.mean(shares)))
            else:
                scores.append(reachable(examples, regions))
        rows.append((count, compactness, threshold, *scores, float(np.mean(masks))))
    rows.sort(key=lambda row: (row[-1] > args.max_masks, -float(np.mean(row[3:-1]))))
    titles = ("NUM_SEGMENTS", "COMPACTNESS", "MERGE_THRESHOLD", *sets, "masks")
    sys.stdout.write(tabulate(rows, headers=titles, floatfmt=".1f") + "\n")


if __name__ == "__main__":
    main()
