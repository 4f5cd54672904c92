"""What a caller gives the model as images."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from maskclippp.errors import InputError
from maskclippp.records import check_images

IMAGE = torch.full((3, 4, 5), 200, dtype=torch.uint8)


@pytest.mark.parametrize(
    "image",
    [IMAGE, IMAGE.float(), IMAGE * 0, IMAGE.double() * 0, IMAGE.half(), IMAGE.float() + 55],
)
def test_images_of_0_to_255_are_accepted(image: torch.Tensor) -> None:
    check_images([{"image": image, "height": 8, "width": 10}])
    check_images([])


@pytest.mark.parametrize(
    ("image", "found"),
    [
        (IMAGE / 255, r"values 0.784..0.784: \(255 \* image\).to\(torch.uint8\)"),
        (IMAGE - 300.0, r"values -100..-100"),
        (IMAGE * 2.0, r"values 400..400"),
        (IMAGE + 55.5, r"values 256..256"),
        (IMAGE * float("nan"), r"values nan..nan"),
        (IMAGE.int(), r"torch.int32: convert it"),
        (IMAGE > 0, r"torch.bool: convert it"),
        (IMAGE.permute(1, 2, 0), r"\[4, 5, 3\]: image.permute\(2, 0, 1\)"),
        (IMAGE[:1], r"\[1, 4, 5\]: .* gray"),
        (IMAGE[0], r"\[4, 5\]: .* gray"),
        (IMAGE[[0, 1, 2, 0]], r"\[4, 4, 5\]: image\[:3\] drops opacity"),
        (IMAGE[None], r"\[1, 3, 4, 5\]: give each image"),
        (IMAGE[:, :0], r"\[3, 0, 5\]"),
        (IMAGE[0, 0, 0], r"shape \[\]"),
        (IMAGE[:2], r"\[2, 4, 5\]"),
        (IMAGE.numpy(), r"numpy.ndarray of shape \[3, 4, 5\]: torch.from_numpy"),
        ("a.jpg", r"the path 'a.jpg': read the file"),
        (Path("a.jpg"), r"the path .*a.jpg.*: read the file"),
        (None, r"nothing"),
        ([IMAGE], r"list"),
        (3, r"int"),
    ],
)
def test_another_form_is_named_with_the_remedy(image: Any, found: str) -> None:
    good = {"image": IMAGE}
    with pytest.raises(InputError, match=f"^image of record 1: expected an RGB image .*{found}"):
        check_images([good, {"image": image}])


@pytest.mark.parametrize(
    "records", [IMAGE, {"image": IMAGE}, [IMAGE], [np.zeros(3)], None, "a.jpg"]
)
def test_what_is_no_list_of_records_is_named(records: Any) -> None:
    with pytest.raises(InputError, match=r"a dictionary per image, such as \[\{'image': image\}\]"):
        check_images(records)


@pytest.mark.parametrize("height", [0, -1, "7", 2.5, True])
def test_the_size_of_the_results_is_positive(height: Any) -> None:
    with pytest.raises(InputError, match=r"height of record 0: .*found"):
        check_images([{"image": IMAGE, "height": height, "width": 3}])
