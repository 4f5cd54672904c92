"""From command-line arguments to the processes of a run, and what each of them does."""

import argparse
import gc
import logging
import os
import sys
from pathlib import Path
from typing import Any

import torch.distributed
import torch.multiprocessing
from detectron2.config import CfgNode
from detectron2.engine import DEFAULT_TIMEOUT
from detectron2.engine import launch as start_processes
from detectron2.evaluation import verify_results
from detectron2.utils import comm

from maskclippp.devices import share_cores
from maskclippp.engine.checkpoint import Checkpointer
from maskclippp.engine.evaluate import AUGMENTED_SUFFIX, inference_folder
from maskclippp.engine.failures import died, explaining_failures
from maskclippp.engine.interruption import (
    Interrupted,
    forwarding_to_children,
    interruptible,
    stop_requested,
)
from maskclippp.engine.layout import (
    Layout,
    check_arguments,
    check_own_launch,
    external_layout,
    one_launcher_per_machine,
)
from maskclippp.engine.progress import Progress
from maskclippp.engine.run_folder import (
    RESULTS_NAME,
    check_writable,
    holds_checkpoint,
    holds_metrics,
    raise_together,
    replace_results,
    report_changed_settings,
    run_folder,
    weights_of_file,
    write_config,
)
from maskclippp.engine.setup import build_config, choose_device, means_initial_weights, setup
from maskclippp.engine.summary import log_summary
from maskclippp.engine.trainer import Trainer
from maskclippp.errors import InputError, exit_on_bad_input

logger = logging.getLogger(__name__)


def main(args: argparse.Namespace) -> None:
    """Train or evaluate; the work of every process."""
    with interruptible(at_once=True), exit_on_bad_input(), explaining_failures():
        args.tag = comm.all_gather(args.tag)[0]  # machines derive it from their own clocks
        cfg = build_config(args)
        with run_folder(cfg, args):
            setup(cfg, args)
            in_log = exit_on_bad_input(Path(cfg.OUTPUT_DIR), comm.get_rank())
            with in_log, explaining_failures():
                if args.eval_only:
                    evaluate_checkpoint(
                        cfg,
                        resume=bool(args.resume),
                        told="MODEL.WEIGHTS" in args.opts[::2],
                        overwrite=getattr(args, "overwrite", False),
                    )
                else:
                    _train(cfg, resume=args.resume)


def _train(cfg: CfgNode, *, resume: bool | str) -> None:
    problem = ""
    if comm.is_main_process():
        try:
            if resume:
                report_changed_settings(cfg)
            write_config(cfg, eval_only=False)
        except InputError as error:
            problem = str(error)
    raise_together(problem)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=resume)
    log_summary(cfg, trainer.model, training_from=trainer.start_iter)
    trainer.train()
    # DDP must not be the last to hold the process group: PyTorch would free it with Python's lock
    # held, and wait for a thread of the group that may need the lock.
    del trainer
    gc.collect()


def evaluate_checkpoint(
    cfg: CfgNode, *, resume: bool, told: bool = False, overwrite: bool = False
) -> None:
    """Evaluate MODEL.WEIGHTS, or the last checkpoint of OUTPUT_DIR, on DATASETS.TEST.

    Args:
        resume: go on with an unfinished evaluation; and, unless ``told``, take the last checkpoint
            also if MODEL.WEIGHTS is set.
        told: MODEL.WEIGHTS is what the user asks for now; empty, it means the initial weights.
        overwrite: replace results of other weights.

    Raises:
        InputError: there are no weights to evaluate, or results of others would be replaced.
    """
    folder = Path(cfg.OUTPUT_DIR)
    held = any(comm.all_gather(holds_checkpoint(folder)))  # the same on all ranks
    of_run = held and not told and (resume or not cfg.MODEL.WEIGHTS)
    if not (cfg.MODEL.WEIGHTS or told or held or means_initial_weights(cfg)):
        _warn_of_initial_weights(folder)
    model = Trainer.build_model(cfg)
    checkpointer = Checkpointer(model, cfg.OUTPUT_DIR)
    checkpointer.allow_incomplete = cfg.MODEL.ALLOW_INCOMPLETE_WEIGHTS
    checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=of_run, may_be_absent=not of_run)
    weights, problem = weights_of_file(checkpointer.loaded), ""
    if comm.is_main_process():
        try:
            plain, augmented = (
                [inference_folder(cfg, name, suffix) for name in cfg.DATASETS.TEST]
                for suffix in ("", AUGMENTED_SUFFIX)
            )
            check_writable([*plain, *(augmented if cfg.TEST.AUG.ENABLED else ())])
            results = [place / RESULTS_NAME for place in (*plain, *augmented)]
            replace_results(results, weights, overwrite=overwrite)
            write_config(cfg, eval_only=True)
        except InputError as error:
            problem = str(error)
    raise_together(problem)
    log_summary(cfg, model, weights=weights)
    progress = Progress(cfg, model, weights, resume=resume)
    metrics = Trainer.test(cfg, model, weights=weights, progress=progress)
    if cfg.TEST.AUG.ENABLED:
        metrics.update(Trainer.test_with_augmentation(cfg, model, weights, progress))
    progress.finish()
    if comm.is_main_process():
        verify_results(cfg, metrics)


def _warn_of_initial_weights(folder: Path) -> None:
    """Say that nothing has trained the weights; an InputError in the folder of a training."""
    if any(comm.all_gather(holds_metrics(folder))):
        raise InputError(
            f"there is no checkpoint to evaluate: MODEL.WEIGHTS is empty, and the training in "
            f"{folder} has written none; name a file with MODEL.WEIGHTS or a run with --tag, or "
            'evaluate the initial weights knowingly with MODEL.WEIGHTS ""'
        )
    logger.warning(
        "NOT TRAINED: MODEL.WEIGHTS is empty and %s holds no run, so that the INITIAL weights are "
        "evaluated; to evaluate a run, name it with --tag, or its checkpoint with MODEL.WEIGHTS",
        folder,
    )


def launch_run(args: argparse.Namespace) -> None:
    """Check the configuration, then start the processes, or join those that are started."""
    with exit_on_bad_input(), explaining_failures():
        choose_device(args)
        layout = external_layout(os.environ)
        if layout is not None:
            check_arguments(args, layout)
            if one_launcher_per_machine(args, layout):
                layout = None
        if layout is None:
            check_own_launch(args)
        device = build_config(args).MODEL.DEVICE
        if device == "cpu":
            # The launcher would use NCCL, which cannot train on CPUs, if it saw a CUDA device.
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        if layout is None:
            _start_and_run(args)
        else:
            _join_and_run(args, layout, with_gpus=device.startswith("cuda"))


def _start_and_run(args: argparse.Namespace) -> None:
    """Start the processes of this machine, which run :func:`main`, and wait for them."""
    share_cores(args.num_gpus)
    try:
        with forwarding_to_children():
            start_processes(
                main,
                args.num_gpus,
                num_machines=args.num_machines,
                machine_rank=args.machine_rank,
                dist_url=args.dist_url,
                args=(args,),
            )
    except torch.multiprocessing.ProcessExitedException as error:
        if stop_requested():  # perhaps before the processes could handle the signal
            raise Interrupted from None
        if error.signal_name:
            raise died(error.error_index, error.signal_name) from error
        sys.exit(error.exit_code)  # the process has printed the reason


def _join_and_run(args: argparse.Namespace, layout: Layout, *, with_gpus: bool) -> None:
    """Join the process group that the layout describes, then run :func:`main`."""
    if layout.init_method == "env://":
        found = {name: os.environ.get(name) for name in ("MASTER_ADDR", "MASTER_PORT")}
        if not found["MASTER_ADDR"] or not str(found["MASTER_PORT"]).isdecimal():
            raise InputError(
                f"RANK and WORLD_SIZE are set, but expected a host and a port in {found}: set "
                "both to where process 0 runs, start with torchrun, or unset RANK and WORLD_SIZE"
            )
    if with_gpus:
        visible = torch.cuda.device_count()
        # Launchers may show each process all GPUs of its machine, or only its own.
        torch.cuda.set_device(layout.local_rank if visible > 1 else 0)
    meeting: Any = {"init_method": layout.init_method}
    if os.environ.get("GROUP_WORLD_SIZE") == "1" and layout.init_method == "env://":
        # torchrun keeps its store when it restarts workers, with the addresses of the dead ones.
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        store, _, _ = next(
            torch.distributed.rendezvous(
                "env://", layout.rank, layout.world_size, timeout=DEFAULT_TIMEOUT
            )
        )
        meeting = {"store": torch.distributed.PrefixStore(f"attempt {attempt}", store)}
    torch.distributed.init_process_group(
        "nccl" if with_gpus else "gloo",
        rank=layout.rank,
        world_size=layout.world_size,
        timeout=DEFAULT_TIMEOUT,
        **meeting,
    )
    comm.create_local_process_group(layout.local_size)
    comm.synchronize()
    main(args)
    torch.distributed.destroy_process_group()
