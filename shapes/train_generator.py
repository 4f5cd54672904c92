"""Train the small mask generator of the built-in `shapes` world.

Scenes are drawn anew for every step and show seen classes only, so that what the generator does for
unseen ones was never shown to it. (If they are shown without labels, it learns to leave them out,
the better the longer it is trained.) The CLIP below it is the shipped one, frozen. The shipped
weights were made on a CPU by

    python -m shapes.train_generator \\
        --output maskclippp/data/shapes/weights/shapes_fcclip.safetensors

(the defaults; about 20 minutes on an idle core), and those of the smaller Mask2Former by

    python -m shapes.train_generator --steps 500 \\
        --config configs/shapes/linear_psm_mask2former.yaml \\
        --output maskclippp/data/shapes/weights/shapes_mask2former.safetensors

A run is determined by its arguments and the library versions. The file holds them as metadata.
"""

import argparse
import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from maskclippp.config.keys import get_cfg
from maskclippp.config.merging import merge_config_file, merge_options
from maskclippp.data.shapes.dataset import classes_of, scene_of
from maskclippp.data.shapes.scenes import Scene, SceneStyle, draw_scene
from maskclippp.errors import InputError, exit_on_bad_input
from maskclippp.generators import MaskGenerator, build_generator
from maskclippp.generators.fcclip import FCCLIPSegmentor
from maskclippp.generators.mask2former.segmentor import MaskTransformerSegmentor
from maskclippp.generators.mask2former.transformer_decoder import MaskPredictions
from maskclippp.masks.overlap import mask_iou
from maskclippp.words import Vocabulary, training_vocabulary
from shapes.mask_losses import LossWeights, Segments, set_loss
from shapes.training import Training, build_optimizers, start, training_parser, write_weights

REPOSITORY = Path(__file__).resolve().parents[1]

logger = logging.getLogger("train_shapes_generator")

CONFIG = REPOSITORY / "configs" / "shapes" / "linear_psm_fcclip.yaml"
# Small scenes teach what an object is at a third of the cost; the rest is trained at full size.
SMALL = SceneStyle(height=128, width=128, objects=(1, 4), seen_only=True)
FULL = SceneStyle(seen_only=True)
SMALL_SHARE = 0.8  # of the steps
# Keeps these scenes apart from those of the splits, whose first number is the world's version.
SCENE_STREAM = 1_000_003
WEIGHTS = LossWeights()

ClassLogits = Callable[[MaskPredictions], Tensor]


@dataclass(frozen=True)
class Batch:
    """Images uint8 [3, H, W] of equal size with their segments."""

    images: list[Tensor]
    segments: list[Segments]


class LabeledScenes(Dataset[Batch]):
    """One batch of fresh scenes per training step."""

    def __init__(self, *, steps: int, batch_size: int, seed: int, stride: int) -> None:
        self.steps = steps
        self.batch_size = batch_size
        self.seed = seed
        self.stride = stride

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> Batch:
        cv2.setNumThreads(0)  # worker processes are the parallelizm
        generator = np.random.default_rng([SCENE_STREAM, self.seed, step])
        style = SMALL if step < SMALL_SHARE * self.steps else FULL
        scenes = [draw_scene(generator, style) for _ in range(self.batch_size)]
        return Batch(
            [image_of(scene) for scene in scenes],
            [segments_of(scene, self.stride) for scene in scenes],
        )


def image_of(scene: Scene) -> Tensor:
    """uint8 [3, H, W]."""
    return torch.from_numpy(scene.image).permute(2, 0, 1)


def segments_of(scene: Scene, stride: int) -> Segments:
    """The annotation of a scene of seen classes, on a grid of the given stride."""
    label_of = {category: label for label, category in enumerate(classes_of("train"))}
    masks = masks_of(scene, [segment.id for segment in scene.segments])
    shares = F.avg_pool2d(masks[:, None].float(), stride)[:, 0]
    labels = [label_of[segment.category] for segment in scene.segments]
    return Segments(shares, torch.tensor(labels))


def masks_of(scene: Scene, ids: Sequence[int]) -> Tensor:
    """bool [N, H, W]: the segments with these ids."""
    wanted = torch.tensor(ids, dtype=torch.int32)[:, None, None]
    return torch.from_numpy(scene.segment_ids) == wanted


def build(config: Path, options: Sequence[str]) -> tuple[MaskGenerator, Vocabulary]:
    """The generator of a config, on the CPU, and the training vocabulary."""
    cfg = get_cfg()
    merge_config_file(cfg, str(config))
    merge_options(cfg, [*options, "MODEL.DEVICE", "cpu"])
    vocabulary = training_vocabulary(cfg.DATASETS.TRAIN)
    if vocabulary is None:
        raise InputError(f"{config}: DATASETS.TRAIN is empty; it names the classes to train on")
    return build_generator(cfg), vocabulary


def classifier_of(generator: MaskTransformerSegmentor, vocabulary: Vocabulary) -> ClassLogits:
    """What turns predictions into logits [B, Q, K + 1] over a vocabulary and void."""
    if not isinstance(generator, FCCLIPSegmentor):
        return lambda predictions: predictions.classes  # closed: they are these logits
    assert generator.text_classifier is not None
    text = generator.text_classifier.embed_frozen(vocabulary.synonyms).mean(dim=1)
    text = F.normalize(text, dim=-1)

    def class_logits(predictions: MaskPredictions) -> Tensor:
        logits: Tensor = generator.predictor.class_logits(
            predictions.classes,
            text,
            generator.void_embedding.weight,
            vocabulary.class_of_synonym,
            len(vocabulary),
        )
        return logits

    return class_logits


def loss_of(generator: MaskTransformerSegmentor, class_logits: ClassLogits, batch: Batch) -> Tensor:
    """The sum over the predictions before and after every layer (deep supervision)."""
    with torch.no_grad():
        encoded = generator.encoder(batch.images)
    last = generator.predict(encoded.maps, with_intermediate=True)
    losses = [
        set_loss(class_logits(predictions), predictions.masks, batch.segments, WEIGHTS)
        for predictions in (*last.intermediate, last)
    ]
    return torch.stack(losses).sum()


def train(arguments: argparse.Namespace) -> None:
    """Run the training and write the weights."""
    torch.manual_seed(arguments.seed)
    untrained = ["MODEL.MASKCLIPPP.SEGMENTOR.PRETRAINED", "random"]
    generator, vocabulary = build(arguments.config, [*arguments.options, *untrained])
    assert isinstance(generator, MaskTransformerSegmentor)
    head = generator.head.requires_grad_(True).train()
    class_logits = classifier_of(generator, vocabulary)
    optimizers = build_optimizers(head.named_parameters(), is_hidden, arguments.weight_decay)
    training = Training({"head": head}, optimizers, arguments)
    started, first = time.perf_counter(), training.first
    for step, batch in enumerate(batches(arguments, first), start=first):
        loss = loss_of(generator, class_logits, batch)
        training.update(step, loss)
        done = step + 1
        if done % arguments.log_period == 0 or done == arguments.steps:
            speed = (time.perf_counter() - started) / (done - first)
            message = "step %d/%d: loss %.3f, %.2f s/step"
            logger.info(message, done, arguments.steps, loss.item(), speed)
        if done % arguments.save_period == 0:
            training.keep(done)
    save(head, arguments)
    head.eval().requires_grad_(False)
    scenes = [scene_of("val", index) for index in range(arguments.validation_scenes)]
    for kind, quality in mask_quality(generator, scenes).items():
        logger.info("mean best IoU of %s segments in validation scenes: %.3f", kind, quality)


def is_hidden(name: str) -> bool:
    """Whether a matrix is one between hidden layers; not queries, embeddings and last layers."""
    kinds = ("in_proj_weight", "out_proj.weight", "_proj.weight", "linear1.weight")
    return name.endswith((*kinds, "linear2.weight")) and "offset" not in name


def batches(arguments: argparse.Namespace, first: int) -> Iterator[Batch]:
    """Batches from a step on, drawn ahead by worker processes."""
    scenes = LabeledScenes(
        steps=arguments.steps, batch_size=arguments.batch_size, seed=arguments.seed, stride=4
    )
    left = range(first, arguments.steps)
    yield from DataLoader(scenes, batch_size=None, sampler=left, num_workers=arguments.workers)


def mask_quality(generator: MaskGenerator, scenes: Sequence[Scene]) -> dict[str, float]:
    """Class-agnostic quality of masks: mean over ground-truth segments of the best IoU of any mask.

    Masks are cut at 0.5 at the size of the scene. Keys: "seen" and "unseen" segments.
    """
    best: dict[str, list[Tensor]] = {"seen": [], "unseen": []}
    for scene in scenes:
        (generated,) = generator([{"image": image_of(scene)}])
        found = generated.masks.resized((scene.image.shape[0], scene.image.shape[1])) > 0.5
        iou = mask_iou(found, masks_of(scene, [segment.id for segment in scene.segments]))
        for segment, value in zip(scene.segments, iou.amax(dim=0), strict=True):
            best["seen" if segment.category.is_seen else "unseen"].append(value)
    return {kind: torch.stack(values).mean().item() for kind, values in best.items()}


def save(head: nn.Module, arguments: argparse.Namespace) -> None:
    """Write a half-precision safetensors file in the key names of published checkpoints.

    How it was made is in its metadata.
    """
    state = {
        key if key.startswith("void_embedding.") else f"sem_seg_head.{key}": value.half()
        for key, value in head.state_dict().items()
    }
    settings = {
        key: str(value.name if isinstance(value, Path) else value)
        for key, value in vars(arguments).items()
        if key not in ("output", "log_period", "save_period")
    }
    metadata = {
        "made_by": Path(__file__).name,
        "settings": json.dumps(settings),
        "loss": json.dumps(asdict(WEIGHTS)),
        "small_scenes": json.dumps({"share": SMALL_SHARE, **asdict(replace(SMALL, colors=()))}),
        "torch": torch.__version__,
    }
    write_weights(state, arguments.output, metadata)


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Command line; the defaults are those of the shipped weights."""
    parser = training_parser(
        __doc__.partition("\n")[0], steps=2200, batch_size=8, learning_rate=1.5e-3, log_period=20
    )
    parser.add_argument("--config", type=Path, default=CONFIG, help="names the generator")
    parser.add_argument("--workers", type=int, default=1, help="processes that draw")
    parser.add_argument("--save-period", type=int, default=100, help="steps between checkpoints")
    parser.add_argument("--validation-scenes", type=int, default=20)
    parser.add_argument(
        "options", nargs=argparse.REMAINDER, help="KEY VALUE pairs laid over the config"
    )
    return parser.parse_args(arguments)


def main() -> None:
    """Entry point."""
    arguments = parse_arguments()
    start(arguments)
    train(arguments)


if __name__ == "__main__":
    with exit_on_bad_input():
        main()
