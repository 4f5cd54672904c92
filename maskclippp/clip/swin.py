"""Swin Transformer (Liu et al., 2021) as the backbone of Mask2Former, made of timm's parts."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from timm.layers import PatchEmbed, calculate_drop_path_rates
from timm.models.swin_transformer import PatchMerging, SwinTransformerBlock
from torch import Tensor, nn

from maskclippp.clip.towers import Size
from maskclippp.clip.visual_encoder import (
    EncodedImages,
    FeatureShape,
    VisualEncoder,
    input_arguments,
)
from maskclippp.errors import InputError
from maskclippp.files.state_dicts import load_exactly
from maskclippp.files.weights import read_weights
from maskclippp.masks.batching import PaddedBatch
from maskclippp.registry import VISUAL_ENCODER_REGISTRY

NUM_STAGES = 4
# Where the backbone sits in the published Mask2Former checkpoints.
_CHECKPOINT_PREFIX = "backbone."


class PaddedSwinBlock(SwinTransformerBlock):
    """timm's block for maps of any size, padded as in Mask2Former.

    Mask2Former pads a map with 0 to whole windows before it shifts it; timm shifts first, which
    gives the windows at the border other neighbors.
    """

    def __init__(self, *, width: int, heads: int, window: int, **options: Any) -> None:
        super().__init__(
            dim=width,
            # Only read by blocks that adapt their window or mask to a fixed size.
            input_resolution=window,
            num_heads=heads,
            window_size=window,
            always_partition=True,
            dynamic_mask=True,
            **options,
        )
        # Published checkpoints contain the index of the table as well.
        index = self.attn.get_buffer("relative_position_index")
        self.attn.register_buffer("relative_position_index", index)

    def _attn(self, x: Tensor) -> Tensor:
        height, width = x.shape[1:3]
        window_height, window_width = self.window_size
        padded = F.pad(x, (0, 0, 0, -width % window_width, 0, -height % window_height))
        attended: Tensor = SwinTransformerBlock._attn(self, padded)
        return attended[:, :height, :width]

    def get_attn_mask(
        self,
        x: Tensor | None = None,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor | None:
        """See timm; all blocks of a stage share the mask, and images of one size do."""
        if x is None or not any(self.shift_size) or torch.compiler.is_exporting():
            return super().get_attn_mask(x, device, dtype)
        size = (x.shape[1], x.shape[2])
        return _shift_mask(size, self.window_size, self.shift_size, x.device, x.dtype)


@lru_cache(maxsize=NUM_STAGES)  # tens of megabytes for large images
@torch.inference_mode(mode=False)  # training may need it after an evaluation
def _shift_mask(
    size: Size, window: Size, shift: Size, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """Attention bias [windows, cells, cells]: -100 where only the shift made neighbors, else 0.

    Along an axis these are the cells of the last window that come from the other end.
    """
    parts = []
    for length, extent, offset in zip(size, window, shift, strict=True):
        position = torch.arange(length, device=device)
        part = (position >= length - extent).int() + (position >= length - offset)
        parts.append(part.unflatten(0, (-1, extent)))
    rows, columns = parts
    part = rows[:, None, :, None] * 3 + columns[None, :, None, :]
    part = part.flatten(2).flatten(0, 1)
    return (part[:, None] != part[:, :, None]).to(dtype) * -100


class SwinStage(nn.Module):
    """Blocks at one resolution, every other one with shifted windows; then downsampling."""

    def __init__(
        self,
        *,
        width: int,
        heads: int,
        window: int,
        drop_path: Sequence[float],
        has_next: bool,
        **options: Any,
    ) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            *[
                PaddedSwinBlock(
                    width=width,
                    heads=heads,
                    window=window,
                    shift_size=window // 2 if index % 2 else 0,
                    drop_path=rate,
                    **options,
                )
                for index, rate in enumerate(drop_path)
            ]
        )
        self.downsample = PatchMerging(width) if has_next else nn.Identity()


class SwinBackbone(nn.Module):
    """Four stages, each with a norm for its output; state-dict keys as in Mask2Former.

    Args:
        patch_size: side of the patches that become cells of the first stage.
        embed_dim: width of the first stage; doubles from stage to stage.
        depths, num_heads: blocks, and attention heads, of the four stages.
        window_size: side of the attention windows, in cells.
        mlp_ratio, qkv_bias, patch_norm: variants of the blocks and of the patch embedding.
        drop_rate, attn_drop_rate, drop_path_rate: regularization, in training only.

    Raises:
        InputError: ``depths`` or ``num_heads`` does not have four entries.
    """

    def __init__(
        self,
        *,
        patch_size: int = 4,
        embed_dim: int = 96,
        depths: Sequence[int] = (2, 2, 6, 2),
        num_heads: Sequence[int] = (3, 6, 12, 24),
        window_size: int = 7,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        patch_norm: bool = True,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        for key, values in (("DEPTHS", depths), ("NUM_HEADS", num_heads)):
            if len(values) != NUM_STAGES:
                raise InputError(
                    f"MODEL.SWIN.{key}: expected {NUM_STAGES} numbers, one per stage, "
                    f"found {list(values)}"
                )
        widths = [embed_dim * 2**stage for stage in range(NUM_STAGES)]
        self.patch_size = patch_size
        self.embed_dim = embed_dim
        self.patch_embed = PatchEmbed(
            img_size=None,
            patch_size=patch_size,
            embed_dim=embed_dim,
            norm_layer=nn.LayerNorm if patch_norm else None,
            output_fmt="NHWC",
            dynamic_img_pad=True,
        )
        self.drop = nn.Dropout(drop_rate)
        drop_path = cast(
            list[list[float]],
            calculate_drop_path_rates(drop_path_rate, list(depths), stagewise=True),
        )
        self.layers = nn.ModuleList(
            SwinStage(
                width=widths[stage],
                heads=num_heads[stage],
                window=window_size,
                drop_path=drop_path[stage],
                has_next=stage + 1 < NUM_STAGES,
                mlp_ratio=mlp_ratio,
                qkv_bias=qkv_bias,
                proj_drop=drop_rate,
                attn_drop=attn_drop_rate,
            )
            for stage in range(NUM_STAGES)
        )
        for stage, width in enumerate(widths):
            self.add_module(f"norm{stage}", nn.LayerNorm(width))

    @property
    def stages(self) -> Iterable[SwinStage]:
        """``layers``, typed."""
        return cast(Iterable[SwinStage], self.layers)

    def output(self, stage: int, cells: Tensor) -> Tensor:
        """The normalized map of a stage: [B, h, w, C] -> [B, C, h, w]."""
        return self.get_submodule(f"norm{stage}")(cells).permute(0, 3, 1, 2)


@VISUAL_ENCODER_REGISTRY.register()
class D2SwinTransformer(VisualEncoder):
    """The backbone of Mask2Former: maps ``res2`` to ``res5`` at strides 4 to 32; no embeddings."""

    valid_features = ("res2", "res3", "res4", "res5")
    model_sections: ClassVar[Mapping[str, str]] = {"swin": "SWIN"}
    proxy: SwinBackbone

    @classmethod
    def from_config(  # type: ignore[override]  # see model_sections
        cls, cfg: CfgNode, swin: CfgNode
    ) -> dict[str, Any]:
        """Arguments from a VISUAL_ENCODER node and MODEL.SWIN; loads the pretrained weights."""
        backbone = SwinBackbone(**_network_arguments(swin))
        _load_pretrained(backbone, cfg)
        return {
            **input_arguments(cfg),
            "proxy": backbone,
            "gradient_checkpointing": cfg.GRADIENT_CHECKPOINTING or swin.USE_CHECKPOINT,
        }

    def encode(self, batch: PaddedBatch, *, with_masks: bool) -> EncodedImages:
        """The maps of the stages. See :class:`VisualEncoder`; an InputError if masks are given."""
        if with_masks:
            raise InputError(
                "D2SwinTransformer makes no mask embeddings: it can be the generator's encoder "
                "(VISUAL_ENCODER_F.NAME), not the mask classifier (VISUAL_ENCODER.NAME)"
            )
        encoded = EncodedImages(batch)
        backbone = self.proxy
        cells = backbone.drop(backbone.patch_embed(batch.images))
        for index, stage in enumerate(backbone.stages):
            for block in stage.blocks:
                cells = self._run_block(block, cells)
            output = partial(backbone.output, index, cells)
            self._keep(encoded, self.valid_features[index], output)
            cells = stage.downsample(cells)
        return encoded

    def feature_shapes(self) -> dict[str, FeatureShape]:
        """See :class:`VisualEncoder`."""
        shapes = (
            FeatureShape(self.proxy.embed_dim * 2**index, self.proxy.patch_size * 2**index)
            for index in range(NUM_STAGES)
        )
        return {
            name + self.feature_suffix: shape
            for name, shape in zip(self.valid_features, shapes, strict=True)
            if name in self.out_features
        }

    def blocks(self) -> Iterator[nn.Module]:
        """See :class:`VisualEncoder`."""
        for stage in self.proxy.stages:
            yield from stage.blocks


def _network_arguments(swin: CfgNode) -> dict[str, Any]:
    """Keyword arguments of :class:`SwinBackbone` from MODEL.SWIN.

    PRETRAIN_IMG_SIZE only matters for absolute position embeddings, which no published model has.
    """
    if swin.APE:
        raise InputError(
            "MODEL.SWIN.APE: absolute position embeddings are not available; set False"
        )
    if swin.QK_SCALE is not None:
        raise InputError(
            f"MODEL.SWIN.QK_SCALE: only None (1 / sqrt of the head's width), found {swin.QK_SCALE}"
        )
    keys = (
        *("PATCH_SIZE", "EMBED_DIM", "DEPTHS", "NUM_HEADS", "WINDOW_SIZE", "MLP_RATIO"),
        *("QKV_BIAS", "PATCH_NORM", "DROP_RATE", "ATTN_DROP_RATE", "DROP_PATH_RATE"),
    )
    return {key.lower(): swin[key] for key in keys}


def _load_pretrained(backbone: SwinBackbone, node: CfgNode) -> None:
    """Load PRETRAINED (a Mask2Former checkpoint, or ``random``), then LOAD_FROM on top."""
    if node.PRETRAINED != "random":
        load_weights(backbone, node.PRETRAINED, _CHECKPOINT_PREFIX)
    if node.LOAD_FROM:
        load_weights(backbone, node.LOAD_FROM, node.LOAD_BEG_KEY)


def load_weights(backbone: SwinBackbone, file: str, prefix: str) -> None:
    """Load all weights from the keys of ``file`` that start with ``prefix``.

    Raises:
        InputError: the file is of another network; lists the disagreements.
        MissingFileError, CheckpointError: see :func:`maskclippp.files.weights.read_weights`.
    """
    content = read_weights(Path(file).expanduser(), known=[prefix])
    found = {k.removeprefix(prefix): v for k, v in content.items() if k.startswith(prefix)}
    source = f"{file}, keys {prefix}*"
    load_exactly(backbone, found, source=source, model_name="the Swin Transformer of MODEL.SWIN")
