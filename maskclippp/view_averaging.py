"""Test-time augmentation of semantic segmentation: several sizes of an image, also mirrored.

The scores of the views (sums over masks of class probability x mask) are averaged at the output
size. Scores are linear in the masks. Therefore the masks of all views are kept at the resolution at
which they were found, with their class probabilities, and the scores are computed for a few output
rows at a time: classes x pixels floats are never stored.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from detectron2.config import CfgNode
from torch import Tensor, nn
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from maskclippp.data.mappers.images import image_to_tensor
from maskclippp.data.mappers.transforms import shortest_edge_size
from maskclippp.errors import InputError
from maskclippp.inference.postprocess import ClassifiedMasks
from maskclippp.masks.resampling import Taps, resample
from maskclippp.meta_arch import MaskCLIPpp
from maskclippp.records import ImageResult, Record
from maskclippp.words.requested import RequestedWords

logger = logging.getLogger(__name__)

# Scores stored at a time: 256 MiB as float32.
_BUDGET = 64 * 2**20
# Score maps that live at once while one view is added to the sum.
_COPIES = 4
_OWN_RESIZING = ("short", "square")


@dataclass(frozen=True)
class ViewScores:
    """The scores [K, H, W] of one view of an image, computed by rows (:meth:`band`).

    Attributes:
        probabilities: [Q, K], class probabilities of the masks.
        masks: [Q, h, w], no larger than the output.
        rows, columns: the maps that resize masks to the output size [H, W].
    """

    probabilities: Tensor
    masks: Tensor
    rows: Taps
    columns: Taps

    @classmethod
    def of(cls, found: ClassifiedMasks, size: tuple[int, int], *, mirrored: bool) -> "ViewScores":
        """From the masks of a view, for an output size.

        ``mirrored``: the view is a mirror image; the scores are mirrored back.
        """
        values, rows, columns = found.masks.reduced(size)
        columns = columns.flipped() if mirrored else columns
        return cls(found.probabilities, values, rows, columns)

    def band(self, first: int, last: int) -> Tensor:
        """float32 [K, last - first, W]: the scores of the output rows first..last-1."""
        read, rows = self.rows[first:last].cropped()
        masks = self.masks[:, read].float()
        scores = torch.einsum("qk,qhw->khw", self.probabilities, masks)
        return resample(scores, rows, self.columns)


def best_mean_scores(views: Sequence[ViewScores]) -> Tensor:
    """int64 [H, W]: the class with the greatest mean score over the views, for every pixel."""
    num_classes = views[0].probabilities.shape[1]
    height, width = len(views[0].rows), len(views[0].columns)
    step = max(1, _BUDGET // (_COPIES * num_classes * width))
    bands = []
    for first in range(0, height, step):
        last = min(first + step, height)
        total = views[0].band(first, last)
        for view in views[1:]:
            total += view.band(first, last)
        bands.append(total.argmax(dim=0))
    return torch.cat(bands)


class SemanticTestTimeAugmentation(nn.Module):
    """Segments every image semantically as the mean over several views.

    Args:
        model: segments one view.
        min_sizes: shorter sides of the views, in pixels.
        max_size: the longest side of a view.
        flip: add every view mirrored.
    """

    def __init__(
        self, model: MaskCLIPpp, *, min_sizes: Sequence[int], max_size: int, flip: bool
    ) -> None:
        super().__init__()
        self.model = model
        self.min_sizes = tuple(min_sizes)
        self.max_size = max_size
        self.flip = flip
        # After an evaluation this module, and with it the model, is set back to its own mode.
        self.train(model.training)

    @classmethod
    def from_config(cls, cfg: CfgNode, model: nn.Module) -> "SemanticTestTimeAugmentation":
        """Wrap a model as TEST.AUG describes.

        Raises:
            InputError: see :func:`check_augmentation`; or the model is not a MaskCLIPpp.
        """
        check_augmentation(cfg)
        if not isinstance(model, MaskCLIPpp):
            raise InputError(
                "TEST.AUG.ENABLED: test-time augmentation averages the masks of MaskCLIPpp, but "
                f"MODEL.META_ARCHITECTURE is {type(model).__name__}; set it False"
            )
        node = cfg.TEST.AUG
        return cls(model, min_sizes=node.MIN_SIZES, max_size=node.MAX_SIZE, flip=node.FLIP)

    @property
    def requested_words(self) -> RequestedWords:
        """See :class:`MaskCLIPpp`."""
        return self.model.requested_words

    def set_test_dataset(self, name: str) -> None:
        """See :class:`MaskCLIPpp`."""
        self.model.set_test_dataset(name)

    @torch.no_grad()
    def forward(self, batched_inputs: Sequence[Record]) -> list[ImageResult]:
        """Results per image: ``sem_seg_labels`` int64 [H, W] and ``category_overlapping_mask``.

        Args:
            batched_inputs: as for ``MaskCLIPpp.forward``, with images at their original size.
        """
        words = self.requested_words
        return [
            {
                "sem_seg_labels": best_mean_scores(list(self._views(record))),
                "category_overlapping_mask": words.seen,
            }
            for record in batched_inputs
        ]

    def _views(self, record: Record) -> Iterator[ViewScores]:
        image = F.to_pil_image(record["image"])
        size = (record.get("height", image.height), record.get("width", image.width))
        for min_size in self.min_sizes:
            view_size = shortest_edge_size(image.height, image.width, min_size, self.max_size)
            resized = F.resize(image, list(view_size), v2.InterpolationMode.BILINEAR)
            view: Record = {**record, "image": image_to_tensor(resized)}
            for mirrored in (False, True) if self.flip else (False,):
                (found,) = self.model.classify_masks([_mirrored(view) if mirrored else view])
                yield ViewScores.of(found, size, mirrored=mirrored)


def check_augmentation(cfg: CfgNode) -> None:
    """Check TEST.AUG of a complete config; log a warning if the sizes have no effect.

    Raises:
        InputError: the config asks for something that test-time augmentation cannot do.
    """
    node, test = cfg.TEST.AUG, cfg.MODEL.MASKCLIPPP.TEST
    if not node.MIN_SIZES or min(node.MIN_SIZES) < 1:
        raise InputError(
            f"TEST.AUG.MIN_SIZES: expected sizes in pixels, found {list(node.MIN_SIZES)}"
        )
    for key, is_on in (("MASK_ACC", test.MASK_ACC), ("SEGMENTOR_ONLY", test.SEGMENTOR_ONLY)):
        if is_on:
            raise InputError(
                "TEST.AUG.ENABLED: test-time augmentation is for semantic segmentation; set it "
                f"False, or MODEL.MASKCLIPPP.TEST.{key} False"
            )
    if node.FLIP and cfg.MODEL.MASKCLIPPP.SEGMENTOR.NAME == "OfflineSegmentor":
        raise InputError(
            "TEST.AUG.FLIP: the files of OfflineSegmentor hold no masks of mirrored images; set it "
            "False"
        )
    for name in ("VISUAL_ENCODER", "VISUAL_ENCODER_F"):
        encoder = cfg.MODEL.MASKCLIPPP[name]
        if encoder.NAME != "none" and encoder.TEST_RESIZE_TYPE in _OWN_RESIZING:
            logger.warning(
                "TEST.AUG.MIN_SIZES hardly changes what %s sees, which resizes images to %d pixels "
                "itself; with MODEL.MASKCLIPPP.%s.TEST_RESIZE_TYPE rel or none it follows the size",
                *(name, encoder.TEST_IMAGE_SIZE, name),
            )


def augmentation_config(cfg: CfgNode) -> CfgNode:
    """The config for evaluation with test-time augmentation.

    Only semantic segmentation is evaluated, and images are read at their original size.
    """
    cfg = cfg.clone()
    cfg.defrost()
    outputs = cfg.MODEL.MASK_FORMER.TEST
    outputs.SEMANTIC_ON, outputs.PANOPTIC_ON, outputs.INSTANCE_ON = True, False, False
    cfg.INPUT.MIN_SIZE_TEST = 0
    cfg.freeze()
    return cfg


def _mirrored(record: Record) -> Record:
    """The record of the mirrored image; generators of ground-truth masks read its annotations."""
    mirrored: Record = {**record, "image": record["image"].flip(-1)}
    if "sem_seg" in record:
        mirrored["sem_seg"] = record["sem_seg"].flip(-1)
    if "pan_seg" in record:
        mirrored["pan_seg"] = record["pan_seg"].flip(-1)
    return mirrored
