"""Position embeddings keep their class row and their corners at every grid."""

import pytest
import torch
from torch.testing import assert_close

from maskclippp.clip.position_embedding import resize_position_embedding


def test_the_own_grid_is_returned_as_it_is() -> None:
    embedding = torch.randn(1 + 16, 5)
    assert resize_position_embedding(embedding, (4, 4)) is embedding


@pytest.mark.parametrize("grid", [(3, 5), (4, 8), (1, 1), (9, 2)])
def test_every_grid_has_one_row_per_cell_after_the_class_row(grid: tuple[int, int]) -> None:
    embedding = torch.randn(1 + 16, 5)
    resized = resize_position_embedding(embedding, grid)
    assert resized.shape == (1 + grid[0] * grid[1], 5)
    assert torch.equal(resized[0], embedding[0])


def test_corners_stay_at_the_corners() -> None:
    embedding = torch.randn(1 + 16, 5)
    cells = embedding[1:].view(4, 4, 5)
    resized = resize_position_embedding(embedding, (7, 6))[1:].view(7, 6, 5)
    for row in (0, -1):
        for column in (0, -1):
            assert_close(resized[row, column], cells[row, column])


def test_rows_and_columns_are_not_mixed_up() -> None:
    rows = torch.arange(4.0)[:, None].expand(4, 4)
    embedding = torch.cat([torch.zeros(1), rows.flatten()])[:, None]
    resized = resize_position_embedding(embedding, (10, 3))[1:].view(10, 3)
    assert_close(resized, resized[:, :1].expand(10, 3))
    assert (resized[:, 0].diff() > 0).all()


def test_half_precision_is_resized_in_float32() -> None:
    embedding = torch.randn(1 + 16, 5).half()
    resized = resize_position_embedding(embedding, (6, 7))
    assert resized.dtype == torch.float16
    assert torch.equal(resized, resize_position_embedding(embedding.float(), (6, 7)).half())


@pytest.mark.parametrize("grid", [(3, 5), (4, 8), (1, 1), (9, 2)])
def test_training_resizes_like_evaluation(grid: tuple[int, int]) -> None:
    """In training by matrices, whose gradient is deterministic also on GPUs."""
    embedding = torch.randn(1 + 16, 5, requires_grad=True)
    with torch.no_grad():
        expected = resize_position_embedding(embedding, grid)
    with torch.autocast("cpu", torch.bfloat16):
        resized = resize_position_embedding(embedding, grid)
    assert_close(resized, expected, rtol=1e-5, atol=1e-5)


def test_the_embedding_is_trained_through_another_grid() -> None:
    embedding = torch.randn(1 + 16, 5, requires_grad=True)
    resize_position_embedding(embedding, (6, 7)).square().sum().backward()
    assert embedding.grad is not None
    assert embedding.grad.any(dim=1).all()


def test_a_table_that_is_no_square_grid_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected 1 \+ g\*g rows, found 16"):
        resize_position_embedding(torch.randn(16, 5), (2, 2))
