"""``python -m tests.devices.cases``: models on the pretended device, host waits as JSON.

Golden cases must hold there, too.
"""

import json
import sys
from collections.abc import Callable, Iterator
from functools import partial

import torch
from detectron2.config import CfgNode
from detectron2.utils.events import EventStorage

from benchmarks.gpu_checks import goldens
from maskclippp.engine.optimizer import build_optimizer
from maskclippp.engine.train_step import TrainStep
from maskclippp.meta_arch import MaskCLIPpp
from tests.devices.pretended import DEVICE, MixedDevicesError, Watch
from tests.generators.tiny_generators import fcclip_config, mask2former_config
from tests.tiny_eva import ENCODERS, options_of
from tests.tiny_models import ALL_TASKS, labeled_record, striped_record, tiny_config

Waits = dict[str, int]  # by the line of the package that causes them

_EVERYTHING = (
    *ALL_TASKS,
    *("MODEL.MASK_FORMER.TEST.INSTANCE_BOX_ON", True, ".TEST.ENSEMBLE_ON", True),
)
_GENERATORS: dict[str, Callable[..., CfgNode]] = {
    "FC-CLIP": fcclip_config,
    "Mask2Former": mask2former_config,
}


def on_device(cfg: CfgNode) -> MaskCLIPpp:
    """The model of a config, moved as users move it: ``MODEL.DEVICE``."""
    cfg.MODEL.DEVICE = str(DEVICE)
    cfg.MODEL.MASKCLIPPP.TEXT_CACHE = False
    return MaskCLIPpp(cfg).to(DEVICE)


def evaluate(watch: Watch, cfg: CfgNode) -> Waits:
    """One image; semantic, panoptic and instance results."""
    model = on_device(cfg).eval()
    record = {**labeled_record((96, 128), 0, 1, 3), "height": 150, "width": 170}
    for _ in range(2):
        watch.reset()
        (results,) = model([record])
    del results["category_overlapping_mask"]
    assert results["sem_seg_labels"].device == results["panoptic_seg"][0].device == DEVICE
    assert results["instances"].pred_masks.device == DEVICE
    return dict(watch.waits)


def train(watch: Watch, cfg: CfgNode) -> Waits:
    """One step on two images of different sizes."""
    model = on_device(cfg)
    step = TrainStep(model, build_optimizer(cfg, model), seed=0)
    step.data_loader = [
        [striped_record((64, 64), [0, 1]), striped_record((96, 64), [2])] for _ in range(2)
    ]
    with EventStorage():
        for iteration in range(2):
            watch.reset()
            step.run(iteration)
    for name, parameter in model.named_parameters():
        assert not parameter.requires_grad or parameter.grad is not None, name
    return dict(watch.waits)


def check_the_watch(watch: Watch) -> None:
    """Every kind of wait is counted, and tensors of two devices are refused."""
    values = torch.ones(2, 3).to(DEVICE, non_blocking=True)
    (values + 1).sum(dim=0)[torch.tensor(1)]
    assert not watch.waits
    values.sum().item()
    values.cpu()
    values.tolist()
    values.nonzero()
    values[values > 0]
    values[torch.tensor([0])]
    torch.tensor([1, 2], device=DEVICE)
    reasons = sorted(site.rpartition(": ")[2] for site in watch.waits.elements())
    assert reasons == [
        *("_local_scalar_dense", "blocking copy to the device", "boolean index"),
        *("copy to the host", "copy to the host", "index on the host", "nonzero"),
    ]
    try:
        values + torch.ones(3)
    except MixedDevicesError:
        return
    raise AssertionError("a sum of tensors on two devices was computed")


def cases() -> Iterator[tuple[str, Callable[[Watch], Waits]]]:
    """Names, and what counts the waits of one image, or of one step, when caches are warm."""
    for name in ENCODERS:
        cfg = tiny_config(*_EVERYTHING, *options_of(name))
        yield f"evaluate {name}", partial(evaluate, cfg=cfg)
    for name, config in _GENERATORS.items():
        yield f"evaluate {name}", partial(evaluate, cfg=config(*_EVERYTHING))
    yield "train EVA02", partial(train, cfg=tiny_config(*options_of("EVA02")))
    tuned = (
        *(".TEXT_ENCODER.FINETUNE_TYPE", "all", ".VISUAL_ENCODER.GRADIENT_CHECKPOINTING", True),
        *(".CRITERION.BALANCE_CLS", True, "SOLVER.CLIP_GRADIENTS.ENABLED", True),
        *("SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "full_model"),
        *(".PSM.NAME", "PseudoTextPSM", ".PSM.IN_FEATURES", ["p_embs"]),
    )
    yield "train both towers", partial(train, cfg=tiny_config(*tuned))
    generated = fcclip_config(".TRAIN_MASKS", "segmentor")
    yield "train on generated masks", partial(train, cfg=generated)


def main() -> None:
    """Run all cases."""
    # Moved parameters stay the same objects, as on real devices.
    torch.__future__.set_swap_module_params_on_conversion(True)
    with Watch() as watch:
        check_the_watch(watch)
    measured = {}
    for name, case in cases():
        torch.manual_seed(0)
        with Watch() as watch:
            measured[name] = case(watch)
    with Watch():
        goldens(DEVICE)
    sys.stdout.write(json.dumps(measured))


if __name__ == "__main__":
    main()
