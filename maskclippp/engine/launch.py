"""From command-line arguments to the processes of a run, and what each of them does."""

import argparse
import os
import sys
from pathlib import Path

import torch.multiprocessing
from detectron2.config import CfgNode
from detectron2.engine import launch
from detectron2.evaluation import verify_results
from detectron2.utils import comm

from maskclippp.engine.checkpoint import Checkpointer
from maskclippp.engine.setup import build_config, setup
from maskclippp.engine.trainer import Trainer
from maskclippp.errors import exit_on_bad_input


def main(args: argparse.Namespace) -> None:
    """Train or evaluate; the work of every process."""
    with exit_on_bad_input():
        cfg = setup(args)
    with exit_on_bad_input(Path(cfg.OUTPUT_DIR), comm.get_rank()):
        if args.eval_only:
            evaluate(cfg, resume=args.resume)
        else:
            trainer = Trainer(cfg)
            trainer.resume_or_load(resume=args.resume)
            trainer.train()


def evaluate(cfg: CfgNode, *, resume: bool) -> None:
    """Evaluate MODEL.WEIGHTS, or the last checkpoint of OUTPUT_DIR, on DATASETS.TEST."""
    model = Trainer.build_model(cfg)
    checkpointer = Checkpointer(model, cfg.OUTPUT_DIR)
    checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=resume, may_be_absent=not resume)
    results = Trainer.test(cfg, model)
    if cfg.TEST.AUG.ENABLED:
        results.update(Trainer.test_with_augmentation(cfg, model))
    if comm.is_main_process():
        verify_results(cfg, results)


def launch_run(args: argparse.Namespace) -> None:
    """Check the configuration, then start the processes."""
    with exit_on_bad_input():
        device = build_config(args).MODEL.DEVICE
    if device == "cpu":
        # The launcher would use NCCL, which cannot train on CPUs, if it saw a CUDA device.
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    try:
        launch(
            main,
            args.num_gpus,
            num_machines=args.num_machines,
            machine_rank=args.machine_rank,
            dist_url=args.dist_url,
            args=(args,),
        )
    except torch.multiprocessing.ProcessExitedException as error:
        if error.signal_name:
            raise
        sys.exit(error.exit_code)  # the process has printed the reason
