"""Cross entropy over masks that weighs every image equally."""

from abc import abstractmethod
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.utils import comm
from torch import Tensor

from maskclippp.errors import InputError
from maskclippp.registry import CRITERION_REGISTRY, Part, get_part


class Criterion(Part):
    """A training loss."""

    @abstractmethod
    def forward(
        self,
        logits: Tensor,
        labels: Tensor,
        image_of_mask: Tensor,
        num_images: int,
        areas: Tensor | None = None,
    ) -> Tensor:
        """The loss of N masks in ``num_images`` images; all processes must call this together.

        Args:
            logits: [N, K].
            labels: int64 [N], 0..K-1 or the label without loss (CRITERION.IGNORE_INDEX).
            image_of_mask: int64 [N], 0..num_images-1.
            num_images: images in this process's batch.
            areas: [N] mask areas on the feature grid.

        Returns:
            A scalar whose mean over processes is the loss of the whole batch. Without any mask it
            is 0, still connected to ``logits``.
        """


@CRITERION_REGISTRY.register()
class ReweightCELoss(Criterion):
    """Weighted cross entropy over the masks of a batch.

    The weight of a mask is 1 / (I n), where I is the number of images with masks (in the whole
    batch, over all processes) and n the number of masks in its image. With ``balance_cls`` every
    label in an image counts equally: the weight is 1 / (I c m), with c distinct labels in the image
    and m masks of that label. Masks labeled ``ignore_index`` have no loss but are counted.

    Args:
        temperature: divides the logits.
        balance_cls: see above.
        ignore_empty: masks with area <= 0 on the feature grid are neither counted nor trained on.
        ignore_index: the label without loss.
        ignore_nan: a loss that is NaN becomes 0 (the gradient of the logits stays NaN).
    """

    @configurable
    def __init__(
        self,
        *,
        temperature: float = 1.0,
        balance_cls: bool = False,
        ignore_empty: bool = False,
        ignore_index: int = -100,
        ignore_nan: bool = False,
    ) -> None:
        super().__init__()
        if temperature <= 0:
            raise InputError(f"CRITERION.TEMPERATURE: expected > 0, found {temperature}")
        self.temperature = temperature
        self.balance_cls = balance_cls
        self.ignore_empty = ignore_empty
        self.ignore_index = ignore_index
        self.ignore_nan = ignore_nan

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Arguments from the complete config."""
        node = cfg.MODEL.MASKCLIPPP.CRITERION
        return {
            "temperature": node.TEMPERATURE,
            "balance_cls": node.BALANCE_CLS,
            "ignore_empty": node.IGNORE_EMPTY,
            "ignore_index": node.IGNORE_INDEX,
            "ignore_nan": node.IGNORE_NAN,
        }

    def forward(
        self,
        logits: Tensor,
        labels: Tensor,
        image_of_mask: Tensor,
        num_images: int,
        areas: Tensor | None = None,
    ) -> Tensor:
        """See :class:`Criterion`; ``ignore_empty`` needs the areas."""
        # In half precision, counts saturate and small weights vanish.
        logits = logits.float()
        counted = torch.ones_like(labels, dtype=torch.float32)
        if self.ignore_empty:
            if areas is None:
                raise InputError("CRITERION.IGNORE_EMPTY needs the areas of the masks")
            counted = (areas > 0).float()
        ignored = labels == self.ignore_index
        weights = self._weights(labels, ignored, counted, image_of_mask, num_images, logits)
        weights = torch.where(ignored, torch.zeros_like(weights), weights)
        targets = torch.where(ignored, torch.zeros_like(labels), labels)
        if logits.shape[0] == 0:
            return logits.sum() * 0
        entropies = F.cross_entropy(logits / self.temperature, targets, reduction="none")
        loss = (entropies * weights).sum()
        return torch.where(loss.isnan(), torch.zeros_like(loss), loss) if self.ignore_nan else loss

    def _weights(
        self,
        labels: Tensor,
        ignored: Tensor,
        counted: Tensor,
        image_of_mask: Tensor,
        num_images: int,
        logits: Tensor,
    ) -> Tensor:
        """[N] weights by segment sums, without Python loops or device synchronization."""

        def count(index: Tensor, size: int) -> Tensor:
            return counted.new_zeros(size).index_add_(0, index, counted)

        masks_of_image = count(image_of_mask, num_images)
        num_nonempty = _mean_over_processes((masks_of_image > 0).sum().to(counted.dtype))
        if not self.balance_cls:
            per_mask = masks_of_image[image_of_mask]
        else:
            slots = logits.shape[1] + 1  # one more for the ignored label
            slot = torch.where(ignored, torch.full_like(labels, slots - 1), labels)
            group = image_of_mask * slots + slot
            masks_of_group = count(group, num_images * slots)
            labels_of_image = (masks_of_group.view(num_images, slots) > 0).sum(dim=1)
            per_mask = masks_of_group[group] * labels_of_image[image_of_mask]
        return counted / (num_nonempty * per_mask).clamp(min=1e-12)


def _mean_over_processes(value: Tensor) -> Tensor:
    """The mean over processes: DDP averages gradients, so sums are divided by it, not the sum."""
    world = comm.get_world_size()
    if world > 1:
        dist.all_reduce(value)
        value = value / world
    return value


def build_criterion(cfg: CfgNode) -> Criterion:
    """Build the loss that the config names."""
    name = cfg.MODEL.MASKCLIPPP.CRITERION.NAME
    criterion = get_part(CRITERION_REGISTRY, name, "MODEL.MASKCLIPPP.CRITERION.NAME")
    loss: Criterion = criterion(cfg)
    return loss
