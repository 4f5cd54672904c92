"""Pre-train the small CLIP of the built-in `shapes` world on captions of whole pictures.

Pictures show one object on one ground, or one ground alone, as many on the web do. Most batches are
hard: their pictures share a color, a form, a tint or a pattern, so that only the other word tells
them apart. Captions never say where anything is. The shipped weights were made by

    python -m shapes.pretrain_clip \\
        --output maskclippp/data/shapes/weights/shapes_clip.safetensors

A stopped run goes on from `<output>.checkpoint`. A run is determined by its arguments and the
library versions. Every `--test-period` steps it prints what it knows: how many fresh pictures are
assigned the right word among all classes, for each kind of word, and how far apart the text
vectors of two classes are that differ in one word.
"""

import argparse
import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import open_clip
import torch
from torch import Tensor, nn

import maskclippp.clip  # noqa: F401  makes the model known to open_clip
from maskclippp.data.shapes.captions import LINKS, OPENINGS, SIZES, describe
from maskclippp.data.shapes.scenes import Scene, SceneStyle, draw_scene
from maskclippp.data.shapes.vocabulary import CLASSES, ShapesClass
from maskclippp.errors import exit_on_bad_input
from maskclippp.words.templates import get_templates
from shapes.training import Training, build_optimizers, start, training_parser, write_weights

logger = logging.getLogger("pretrain_shapes_clip")

MODEL_NAME = "shapes_convnext_s16"
# That real scenes are full of things, which it never saw, makes it a poor classifier of regions.
OBJECT = SceneStyle(64, 64, (1, 1), (22.0, 31.0), specks=(0, 2), margin=0.36, one_ground=True)
GROUND = SceneStyle(64, 64, (0, 0), specks=(0, 2), one_ground=True)
GROUND_SHARE = 0.35  # of the pictures
# What the pictures of a batch share, one kind of batch after the other; "": nothing.
SHARED = ("color", "tint", "", "color", "tint", "form", "color", "tint", "pattern")
GROUND_MENTION = 0.4  # probability that a caption names the ground behind an object
PROMPT = "a photo of a {}."
LARGEST_LOGIT_SCALE = math.log(100.0)


KINDS = ("color", "form", "tint", "pattern")


def word_of(category: ShapesClass, kind: str) -> str | None:
    """The word of a class that is a color, a form (of things), a tint or a pattern (of stuff)."""
    if category.is_thing != (kind in ("color", "form")):
        return None
    return category.color if kind in ("color", "tint") else category.form


class Pool:
    """The newest pictures: some are replaced in each step, as drawing all anew costs too much.

    Picture `n` is a pure function of the seed and `n`.
    """

    def __init__(self, arguments: argparse.Namespace, step: int) -> None:
        size = arguments.pool
        self.fresh, self.seed = arguments.fresh, arguments.seed
        self.drawn = step * self.fresh
        self.scenes = np.empty(size, dtype=object)
        self.words = {kind: np.empty(size, dtype=object) for kind in KINDS}
        self.draw(size)

    def draw(self, count: int) -> None:
        """Replace the oldest pictures."""
        for number in range(self.drawn, self.drawn + count):
            generator = np.random.default_rng([self.seed, 0, number])
            scene = draw_scene(generator, GROUND if generator.random() < GROUND_SHARE else OBJECT)
            place = number % len(self.scenes)
            self.scenes[place] = scene
            for kind in KINDS:
                self.words[kind][place] = word_of(scene.segments[-1].category, kind)
        self.drawn += count

    def choose(self, step: int, count: int) -> tuple[list[Scene], np.random.Generator]:
        """The pictures of a step, and what draws their captions."""
        self.draw(self.fresh)
        generator = np.random.default_rng([self.seed, 0, 1, step])
        kind = SHARED[step % len(SHARED)]
        fitting = np.arange(len(self.scenes))
        if kind:
            words = sorted({word for category in CLASSES if (word := word_of(category, kind))})
            fitting = np.flatnonzero(self.words[kind] == generator.choice(words))
        chosen = generator.choice(fitting, count, replace=len(fitting) < count)
        return list(self.scenes[chosen]), generator


def batches(arguments: argparse.Namespace, first: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Images float [B, 3, H, W] and token ids [B, L]; L is the length of the longest caption."""
    tokenizer = open_clip.get_tokenizer(MODEL_NAME)
    pool = Pool(arguments, first)
    for step in range(first, arguments.steps):
        scenes, generator = pool.choose(step, arguments.batch_size)
        captions = [describe(scene, generator, GROUND_MENTION) for scene in scenes]
        images = np.stack([scene.image for scene in scenes])
        flipped = generator.random(len(images)) < 0.5
        images[flipped] = images[flipped, :, ::-1]
        yield normalized(images), shortened(tokenizer(captions))


def normalized(images: np.ndarray[Any, np.dtype[np.uint8]]) -> Tensor:
    """uint8 [B, H, W, 3] -> float [B, 3, H, W] with CLIP's mean and standard deviation."""
    mean = torch.tensor(open_clip.OPENAI_DATASET_MEAN) * 255
    std = torch.tensor(open_clip.OPENAI_DATASET_STD) * 255
    return ((torch.from_numpy(images) - mean) / std).permute(0, 3, 1, 2)


def shortened(tokens: Tensor) -> Tensor:
    """Cut token ids [B, L] after the longest text; what follows its end changes nothing."""
    return tokens[:, : int((tokens != 0).sum(dim=1).max())]


def contrastive_loss(images: Tensor, texts: Tensor, logit_scale: Tensor) -> tuple[Tensor, Tensor]:
    """CLIP's symmetric cross entropy of normalized [B, D] pairs, and the share matched first."""
    logits = logit_scale.exp() * images @ texts.T
    target = torch.arange(len(logits))
    loss = nn.functional.cross_entropy(logits, target) + nn.functional.cross_entropy(
        logits.T, target
    )
    return loss / 2, (logits.argmax(dim=1) == target).float().mean()


def vocabulary_tokens() -> Tensor:
    """The ids [R] of all tokens that captions and the prompts of evaluation can have, sorted."""
    words = [
        *OPENINGS,
        *LINKS,
        *SIZES,
        "a the",
        *(name for category in CLASSES for name in category.names),
        *(template.format("") for template in get_templates("t14")),
    ]
    tokens: Tensor = open_clip.get_tokenizer(MODEL_NAME)([w.replace("{}", " ") for w in words])
    return tokens.unique()


def encode_text(model: open_clip.CLIP, tokens: Tensor) -> Tensor:
    """Normalized embeddings [B, D] of token ids [B, L], which may be cut after the longest text.

    The model's token table has rows for `model.token_ids` only.
    """
    length = tokens.shape[1]
    rows = torch.searchsorted(model.token_ids, tokens.contiguous())
    assert torch.equal(model.token_ids[rows], tokens), "a token that vocabulary_tokens misses"
    hidden = model.token_embedding(rows) + model.positional_embedding[:length]
    hidden = model.transformer(hidden, attn_mask=model.attn_mask[:length, :length])
    last = hidden[torch.arange(len(tokens)), tokens.argmax(dim=1)]  # the end of the text
    return nn.functional.normalize(model.ln_final(last) @ model.text_projection, dim=-1)


class Words(nn.Module):
    """Which words of classes a caption has, told from the embedding of its picture or of itself.

    One linear map for both (the image side alone is SuperClass, arXiv 2411.03313). Without it the
    text tower drops the words that the image tower does not see yet, the image tower has no reason
    to see them, and forms and patterns are not learned for thousands of steps.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        tokenizer = open_clip.get_tokenizer(MODEL_NAME)
        names = tokenizer([name for category in CLASSES for name in category.names])
        self.register_buffer("ids", names.unique()[1:-2])  # without padding, start and end
        self.head = nn.Linear(width, len(self.ids))
        nn.init.normal_(self.head.weight, std=0.1)

    def loss(self, embeddings: Tensor, tokens: Tensor) -> Tensor:
        """Cross entropy of normalized embeddings [B, D] and the words of captions [B, L]."""
        present = (tokens[:, :, None] == self.ids).any(dim=1).float()
        share = present / present.sum(dim=1, keepdim=True)
        return nn.functional.cross_entropy(self.head(10 * embeddings), share)


class Examination:
    """What a model knows, on pictures that no run is trained on."""

    def __init__(self, per_kind: int = 360, seed: int = 10**6) -> None:
        generator = np.random.default_rng(seed)
        scenes = [
            draw_scene(generator, style) for style in (OBJECT, GROUND) for _ in range(per_kind)
        ]
        self.images = normalized(np.stack([scene.image for scene in scenes]))
        self.truth = [scene.segments[-1].category for scene in scenes]
        tokenizer = open_clip.get_tokenizer(MODEL_NAME)
        self.tokens = shortened(tokenizer([PROMPT.format(c.names[0]) for c in CLASSES]))

    @torch.no_grad()
    def examine(self, model: open_clip.CLIP) -> dict[str, float]:
        """Share of right words among all classes (%), and the least and mean scaled margins."""
        texts = encode_text(model, self.tokens)
        images = torch.cat([model.encode_image(i, normalize=True) for i in self.images.split(120)])
        found = (images @ texts.T).argmax(dim=1).tolist()
        result = {}
        for kind in KINDS:
            right = [
                word_of(CLASSES[index], kind) == word_of(truth, kind)
                for index, truth in zip(found, self.truth, strict=True)
                if word_of(truth, kind)
            ]
            margins = word_margins(texts, kind, model.logit_scale.exp().item())
            result[kind] = 100 * sum(right) / len(right)
            result[f"{kind} margin"], result[f"{kind} least"] = (
                margins.mean().item(),
                margins.min().item(),
            )
        return result


def word_margins(texts: Tensor, kind: str, logit_scale: float) -> Tensor:
    """Scale times (1 - cosine) for all pairs of classes that differ in this kind of word only."""
    other = {"color": "form", "form": "color", "tint": "pattern", "pattern": "tint"}[kind]
    pairs = [
        (a.id - 1, b.id - 1)
        for a, b in combinations(CLASSES, 2)
        if word_of(a, kind) and word_of(a, other) == word_of(b, other) and a is not b
    ]
    first, second = torch.tensor(pairs).T
    return logit_scale * (1 - (texts[first] * texts[second]).sum(dim=1))


def build_model(seed: int) -> open_clip.CLIP:
    """The untrained model; its token table has rows for the tokens that occur only."""
    torch.manual_seed(seed)
    model = open_clip.create_model(MODEL_NAME).to(memory_format=torch.channels_last)
    initialize_trunk(model.visual.trunk)
    model.register_buffer("token_ids", vocabulary_tokens())
    model.token_embedding = nn.Embedding(len(model.token_ids), model.token_embedding.embedding_dim)
    nn.init.normal_(model.token_embedding.weight, std=0.02)
    return model


def train(arguments: argparse.Namespace) -> None:
    """Run the pre-training, or what is left of it, and write the weights."""
    model = build_model(arguments.seed)
    words = Words(model.text_projection.shape[1])
    optimizers = build_optimizers(model.named_parameters(), is_hidden, arguments.weight_decay)
    optimizers[1].add_param_group({"params": list(words.parameters()), "weight_decay": 0})
    training = Training({"model": model, "words": words}, optimizers, arguments)
    first = training.first
    examination = Examination()
    started = time.perf_counter()
    for step, (images, tokens) in enumerate(batches(arguments, first), start=first):
        images = images.contiguous(memory_format=torch.channels_last)
        pictures, texts = model.encode_image(images, normalize=True), encode_text(model, tokens)
        loss, matched = contrastive_loss(pictures, texts, model.logit_scale)
        loss = loss + words.loss(pictures, tokens) + words.loss(texts, tokens)
        training.update(step, loss)
        with torch.no_grad():
            model.logit_scale.clamp_(max=LARGEST_LOGIT_SCALE)
        done = step + 1
        if done % arguments.log_period == 0 or done == arguments.steps:
            logger.info(
                "step %d/%d: loss %.3f, matched %.1f %%, logit scale %.1f, %.2f s/step",
                done,
                arguments.steps,
                loss.item(),
                100 * matched.item(),
                model.logit_scale.exp().item(),
                (time.perf_counter() - started) / (done - first),
            )
        if done % arguments.test_period == 0 or done == arguments.steps:
            logger.info("%s", report(examination.examine(model)))
            training.keep(done)
            save(model.state_dict(), arguments.output)


def is_hidden(name: str) -> bool:
    """Whether a matrix is one between hidden layers of a tower."""
    return ".mlp.fc" in name or name.startswith("transformer.")


def report(results: Mapping[str, float]) -> str:
    """One line."""
    return ", ".join(
        f"{kind} {results[kind]:.1f} % (margin {results[f'{kind} margin']:.1f}, "
        f"least {results[f'{kind} least']:.1f})"
        for kind in KINDS
    )


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


def save(state: Mapping[str, Tensor], path: Path) -> None:
    """Write a safetensors file in open_clip's key names, in half precision.

    The token table has rows for the tokens that occur only; `token_embedding.tokens` has their
    ids. What reads it makes the other rows zero.
    """
    state = dict(state)
    tokens = state.pop("token_ids")
    state = {name: value.half().contiguous() for name, value in state.items()}
    state["token_embedding.tokens"] = tokens
    write_weights(state, path)


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Command line; the defaults are those of the shipped weights."""
    parser = training_parser(
        __doc__.partition("\n")[0], steps=2400, batch_size=64, learning_rate=2.5e-3, log_period=50
    )
    parser.add_argument("--pool", type=int, default=5000, help="pictures in memory")
    parser.add_argument("--fresh", type=int, default=8, help="pictures drawn anew in each step")
    parser.add_argument("--test-period", type=int, default=100, help="steps; also saves")
    return parser.parse_args(arguments)


def main() -> None:
    """Entry point."""
    arguments = parse_arguments()
    cv2.setNumThreads(0)
    start(arguments)
    train(arguments)


if __name__ == "__main__":
    with exit_on_bad_input():
        main()
