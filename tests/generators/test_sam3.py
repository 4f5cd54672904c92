"""SAM 3 as a generator: masks for the requested words, which compete for objects."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import open_clip
import pytest
import torch
import transformers
from torch import Tensor
from torch.testing import assert_close

from maskclippp.errors import InputError
from maskclippp.generators import Sam3Segmentor, build_generator
from maskclippp.words.vocabulary import Vocabulary
from tests.generators.tiny_transformers import save_tiny_sam3
from tests.tiny_models import random_image, tiny_config

WORDS = ["cat", "tree, palm tree", "a car on the street"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_sam3(tmp_path_factory.mktemp("sam3"))


def build(folder: Path, **settings: Any) -> Sam3Segmentor:
    keys = {"MIN_SCORE": 0.0, "MAX_OVERLAP": 1.0, **settings}
    values = [item for key, value in keys.items() for item in (f".SEGMENTOR.SAM3.{key}", value)]
    named = (".SEGMENTOR.NAME", "Sam3Segmentor", ".SEGMENTOR.PRETRAINED", str(folder))
    generator = build_generator(tiny_config(*named, *values))
    assert isinstance(generator, Sam3Segmentor)
    return generator


def find(generator: Sam3Segmentor, image: Tensor, *words: str) -> Tensor:
    generator.set_vocabulary(Vocabulary.from_class_names(words))
    with torch.no_grad():
        (found,) = generator([{"image": image}])
    return found.masks.resized((60, 90))


def library_masks(folder: Path, image: Tensor, word: str, min_score: float) -> Tensor:
    """What the library finds for a word, best first."""
    model = transformers.Sam3Model.from_pretrained(folder).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    ids = open_clip.tokenize(word, 32)
    inputs = {"input_ids": ids, "attention_mask": (ids != 0).long()}
    with torch.no_grad():
        outputs = model(**processor([image], return_tensors="pt"), **inputs)
    (found,) = processor.post_process_instance_segmentation(
        outputs, threshold=min_score, target_sizes=[(60, 90)]
    )
    return found["masks"][found["scores"].argsort(descending=True)].bool()


@pytest.mark.parametrize("min_score", [0.0, 0.2])
def test_masks_of_a_word_are_those_of_the_library(min_score: float, folder: Path) -> None:
    image = random_image(60, 90)
    expected = library_masks(folder, image, "cat", min_score)
    found = find(build(folder, MIN_SCORE=min_score), image, "cat, kitten")
    assert torch.equal(found > 0.5, expected)


def test_words_do_not_change_each_others_masks(folder: Path) -> None:
    image = random_image(60, 90)
    alone = [find(build(folder), image, word) for word in WORDS]
    for number in (1, 2, 8):
        together = find(build(folder, WORDS_PER_BATCH=number), image, *WORDS)
        areas, expected = (masks.flatten(1).sum(1).sort() for masks in (together, torch.cat(alone)))
        assert_close(areas.values, expected.values)


def test_an_object_that_several_words_claim_has_one_mask(folder: Path) -> None:
    image = random_image(60, 90)
    generator = build(folder, MAX_OVERLAP=0.99)
    assert_close(find(generator, image, "cat", "cat"), find(generator, image, "cat"))


def test_without_words_there_is_nothing_to_find(folder: Path) -> None:
    with pytest.raises(InputError, match=r"finds masks for words, but none were requested"):
        build(folder)([{"image": random_image(60, 90)}])


class Fixed(torch.nn.Module):
    """Finds the same mask logits [n, h, w] for every word, with logits of their scores."""

    config = SimpleNamespace(text_config=SimpleNamespace(max_position_embeddings=32))

    def __init__(self, masks: Tensor, scores: Tensor) -> None:
        super().__init__()
        self.masks, self.scores = torch.nn.Parameter(masks[None]), scores[None]

    def get_vision_features(self, _: Tensor) -> dict[str, tuple]:
        return {"fpn_hidden_states": (), "fpn_position_encoding": ()}

    def get_text_features(self, *_: Tensor) -> None:
        """Not needed."""

    def forward(self, **_: Any) -> SimpleNamespace:
        return SimpleNamespace(
            pred_masks=self.masks.detach(), pred_logits=self.scores, presence_logits=None
        )


def test_scores_and_probabilities_must_exceed_their_limits(folder: Path) -> None:
    """A score of MIN_SCORE is too low; a pixel of probability 0.5 is not in the mask."""
    masks = torch.zeros(3, 8, 8)
    masks[0, :, :3] = masks[1, :, 3:6] = masks[2, :, 6:] = 5.0
    model = Fixed(masks, torch.tensor([2.0, 1.0, 0.0]))  # the last one: 0.5
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    generator = Sam3Segmentor(model=model, processor=processor, min_score=0.5, max_overlap=0.0)
    generator.set_vocabulary(Vocabulary.from_class_names(["cat"]))
    (found,) = generator([{"image": random_image(60, 90)}])
    assert_close(found.masks.values, masks[:2].sigmoid())
