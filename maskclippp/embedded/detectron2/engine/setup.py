"""Preparation of a run: arguments, logs, seeds, parallel models, writers."""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from detectron2.config import CfgNode
from detectron2.utils import comm
from detectron2.utils.collect_env import collect_env_info
from detectron2.utils.env import seed_all_rng
from detectron2.utils.events import (
    CommonMetricPrinter,
    EventWriter,
    JSONWriter,
    TensorboardXWriter,
)
from detectron2.utils.file_io import PathManager
from detectron2.utils.logger import setup_logger

__all__ = ["create_ddp_model", "default_argument_parser", "default_setup", "default_writers"]


def default_argument_parser(epilog: str | None = None) -> argparse.ArgumentParser:
    """The arguments of a training script; flags come before the KEY VALUE pairs."""
    program = sys.argv[0]
    examples = f"""
Examples:

One machine:
    $ {program} --num-gpus 8 --config-file cfg.yaml

Values that override the file's:
    $ {program} --config-file cfg.yaml MODEL.WEIGHTS model.pth SOLVER.BASE_LR 0.001

Several machines:
    (machine0)$ {program} --machine-rank 0 --num-machines 2 --dist-url <URL> [--other-flags]
    (machine1)$ {program} --machine-rank 1 --num-machines 2 --dist-url <URL> [--other-flags]
"""
    parser = argparse.ArgumentParser(
        epilog=epilog or examples, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", default="", metavar="FILE", help="path to config file")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="continue from the last checkpoint of the output directory, if there is one",
    )
    parser.add_argument("--eval-only", action="store_true", help="perform evaluation only")
    parser.add_argument("--num-gpus", type=int, default=1, help="number of GPUs *per machine*")
    parser.add_argument("--num-machines", type=int, default=1, help="total number of machines")
    parser.add_argument(
        "--machine-rank", type=int, default=0, help="the rank of this machine (unique per machine)"
    )
    # A port per user, so that users of one machine do not collide.
    user = os.getuid() if hasattr(os, "getuid") else 1
    port = 2**15 + 2**14 + hash(user) % 2**14
    parser.add_argument(
        "--dist-url",
        default=f"tcp://127.0.0.1:{port}",
        help="address at which the processes of a run meet: tcp://host:port, or auto",
    )
    parser.add_argument(
        "opts",
        nargs=argparse.REMAINDER,
        default=None,
        help="config options as space-separated KEY VALUE pairs, at the end of the command",
    )
    return parser


def default_setup(cfg: CfgNode, args: argparse.Namespace) -> None:
    """Prepare a run: output folder, logs, ``config.yaml``, seeds and cuDNN.

    The seed of rank r is SEED + r when SEED >= 0, else random.
    """
    if comm.is_main_process() and cfg.OUTPUT_DIR:
        PathManager.mkdirs(cfg.OUTPUT_DIR)
    rank = comm.get_rank()
    setup_logger(cfg.OUTPUT_DIR, distributed_rank=rank, name="fvcore")
    logger = setup_logger(cfg.OUTPUT_DIR, distributed_rank=rank)
    logger.info("Rank of current process: %d. World size: %d", rank, comm.get_world_size())
    logger.info("Environment info:\n%s", collect_env_info())
    logger.info("Command line arguments: %s", args)
    config_file = getattr(args, "config_file", "")
    if config_file:
        with PathManager.open(config_file, "r") as file:
            logger.info("Contents of args.config_file=%s:\n%s", config_file, file.read())
    if comm.is_main_process() and cfg.OUTPUT_DIR:
        logger.info("Running with full config:\n%s", cfg.dump())
        path = Path(cfg.OUTPUT_DIR) / "config.yaml"
        with PathManager.open(str(path), "w") as file:
            file.write(cfg.dump())
        logger.info("Full config saved to %s", path)
    seed_all_rng(None if cfg.SEED < 0 else cfg.SEED + rank)
    # In evaluation, benchmarking for each of many image sizes would cost more than it gains.
    if not getattr(args, "eval_only", False):
        torch.backends.cudnn.benchmark = cfg.CUDNN_BENCHMARK
    if cfg.FLOAT32_PRECISION:
        torch.set_float32_matmul_precision(cfg.FLOAT32_PRECISION)
        logger.info("float32 matmul precision set to %s", cfg.FLOAT32_PRECISION)


def create_ddp_model(model: nn.Module, **kwargs: Any) -> nn.Module:
    """The model, in DistributedDataParallel if there are several processes, on GPUs or CPUs.

    Args:
        kwargs: arguments of ``DistributedDataParallel``.
    """
    if comm.get_world_size() == 1:
        return model
    if "device_ids" not in kwargs and next(model.parameters()).device.type == "cuda":
        kwargs["device_ids"] = [comm.get_local_rank()]
    return DistributedDataParallel(model, **kwargs)


def default_writers(output_dir: str, max_iter: int | None = None) -> list[EventWriter]:
    """Writers to the terminal, ``metrics.json`` and TensorBoard, in this order."""
    PathManager.mkdirs(output_dir)
    return [
        CommonMetricPrinter(max_iter),
        JSONWriter(str(Path(output_dir) / "metrics.json")),
        TensorboardXWriter(output_dir),
    ]
