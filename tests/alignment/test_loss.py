"""The loss equals loops over images and labels, on one and on several processes."""

import itertools
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.testing import assert_close

from benchmarks.plain import model as plain
from maskclippp.alignment import ReweightCELoss, build_criterion
from tests.engine.processes import run_in_processes
from tests.tiny_models import tiny_config

IGNORED = 255
LAYOUTS = [[3, 5, 2], [4], [0, 6, 0, 1], [1, 1]]


def inputs(counts: list[int], num_classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, labels (some ignored) and the image of every mask."""
    images = torch.repeat_interleave(torch.tensor(counts))
    labels = torch.randint(0, num_classes, (len(images),))
    labels[torch.rand(len(images)) < 0.2] = IGNORED
    return torch.randn(len(images), num_classes, requires_grad=True), labels, images


@pytest.mark.parametrize(
    ("counts", "balance", "empty", "num_classes"),
    list(itertools.product(LAYOUTS, [False, True], [False, True], [1, 4])),
)
def test_equals_loops_over_images_and_labels(
    counts: list[int], balance: bool, empty: bool, num_classes: int
) -> None:
    logits, labels, images = inputs(counts, num_classes)
    areas = torch.rand(len(images)).sub(0.3).clamp(min=0)
    criterion = ReweightCELoss(
        temperature=0.5, balance_cls=balance, ignore_empty=empty, ignore_index=IGNORED
    )
    loss = criterion(logits, labels, images, len(counts), areas)
    expected = plain.reweighted_cross_entropy(
        logits,
        labels,
        images,
        len(counts),
        temperature=0.5,
        balance_cls=balance,
        ignore_index=IGNORED,
        areas=areas if empty else None,
    )
    assert_close(loss, expected)
    assert_close(torch.autograd.grad(loss, logits), torch.autograd.grad(expected, logits))


def test_every_image_counts_the_same() -> None:
    logits = torch.zeros(5, 2, requires_grad=True)
    images = torch.tensor([0, 0, 0, 0, 1])
    ReweightCELoss()(logits, torch.zeros(5).long(), images, 2).backward()
    assert logits.grad is not None
    per_mask = logits.grad.abs().sum(dim=1)
    assert_close(per_mask[:4].sum(), per_mask[4])


@pytest.mark.parametrize("counts", [[0], [0, 0]])
def test_no_masks_give_zero_within_the_graph(counts: list[int]) -> None:
    logits, labels, images = inputs(counts, 4)
    loss = ReweightCELoss(balance_cls=True)(logits, labels, images, len(counts))
    assert loss == 0
    loss.backward()
    assert logits.grad is not None


@pytest.mark.parametrize("reason", ["ignored", "empty"])
def test_nothing_left_gives_zero_and_no_gradient(reason: str) -> None:
    logits, labels, images = inputs([3, 2], 4)
    areas = torch.ones(5)
    if reason == "ignored":
        labels[:] = IGNORED
    else:
        areas[:] = 0
    criterion = ReweightCELoss(balance_cls=True, ignore_empty=True, ignore_index=IGNORED)
    loss = criterion(logits, labels, images, 2, areas)
    assert loss == 0
    loss.backward()
    assert logits.grad is not None
    assert not logits.grad.any()


def test_a_nan_loss_becomes_zero_only_when_asked() -> None:
    logits, labels, images = torch.full((1, 3), float("nan")), torch.tensor([0]), torch.tensor([0])
    assert ReweightCELoss()(logits, labels, images, 1).isnan()
    assert ReweightCELoss(ignore_nan=True)(logits, labels, images, 1) == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_are_counted_in_full(dtype: torch.dtype) -> None:
    """Counts of hundreds of masks saturate in bfloat16; weights of empty groups vanish in half."""
    labels = torch.arange(400) % 4
    image = torch.zeros(400, dtype=torch.int64)
    criterion = ReweightCELoss(balance_cls=True, ignore_empty=True)
    areas = (labels != 3).float()  # one label's masks are all empty
    loss = criterion(torch.zeros(400, 4, dtype=dtype), labels, image, 1, areas)
    assert_close(loss, torch.tensor(4.0).log())


def test_temperature_must_be_positive() -> None:
    with pytest.raises(ValueError, match=r"CRITERION\.TEMPERATURE: expected > 0, found 0"):
        build_criterion(tiny_config(".CRITERION.TEMPERATURE", 0.0))


def _save_loss(folder: Path, *, rank: int, world_size: int) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world_size
    )
    logits, labels, images = torch.load(folder / "inputs.pt")
    own = (images % 2) == rank
    leaf = logits.detach()[own].requires_grad_()
    loss = ReweightCELoss(balance_cls=True)(leaf, labels[own], images[own] // 2, 2)
    loss.backward()
    torch.save((loss.detach(), leaf.grad, own), folder / f"{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_average_to_the_loss_of_the_whole_batch(tmp_path: Path) -> None:
    """Also when the processes have different numbers of images with masks."""
    logits, _, images = inputs([3, 2, 4, 0], 4)
    labels = torch.randint(0, 4, (9,))
    torch.save((logits.detach(), labels, images), tmp_path / "inputs.pt")
    assert run_in_processes(_save_loss, tmp_path, world_size=2) == [0, 0]
    whole = ReweightCELoss(balance_cls=True)(logits, labels, images, 4)
    whole.backward()
    results = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    assert_close(sum(loss for loss, _, _ in results) / 2, whole.detach())
    gradient = torch.zeros_like(logits)
    for _, own_gradient, own in results:
        gradient[own] = own_gradient / 2
    assert_close(gradient, logits.grad)
