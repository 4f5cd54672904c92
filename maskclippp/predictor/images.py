"""What people give as images and masks, checked."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from maskclippp.errors import InputError
from maskclippp.files.images import upright_rgb

IMAGE_ENDINGS = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


def images_of(folder: str | Path) -> list[Path]:
    """The images in a folder by name, without hidden ones.

    Raises:
        InputError: not a folder, or one without images.
    """
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise InputError(f"{folder} is not a folder (looked in {Path.cwd()})")
    images = sorted(
        file
        for file in path.iterdir()
        if file.suffix.lower() in IMAGE_ENDINGS and not file.name.startswith(".")
    )
    if not images:
        raise InputError(f"{folder} has no image; expected names that end with {IMAGE_ENDINGS}")
    return images


def as_pillow(image: Any) -> Image.Image:
    """An RGB image of pixels in memory; an InputError if they have another form."""
    if isinstance(image, Image.Image):
        return upright_rgb(image, "the image", reduce_depth=True)
    if isinstance(image, Tensor):
        expected, array = "a tensor uint8 [3, H, W]", image.detach().cpu().numpy()
        array = np.moveaxis(array, 0, -1) if array.ndim == 3 else array
    elif isinstance(image, np.ndarray):
        expected, array = "an array uint8 [H, W, 3]", image
    else:
        raise InputError(
            f"an image of type {type(image).__name__}: expected a path, a Pillow image, an array "
            "uint8 [H, W, 3] or a tensor uint8 [3, H, W]"
        )
    form = f"{image.dtype} {list(image.shape)}"
    if array.dtype != np.uint8:
        raise InputError(
            f"expected {expected} with values 0..255, found {form}: scale the values and convert "
            "them first"
        )
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if 0 in array.shape or not (array.ndim == 2 or (array.ndim == 3 and array.shape[-1] in (3, 4))):
        raise InputError(f"expected {expected}, RGB, found {form}: check the order of its axes")
    return Image.fromarray(array).convert("RGB")


def checked_masks(masks: npt.NDArray[Any] | Tensor, size: tuple[int, ...]) -> Tensor:
    """Bool or float [N, H, W]; an InputError if the masks have another form."""
    try:
        given = masks if isinstance(masks, Tensor) else torch.from_numpy(np.array(masks))
    except (TypeError, ValueError) as error:
        raise InputError(
            f"expected masks as an array [N, {size[0]}, {size[1]}], found a "
            f"{type(masks).__name__} that cannot become one ({error})"
        ) from error
    if given.ndim != 3 or tuple(given.shape[1:]) != tuple(size):
        raise InputError(
            f"expected masks [N, {size[0]}, {size[1]}], the size of the image, found "
            f"{list(given.shape)}"
        )
    if not given.is_floating_point():
        return given != 0
    low, high = (given.amin().item(), given.amax().item()) if given.numel() else (0, 0)
    if not (low >= 0 and high <= 1):  # also true for NaN
        raise InputError(f"masks are bool or probabilities in 0..1, found {low:g}..{high:g}")
    return given.float()
