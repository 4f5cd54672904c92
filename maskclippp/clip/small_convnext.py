"""The image trunk of the built-in world's CLIP, known to timm as ``shapes_convnext_s16``."""

from typing import Any

from timm.models import register_model
from timm.models.convnext import ConvNeXt


@register_model
def shapes_convnext_s16(**options: Any) -> ConvNeXt:
    """A ConvNeXt of 0.35 M parameters whose last feature map has stride 16 instead of 32.

    Small objects then cover several cells. Smaller kernels in the last stages, where a cell is
    16 pixels wide, keep the cost of the coarser grid.
    """
    unused = ("pretrained", "cache_dir", "pretrained_cfg", "pretrained_cfg_overlay")
    options = {key: value for key, value in options.items() if key not in unused}
    trunk = ConvNeXt(
        depths=(1, 1, 1, 1),
        dims=(32, 64, 96, 128),
        kernel_sizes=(7, 7, 5, 3),
        output_stride=16,
        norm_eps=1e-5,
        act_layer="gelu_tanh",
        **options,
    )
    trunk.default_cfg = {"pool_size": (4, 4)}  # type: ignore[assignment]  # open_clip reads it
    return trunk
