"""Average checkpoints, or go a part of the way from plain CLIP to a fine-tuned one.

    python tools/average_checkpoints.py A.pth B.pth [C.pth ...] --output averaged.pth
    python tools/average_checkpoints.py TUNED.pth --config-file configs/... --factor 0.5 \
        --output between.pth

The first form gives the mean of the weights (model soups, Wortsman et al. 2022). The second gives
(1 - factor) x plain CLIP + factor x fine-tuned CLIP (WiSE-FT, Wortsman et al. 2022): often better
on unseen classes. Plain CLIP is that of the config; the alignment module, which plain CLIP lacks,
stays as tuned. MODEL.WEIGHTS reads the result.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY)]

import maskclippp  # noqa: E402, F401  (makes detectron2 importable)
from maskclippp.config.keys import get_cfg  # noqa: E402
from maskclippp.config.merging import merge_config_file, merge_options  # noqa: E402
from maskclippp.engine import Trainer  # noqa: E402
from maskclippp.errors import InputError, exit_on_bad_input  # noqa: E402
from maskclippp.files.atomic import atomic_write  # noqa: E402
from maskclippp.files.seal import SealingWriter  # noqa: E402
from maskclippp.files.state_dicts import describe_keys, not_finite  # noqa: E402
from maskclippp.files.weights import read_weights  # noqa: E402

PARTS = ("visual_encoder.", "text_encoder.", "psm.", "criterion.", "logit_scale")
CLIP = ("visual_encoder.", "text_encoder.", "logit_scale")


def main(arguments: Sequence[str] | None = None) -> None:
    """Do what the command line says; see the module's docstring."""
    args = make_parser().parse_args(arguments)
    if args.output.resolve() in {path.resolve() for path in args.checkpoints}:
        raise InputError(f"--output {args.output} is one of the checkpoints: choose another file")
    if args.factor is None:
        state = average(args.checkpoints)
    else:
        if len(args.checkpoints) != 1 or args.config_file is None:
            raise InputError(
                "--factor takes one fine-tuned checkpoint and the --config-file of its CLIP, found "
                f"{len(args.checkpoints)} checkpoints and the config {args.config_file}"
            )
        tuned = _read(args.checkpoints[0])
        plain = plain_clip(args.config_file, args.options)
        state = interpolate(plain, tuned, args.factor, str(args.checkpoints[0]))
    write(state, args.output)
    sys.stdout.write(f"wrote {args.output}: {len(state)} tensors\n")


def make_parser() -> argparse.ArgumentParser:
    """The command line; see --help."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoints", type=Path, nargs="+", metavar="CHECKPOINT")
    parser.add_argument("--output", type=Path, required=True, help="the file that is written")
    parser.add_argument("--factor", type=float, help="0: plain CLIP; 1: the fine-tuned one")
    parser.add_argument("--config-file", type=Path, help="whose CLIP is the plain one")
    parser.add_argument(
        "--options", nargs=argparse.REMAINDER, default=[], metavar="KEY VALUE", help="of the config"
    )
    return parser


def average(checkpoints: Sequence[Path]) -> dict[str, Tensor]:
    """The mean of the tensors of several checkpoints, in their own types.

    Raises:
        InputError: there is only one, or keys or shapes differ, or numbers are not finite.
    """
    if len(checkpoints) < 2:
        raise InputError(
            f"an average is one of several checkpoints, found only {checkpoints[0]}: name more, or "
            "give --factor"
        )
    first = _read(checkpoints[0])
    sums = {key: value.double() for key, value in first.items()}
    for path in checkpoints[1:]:
        state = _read(path)
        _check_same(first, state, f"{checkpoints[0]} and {path}")
        for key, value in state.items():
            sums[key] += value.double()
    return {key: _like(value / len(checkpoints), first[key]) for key, value in sums.items()}


def plain_clip(config: Path, options: Sequence[str]) -> dict[str, Tensor]:
    """The CLIP tensors of the model of a config before any training, under a checkpoint's keys."""
    cfg = get_cfg()
    merge_config_file(cfg, config)
    merge_options(cfg, list(options))
    cfg.MODEL.DEVICE, cfg.DATASETS.TEST = "cpu", ()
    cfg.MODEL.MASKCLIPPP.TRAIN_MASKS = "ground_truth"  # needs no generator
    return Trainer.build_model(cfg).state_dict()


def interpolate(
    plain: Mapping[str, Tensor], tuned: Mapping[str, Tensor], factor: float, name: str
) -> dict[str, Tensor]:
    """(1 - factor) plain + factor tuned of CLIP's tensors; the others are the tuned ones.

    Raises:
        InputError: the tuned model has tensors of CLIP that the plain one lacks.
    """
    of_clip = {key: value for key, value in tuned.items() if key.startswith(CLIP)}
    _check_same({key: plain[key] for key in of_clip if key in plain}, of_clip, f"CLIP and {name}")
    return {
        key: _like(torch.lerp(plain[key].double(), value.double(), factor), value)
        if key in of_clip
        else value
        for key, value in tuned.items()
    }


def write(state: Mapping[str, Tensor], path: Path) -> None:
    """Write a checkpoint, as the trainer does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        writer = SealingWriter(file)
        torch.save({"model": dict(state)}, writer)
        writer.seal({"run": "", "iteration": None})


def _read(path: Path) -> dict[str, Tensor]:
    state = read_weights(path, known=PARTS)
    if infinite := not_finite(state):
        raise InputError(f"{path} has NaN or infinite numbers in {describe_keys(infinite)}")
    return state


def _check_same(first: Mapping[str, Tensor], second: Mapping[str, Tensor], names: str) -> None:
    differing = {
        key
        for key in {*first, *second}
        if key not in first or key not in second or first[key].shape != second[key].shape
    }
    if differing:
        raise InputError(
            f"{names} are not of one model: they differ in keys or shapes of "
            f"{describe_keys(sorted(differing))}"
        )


def _like(value: Tensor, other: Tensor) -> Tensor:
    """In the other's type; whole numbers are rounded."""
    return (value if other.is_floating_point() else value.round()).to(other.dtype)


if __name__ == "__main__":
    with exit_on_bad_input():
        main()
