"""``maskclippp doctor``."""

import importlib.metadata
import os
import platform
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from maskclippp import __version__
from maskclippp.cli.datasets import dataset_states
from maskclippp.engine.arguments import Parser
from maskclippp.errors import InputError, exit_on_bad_input

# Only what decides results or speed, by their names on PyPI.
_PACKAGES = (
    *("torch", "torchvision", "open_clip_torch", "timm", "fvcore", "iopath", "yacs", "numpy"),
    *("pillow", "opencv-python-headless", "pycocotools", "scipy", "scikit-image", "safetensors"),
    *("hotcoco", "wandb"),
)
_EXAMPLES = """examples:
  maskclippp doctor
  maskclippp doctor --config-file configs/shapes/linear_psm.yaml    # also the files that it needs

Nothing is downloaded or written. Paste the output into a bug report."""


def main(arguments: Sequence[str]) -> None:
    """Print what a bug report needs."""
    parser = Parser(
        prog="maskclippp doctor",
        description="Show versions, engine, devices, caches, free space, datasets and weights.",
        epilog=_EXAMPLES,
    )
    parser.add_argument("--config-file", metavar="FILE", help="look for the files of this config")
    args = parser.parse_args(arguments)
    sections = {
        "versions": _versions(),
        "devices": _devices(),
        "caches and space": _folders(),
        "datasets": dataset_states(),
        "weights": _weights(),
    }
    if args.config_file:
        sections[f"files of {args.config_file}"] = _config_files(args.config_file)
    with exit_on_bad_input():
        for title, lines in sections.items():
            sys.stdout.write(f"{title}\n")
            for name, value in lines:
                sys.stdout.write(f"  {name:<42} {value}\n")


def _versions() -> Iterator[tuple[str, str]]:
    from maskclippp.detectron2_engine import engine_description

    yield "Python", f"{platform.python_version()} on {platform.platform()}"
    yield "maskclippp", f"{__version__} ({Path(__file__).parents[1]})"
    yield "detectron2", engine_description().removeprefix("detectron2 engine: ")
    for package in _PACKAGES:
        try:
            yield package, importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            yield package, "not installed"


def _devices() -> Iterator[tuple[str, str]]:
    import torch

    yield "CPU", f"{os.cpu_count()} cores, {torch.get_num_threads()} threads for torch"
    yield "CUDA", f"built for {torch.version.cuda}, {torch.cuda.device_count()} devices"
    for index in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(index)
        yield f"cuda:{index}", f"{device.name}, {_size(device.total_memory)}"
    yield "MPS", "available" if torch.backends.mps.is_available() else "not available"


def _folders() -> Iterator[tuple[str, str]]:
    import torch
    from huggingface_hub.constants import HF_HUB_CACHE

    from maskclippp.data.layout import datasets_root
    from maskclippp.files.cache import cache_folder
    from maskclippp.words.openseg import downloaded

    yield "working directory", _space(Path.cwd())
    yield "datasets ($DETECTRON2_DATASETS)", _space(Path(datasets_root()))
    yield "cache ($MASKCLIPPP_CACHE)", _space(cache_folder())
    yield "Hugging Face hub ($HF_HOME)", _space(Path(HF_HUB_CACHE))
    yield "torch hub ($TORCH_HOME)", _space(Path(torch.hub.get_dir()))
    yield "shared memory of loader workers", _space(Path("/dev/shm"))
    yield "OpenSeg class lists", "{} of {} downloaded".format(*downloaded())


def _weights() -> Iterator[tuple[str, str]]:
    from huggingface_hub.constants import HF_HUB_CACHE

    for folder in (Path("pretrained"), Path("output/ckpts")):  # of the published configs
        if not folder.is_dir():
            yield str(folder), "no such folder in the working directory"
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            yield str(file), _size(file.stat().st_size)
    for folder in sorted(Path(HF_HUB_CACHE).glob("models--*")):
        yield folder.name.removeprefix("models--").replace("--", "/"), "in the Hugging Face cache"


def _config_files(config: str) -> Iterator[tuple[str, str]]:
    from maskclippp.cli.fetching import files_of_config

    for key, file in files_of_config(config, download=False):
        if isinstance(file, InputError):
            yield key, f"missing: {file}"
        else:
            yield key, "nothing is missing" if file is None else f"found {file}"


def _space(folder: Path) -> str:
    """The folder, and the free space of its disk."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    state = "" if existing == folder else " (does not exist)"
    return f"{folder}{state}, {_size(shutil.disk_usage(existing).free)} free"


def _size(count: float) -> str:
    return f"{count / 2**30:.1f} GiB"
