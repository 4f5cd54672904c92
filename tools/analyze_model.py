"""Parameters, FLOPs and memory of every part of a model.

    python tools/analyze_model.py --config-file configs/... [--image-size H W] [KEY VALUE ...]

Weights are random, so nothing is downloaded. One image is brought to the test size of the config
and sent through the model.

FLOPs are two per multiply-add, of convolutions, matrix products and attention, as PyTorch counts
them in a real forward pass. Element-wise operations, resizing, gathers and what runs in NumPy are
not counted. ``activations`` is the largest sum of all tensors at any moment of a part that did not
exist before the image, in float32, without what an operator needs for itself. The text tower is
paid once per sentence (a synonym in a template), not per image.
"""

import argparse
import sys
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY)]

import maskclippp  # noqa: E402, F401  (makes detectron2 importable)

# isort: split
from detectron2.config import CfgNode  # noqa: E402

from benchmarks.model_stages import (  # noqa: E402
    STAGES,
    RandomTextEncoder,
    made_up_record,
    stage_ends,
    without_text_towers,
)
from benchmarks.workload import Workload, name_random_weights, register_classes  # noqa: E402
from maskclippp.clip import build_text_tower  # noqa: E402
from maskclippp.config.keys import get_cfg  # noqa: E402
from maskclippp.config.merging import merge_config_file, merge_options  # noqa: E402
from maskclippp.errors import exit_on_bad_input  # noqa: E402
from maskclippp.meta_arch import MaskCLIPpp  # noqa: E402

SENTENCE = "a photo of a cat."
MIB = 2**20


@dataclass(frozen=True)
class Part:
    """What one part of a model has and needs.

    Attributes:
        parameters: numbers, and how many of them the config trains.
        flops: of one image, or of one sentence in a text tower.
        activations: bytes.
    """

    name: str
    parameters: int
    trained: int
    flops: int
    activations: int


class Counter(TorchDispatchMode):
    """Counts FLOPs and the bytes of living tensors, of all that runs inside.

    PyTorch's own counter takes modules apart with hooks on gradients, which inference has not.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops = self.peak = self._living = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        known = {id(t.untyped_storage()) for t in tree_leaves((args, kwargs)) if _is_dense(t)}
        out = func(*args, **kwargs)
        if func._overloadpacket in flop_registry:
            self.flops += flop_registry[func._overloadpacket](*args, **kwargs, out_val=out)
        for tensor in filter(_is_dense, tree_leaves(out)):
            self._add(tensor.untyped_storage(), known)
        return out

    def begin_part(self) -> None:
        """Forget the FLOPs and the peak so far."""
        self.flops, self.peak = 0, self._living

    def _add(self, storage: Any, known: set[int]) -> None:
        key, size = id(storage), storage.nbytes()
        if key in self._seen or key in known:  # a view of what is there
            return
        self._seen.add(key)
        self._living += size
        self.peak = max(self.peak, self._living)
        weakref.finalize(storage, self._remove, key, size)

    def _remove(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self._living -= size


def _is_dense(value: Any) -> bool:
    return isinstance(value, Tensor) and value.layout == torch.strided


def main(arguments: Sequence[str] | None = None) -> None:
    """Do what the command line says; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", type=Path, required=True)
    parser.add_argument("--image-size", type=int, nargs=2, default=(480, 640), metavar=("H", "W"))
    parser.add_argument("--classes", type=int, default=150, help="in the vocabulary (%(default)s)")
    parser.add_argument("--masks", type=int, default=100, help="if the masks are given")
    parser.add_argument("options", nargs=argparse.REMAINDER, metavar="KEY VALUE")
    args = parser.parse_args(arguments)
    for name, values in (("--image-size", args.image_size), ("--classes", [args.classes])):
        if min(values) < 1:
            parser.error(f"{name}: expected positive numbers, found {min(values)}")
    cfg = get_cfg()
    merge_config_file(cfg, args.config_file)
    merge_options(cfg, args.options)
    work = Workload(classes=args.classes, image_size=tuple(args.image_size), masks=args.masks)
    parts = analyze(cfg, work)
    sys.stdout.write(table(parts) + "\n")


def analyze(cfg: CfgNode, work: Workload) -> list[Part]:
    """All parts of the model of a config, in the order in which an image meets them."""
    cfg = cfg.clone()
    name_random_weights(cfg)
    cfg.MODEL.DEVICE = "cpu"
    cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = (register_classes(work.classes),)
    model = MaskCLIPpp(without_text_towers(cfg)).eval()
    towers = [_text_tower(cfg, "text tower", "TEXT_ENCODER")]
    if getattr(model.mask_generator, "text_classifier", None) is not None:
        towers.append(_text_tower(cfg, "generator text tower", "TEXT_ENCODER_F"))
    return [*towers, *_stages(model, made_up_record(cfg, work))]


def _text_tower(cfg: CfgNode, name: str, key: str) -> Part:
    """A text tower on one sentence."""
    tower = build_text_tower(cfg.MODEL.MASKCLIPPP[key], key).eval()
    counter = _count(lambda: tower([SENTENCE]))
    return Part(name, *_new_parameters(tower, set()), counter.flops, counter.peak)


def _stages(model: MaskCLIPpp, record: dict[str, Any]) -> list[Part]:
    """The stages of one image; the model has no text towers."""
    ends = {**stage_ends(model, model.mask_generator), STAGES[-1]: model}
    counter, parts = Counter(), []
    stand_ins = [m for part in (model, model.mask_generator) for m in part.modules()]
    counted = {id(p) for m in stand_ins if isinstance(m, RandomTextEncoder) for p in m.parameters()}

    def end(name: str, module: nn.Module) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            numbers = _new_parameters(module, counted)
            parts.append(Part(name, *numbers, counter.flops, counter.peak))
            counter.begin_part()

        return hook

    for name, module in ends.items():
        module.register_forward_hook(end(name, module))
    _count(lambda: model([record]), counter)
    return parts


def _count(function: Callable[[], Any], counter: Counter | None = None) -> Counter:
    # Only the plain formulation of attention is made of operators that are counted everywhere.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter or Counter() as counting:
        function()
    return counting


def _new_parameters(module: nn.Module, counted: set[int]) -> tuple[int, int]:
    """The parameters of a module that no part has had before, and the trained ones of them."""
    new = [p for p in module.parameters() if id(p) not in counted]
    counted |= {id(p) for p in new}
    return sum(p.numel() for p in new), sum(p.numel() for p in new if p.requires_grad)


def table(parts: Sequence[Part]) -> str:
    """The parts and their sum as text."""
    image = [part for part in parts if "text tower" not in part.name]
    rows = [_row(part) for part in parts]
    total = Part(
        "all, one image",
        sum(part.parameters for part in parts),
        sum(part.trained for part in parts),
        sum(part.flops for part in image),
        max(part.activations for part in image),
    )
    headers = ("part", "parameters, M", "trained, M", "weights, MiB", "GFLOPs", "activations, MiB")
    return tabulate([*rows, _row(total)], headers=headers, floatfmt=".2f", numalign="right")


def _row(part: Part) -> tuple[str | float, ...]:
    per = ", one sentence" if "text tower" in part.name else ""
    return (
        part.name + per,
        *(part.parameters / 1e6, part.trained / 1e6, part.parameters * 4 / MIB),
        *(part.flops / 1e9, part.activations / MIB),
    )


if __name__ == "__main__":
    with exit_on_bad_input():
        main()
