"""Pre-train the small CLIP of the built-in `shapes` world on whole-image captions.

Every image is drawn anew and seen once, so nothing can be memorized; captions are incomplete and
never say where things are. The shipped weights were made on a CPU with two cores by

    python -m shapes.pretrain_clip \\
        --output maskclippp/data/shapes/weights/shapes_clip.safetensors

(the defaults; about ten minutes). A run is determined by its arguments and the library versions,
not by the number of workers.
"""

import argparse
import logging
import math
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import open_clip
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import maskclippp
from maskclippp.data.shapes.captions import describe
from maskclippp.data.shapes.scenes import SceneStyle, draw_scene
from maskclippp.errors import exit_on_bad_input

logger = logging.getLogger("pretrain_shapes_clip")

MODEL_NAME = "shapes_convnext"
# Every picture shows one thing large, as most on the web do; a small model learns these fast. That
# scenes are full of things, which it never saw, is what makes it a poor classifier of regions.
ICONIC = SceneStyle(
    height=64, width=64, objects=(1, 1), radius=(22.0, 31.0), specks=(0, 2), margin=0.36
)
# Hard negatives: batches in which all objects have one color, so that it does not tell them apart.
ONE_COLOR_SHARE = 0.6
MENTION = 0.75  # probability that a caption mentions a segment
LARGEST_LOGIT_SCALE = math.log(100.0)


class CaptionedScenes(Dataset[tuple[Tensor, Tensor]]):
    """Batches of fresh scenes: images uint8 [B, 3, H, W] and token ids int64 [B, L].

    L is the length of the batch's longest caption: what follows the end of a text changes nothing.
    """

    def __init__(self, steps: int, batch_size: int, seed: int) -> None:
        self.steps = steps
        self.batch_size = batch_size
        self.seed = seed
        self.tokenizer = open_clip.get_tokenizer(MODEL_NAME)

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        cv2.setNumThreads(0)  # worker processes are the parallelizm
        generator = np.random.default_rng([self.seed, step])
        style = ICONIC
        if generator.random() < ONE_COLOR_SHARE:
            style = replace(style, colors=(str(generator.choice(style.colors)),))
        scenes = [draw_scene(generator, style) for _ in range(self.batch_size)]
        captions = [describe(scene, generator, MENTION) for scene in scenes]
        images = torch.from_numpy(np.stack([scene.image for scene in scenes]))
        tokens = self.tokenizer(captions)
        return images.permute(0, 3, 1, 2), tokens[:, : int((tokens != 0).sum(dim=1).max())]


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Matrices decay; biases, norms, layer scales and the logit scale do not."""
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    free = [p for p in model.parameters() if p.ndim < 2]
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]


def learning_rate(step: int, steps: int, peak: float, warmup: int) -> float:
    """Linear warm-up, then a half cosine to zero."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def contrastive_loss(images: Tensor, texts: Tensor, logit_scale: Tensor) -> tuple[Tensor, Tensor]:
    """CLIP's symmetric cross entropy of normalized [B, D] pairs, and the share matched first."""
    logits = logit_scale.exp() * images @ texts.T
    target = torch.arange(len(logits))
    loss = nn.functional.cross_entropy(logits, target) + nn.functional.cross_entropy(
        logits.T, target
    )
    return loss / 2, (logits.argmax(dim=1) == target).float().mean()


def encode_text(model: open_clip.CLIP, tokens: Tensor) -> Tensor:
    """Normalized embeddings [B, D] of token ids [B, L], which may be cut after the longest text."""
    length = tokens.shape[1]
    hidden = model.token_embedding(tokens) + model.positional_embedding[:length]
    hidden = model.transformer(hidden, attn_mask=model.attn_mask[:length, :length])
    last = hidden[torch.arange(len(tokens)), tokens.argmax(dim=1)]  # the end of the text
    return nn.functional.normalize(model.ln_final(last) @ model.text_projection, dim=-1)


def batches(arguments: argparse.Namespace) -> Iterator[tuple[Tensor, Tensor]]:
    """Normalized images and token ids, drawn ahead by worker processes."""
    dataset = CaptionedScenes(arguments.steps, arguments.batch_size, arguments.seed)
    mean = torch.tensor(open_clip.OPENAI_DATASET_MEAN).view(3, 1, 1) * 255
    std = torch.tensor(open_clip.OPENAI_DATASET_STD).view(3, 1, 1) * 255
    for images, tokens in DataLoader(dataset, batch_size=None, num_workers=arguments.workers):
        normalized = (images - mean) / std
        yield normalized.contiguous(memory_format=torch.channels_last), tokens


def train(arguments: argparse.Namespace) -> dict[str, Tensor]:
    """Run the pre-training; the state dict has zero rows for tokens that never occurred."""
    torch.manual_seed(arguments.seed)
    model = open_clip.create_model(MODEL_NAME).to(memory_format=torch.channels_last)
    initialize_trunk(model.visual.trunk)
    optimizer = torch.optim.AdamW(
        parameter_groups(model, arguments.weight_decay), betas=(0.9, 0.98)
    )
    used_tokens = torch.zeros(model.vocab_size, dtype=torch.bool)
    started = time.perf_counter()
    for step, (images, tokens) in enumerate(batches(arguments)):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(
                step, arguments.schedule, arguments.learning_rate, arguments.warmup
            )
        used_tokens[tokens.unique()] = True
        loss, accuracy = contrastive_loss(
            model.encode_image(images, normalize=True),
            encode_text(model, tokens),
            model.logit_scale,
        )
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=LARGEST_LOGIT_SCALE)
        if step % arguments.log_period == 0 or step + 1 == arguments.steps:
            speed = (step + 1) * arguments.batch_size / (time.perf_counter() - started)
            logger.info(
                "step %d/%d: loss %.3f, matched %.1f %%, logit scale %.1f, %.0f images/s",
                step + 1,
                arguments.steps,
                loss.item(),
                100 * accuracy.item(),
                model.logit_scale.exp().item(),
                speed,
            )
        if arguments.save_period and (step + 1) % arguments.save_period == 0:
            save(model.state_dict(), used_tokens, arguments.output)
    state = model.state_dict()
    save(state, used_tokens, arguments.output)
    return state


def initialize_trunk(trunk: nn.Module) -> None:
    """Let narrow blocks pass signals from the start.

    ConvNeXt starts with weights of 0.02 and layer scales of 1e-6, made for wide models and 300
    epochs; a training this short would hardly leave them.
    """
    for module in trunk.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
    for name, parameter in trunk.named_parameters():
        if name.endswith(".gamma"):
            nn.init.constant_(parameter, 0.5)


def save(state: dict[str, Tensor], used_tokens: Tensor, path: Path) -> None:
    """Write a half-precision safetensors file in open_clip's key names, whole or not at all."""
    state = {name: value.half().contiguous() for name, value in state.items()}
    state["token_embedding.weight"] = state["token_embedding.weight"] * used_tokens[:, None]
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file(state, partial)
    partial.replace(path)
    logger.info("wrote %s (%.1f MB)", path, path.stat().st_size / 1e6)


def parse_arguments() -> argparse.Namespace:
    """Command line; the defaults are those of the shipped weights."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, required=True, help="safetensors file to write")
    parser.add_argument("--steps", type=int, default=1600)
    parser.add_argument("--schedule", type=int, default=2400, help="steps till the rate is zero")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--warmup", type=int, default=100, help="steps of rising learning rate")
    parser.add_argument("--weight-decay", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1, help="processes that draw")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of PyTorch")
    parser.add_argument("--log-period", type=int, default=20)
    parser.add_argument("--save-period", type=int, default=0, help="steps; 0: at the end only")
    return parser.parse_args()


def main() -> None:
    """Entry point."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    torch.set_flush_denormal(True)  # tiny activations would slow every step tenfold
    open_clip.add_model_config(Path(maskclippp.__file__).parent / "clip" / "model_configs")
    train(arguments)


if __name__ == "__main__":
    with exit_on_bad_input():
        main()
