"""The text classifier: exact for less work, cached on disk, the same on many processes."""

import copy
import logging
import os
import random
import weakref
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.testing import assert_close

from benchmarks.plain import model as plain
from maskclippp.words import text_classifier
from maskclippp.words.templates import TEMPLATES
from maskclippp.words.text_classifier import TextClassifier
from maskclippp.words.vocabulary import Vocabulary
from tests.engine.processes import run_in_processes
from tests.tiny_models import tiny_text_tower

NAMES = ["cat", "traffic light", "a very long name of a thing that nobody has ever seen", "x"]


def classifier(
    templates: str = "t14", *, chunk_size: int = 512, cache: bool = True, seed: int = 0
) -> TextClassifier:
    torch.manual_seed(seed)
    sentences = TEMPLATES[templates]
    return TextClassifier(tiny_text_tower(), sentences, chunk_size=chunk_size, cache=cache)


def count_calls(made: TextClassifier) -> list[Tensor]:
    """A list that grows by the token ids of every pass through the tower."""
    calls: list[Tensor] = []
    made.tower.transformer.register_forward_hook(lambda _, args, __: calls.append(args[0]))
    return calls


@pytest.mark.parametrize("chunk_size", [1, 5, 512])
@pytest.mark.parametrize("templates", ["t1", "t14", "t80"])
@torch.no_grad()
def test_equals_full_length_encoding(templates: str, chunk_size: int) -> None:
    names = NAMES[:2] if templates == "t80" else NAMES
    made = TextClassifier(tiny_text_tower(), TEMPLATES[templates], chunk_size=chunk_size)
    expected = plain.text_embeddings(made.tower, made.templates, names)
    assert_close(made.embed(names), expected)
    assert_close(made.embed_frozen(names), expected)


def test_no_more_tokens_than_the_longest_sentence_are_encoded() -> None:
    made = classifier(cache=False)
    calls = count_calls(made)
    made.embed_frozen(["cat"])
    longest = int(made.tower.tokenize(made.sentences(["cat"])).count_nonzero(dim=1).max())
    assert [call.shape[1] for call in calls] == [longest]
    assert longest < 16


def test_long_sentences_share_their_chunk_with_few() -> None:
    """Grouping by length: one long name does not lengthen all chunks."""
    made = classifier(cache=False, chunk_size=14)
    calls = count_calls(made)
    made.embed_frozen([NAMES[2], "cat", "dog", "bird"])
    lengths = [call.shape[1] for call in calls]
    assert max(lengths[:3]) < 16 < lengths[3]


def test_a_sentence_longer_than_the_context_is_cut() -> None:
    made = classifier(cache=False)
    embeddings = made.embed_frozen(["word " * 100])
    assert embeddings.isfinite().all()


def test_a_word_whose_end_is_cut_off_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    made = classifier(cache=False)
    context = made.tower.tokenize(["x"]).shape[1]
    # "This is a photo of a small {}" has the most tokens before the name, 7, and there are 2 ends.
    fits, cut, unbroken = "cat " * (context - 9), "cat " * (context - 8), "q" * 10 * context
    with caplog.at_level(logging.WARNING):
        made.embed_frozen([fits.strip()])
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        made.embed_frozen([cut.strip(), unbroken])
    assert [record.args[1] for record in caplog.records] == [context, context]
    assert "its end is cut off" in caplog.text


def test_embeddings_have_unit_length() -> None:
    embeddings = classifier().embed_frozen(NAMES)
    assert embeddings.shape == (4, 14, 64)
    assert_close(embeddings.norm(dim=-1), torch.ones(4, 14))


def test_gradients_reach_a_tuned_tower() -> None:
    tower = tiny_text_tower(".TEXT_ENCODER.FINETUNE_TYPE", "all")
    TextClassifier(tower, TEMPLATES["t1"]).embed(["cat"]).sum().backward()
    gradient = tower.positional_embedding.grad
    assert gradient is not None
    assert gradient.abs().sum() > 0


class TestMemory:
    """Embeddings of recent vocabularies are kept while the weights do not change."""

    def test_the_same_names_cost_nothing_when_they_are_set_again(self) -> None:
        made = classifier(cache=False)
        first, other = made.embed_frozen(NAMES), made.embed_frozen(NAMES[:2])
        calls = count_calls(made)
        assert made.embed_frozen(list(NAMES)) is first
        assert made.embed_frozen(NAMES[:2]) is other
        assert calls == []

    def test_few_vocabularies_are_kept(self) -> None:
        made = classifier(cache=False)
        for number in range(10):
            made.embed_frozen([f"class {number}"])
        assert len(made._kept) == text_classifier._MAX_KEPT

    def test_those_of_other_weights_are_not_kept(self) -> None:
        made = classifier(cache=False)
        before = weakref.ref(made.embed_frozen(NAMES))
        with torch.no_grad():
            made.tower.text_projection.mul_(2)
        made.embed_frozen(["cat"])
        assert before() is None

    def test_what_is_used_again_and_again_is_kept(self) -> None:
        made = classifier(cache=False)
        often = made.embed_frozen(NAMES)
        for number in range(10):
            made.embed_frozen([f"class {number}"])
            assert made.embed_frozen(NAMES) is often

    @pytest.mark.parametrize("change", ["training", "loading", "in place", "replaced"])
    def test_other_weights_make_them_outdated(self, change: str) -> None:
        tower = tiny_text_tower(".TEXT_ENCODER.FINETUNE_TYPE", "all")
        made = TextClassifier(tower, TEMPLATES["t1"], cache=False)
        before = made.embed_frozen(NAMES)
        if change == "training":
            tower.train()  # by an optimizer that autograd does not see
            tower.get_parameter("text_projection").data.mul_(torch.linspace(0.5, 1.5, 64))
        elif change == "in place":
            with torch.no_grad():
                tower.get_parameter("text_projection").mul_(torch.linspace(0.5, 1.5, 64))
        elif change == "replaced":
            values = torch.nn.utils.parameters_to_vector(tower.parameters())
            torch.nn.utils.vector_to_parameters(values + 0.1, tower.parameters())
        else:
            state = {key: value + value.mean() for key, value in tower.state_dict().items()}
            tower.load_state_dict(state)
        assert not torch.allclose(made.embed_frozen(NAMES), before)

    def test_a_frozen_tower_is_not_outdated_by_training(self) -> None:
        made = classifier(cache=False)
        before = made.embed_frozen(NAMES)
        made.tower.train()
        assert made.embed_frozen(NAMES) is before

    def test_what_was_made_for_inference_can_be_used_in_training(self) -> None:
        made = classifier(cache=False)
        with torch.inference_mode():
            text = made.embed_frozen(NAMES)
        scale = torch.ones((), requires_grad=True)
        (made.embed_frozen(NAMES) * scale).sum().backward()
        assert not text.is_inference()


@pytest.mark.parametrize("finetune_type", ["none", "all"])
def test_a_sample_has_one_synonym_of_every_class(finetune_type: str) -> None:
    tower = tiny_text_tower(".TEXT_ENCODER.FINETUNE_TYPE", finetune_type)
    made = TextClassifier(tower, TEMPLATES["t14"], cache=False)
    vocabulary = Vocabulary.from_class_names(["cat, kitten", "dog"])
    random.seed(0)
    found = made.sample(vocabulary)
    random.seed(0)
    names = [vocabulary.synonyms[row] for row in vocabulary.sample_synonyms()]
    assert_close(found, made.embed(names), check_stride=False)
    assert found.shape == (2, 14, 64)
    assert found.requires_grad == (finetune_type == "all")


def test_a_classifier_can_be_copied_after_use() -> None:
    """Averaging of weights, say, copies a model; the copy sees its own weights."""
    made = classifier()
    before = made.embed_frozen(["cat"])
    copied = copy.deepcopy(made)
    with torch.no_grad():
        for parameter in copied.tower.parameters():
            parameter.mul_(1.5).add_(0.1)
    assert not torch.allclose(copied.embed_frozen(["cat"]), before)
    assert torch.equal(made.embed_frozen(["cat"]), before)


def test_chunk_size_must_be_positive() -> None:
    with pytest.raises(ValueError, match="TEXT_CHUNK_SIZE: expected a positive number, found 0"):
        classifier(chunk_size=0)


class TestCache:
    """Embeddings of a frozen tower are kept in $MASKCLIPPP_CACHE."""

    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setenv("MASKCLIPPP_CACHE", str(tmp_path / "mine"))
        return tmp_path / "mine"

    def test_the_second_time_the_tower_is_not_called(self, folder: Path) -> None:
        first = classifier().embed_frozen(NAMES)
        again = classifier()
        calls = count_calls(again)
        assert torch.equal(again.embed_frozen(NAMES), first)
        assert calls == []
        (file,) = folder.rglob("*.safetensors")
        assert file.is_relative_to(folder)

    def test_embeddings_of_a_trained_tower_are_not_kept(self, folder: Path) -> None:
        """Each step would write others."""
        tower = tiny_text_tower(".TEXT_ENCODER.FINETUNE_TYPE", "all")
        TextClassifier(tower, TEMPLATES["t1"]).embed_frozen(NAMES)
        assert not folder.exists()

    def test_nothing_is_written_when_it_is_off(self, folder: Path) -> None:
        classifier(cache=False).embed_frozen(NAMES)
        assert not folder.exists()

    @pytest.mark.parametrize("change", ["weights", "activation", "templates", "names", "order"])
    def test_a_change_is_noticed(self, change: str) -> None:
        names = list(NAMES)
        classifier().embed_frozen(names)
        changed = classifier()
        if change == "weights":
            with torch.no_grad():
                changed.tower.transformer.resblocks[0].ln_1.weight[3] += 1e-3
        elif change == "activation":
            for block in changed.tower.transformer.resblocks:
                block.mlp.gelu = torch.nn.ReLU()
        elif change == "templates":
            changed.templates = tuple(reversed(changed.templates))
        elif change == "names":
            names[-1] = "y"
        else:
            names.reverse()
        calls = count_calls(changed)
        embeddings = changed.embed_frozen(names)
        assert calls
        with torch.no_grad():
            assert_close(embeddings, changed.embed(names))

    def test_the_chunk_size_is_no_change(self) -> None:
        classifier().embed_frozen(NAMES)
        other = classifier(chunk_size=3)
        calls = count_calls(other)
        other.embed_frozen(NAMES)
        assert calls == []

    @pytest.mark.parametrize("damage", ["truncated", "empty", "foreign", "flipped"])
    def test_a_damaged_file_is_reported_and_replaced(
        self, damage: str, folder: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        first = classifier().embed_frozen(NAMES)
        (file,) = folder.rglob("*.safetensors")
        whole = file.read_bytes()
        flipped = whole[:-1] + bytes([whole[-1] ^ 1])
        damages = {"truncated": whole[:-10], "empty": b"", "foreign": b"hello" * 9}
        file.write_bytes({**damages, "flipped": flipped}[damage])
        with caplog.at_level(logging.WARNING):
            assert torch.equal(classifier().embed_frozen(NAMES), first)
        assert str(file) in caplog.text
        assert file.read_bytes() == whole

    def test_no_partial_file_remains(self, folder: Path) -> None:
        classifier().embed_frozen(NAMES)
        assert [path.suffix for path in folder.rglob("*") if path.is_file()] == [".safetensors"]

    def test_a_cache_that_cannot_be_written_is_only_reported(
        self, folder: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        folder.write_text("a file where the folder should be")
        with caplog.at_level(logging.WARNING):
            embeddings = classifier().embed_frozen(NAMES)
        assert embeddings.shape == (4, 14, 64)
        assert "could not be kept" in caplog.text

    def test_a_failed_write_leaves_nothing_behind(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def full_disk(*_: object) -> None:
            raise OSError("No space left on device")

        monkeypatch.setattr(Path, "replace", full_disk)
        with caplog.at_level(logging.WARNING):
            assert classifier().embed_frozen(NAMES).shape == (4, 14, 64)
        assert "No space left" in caplog.text
        assert [path for path in folder.rglob("*") if path.is_file()] == []


def _embed_and_save(
    folder: Path, names: list[str], templates: str, *, rank: int, world_size: int
) -> None:
    torch.set_num_threads(1)
    # Every process has its own cache folder, as on several machines.
    os.environ["MASKCLIPPP_CACHE"] = str(folder / f"cache{rank}")
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world_size
    )
    made = classifier(templates)
    calls = count_calls(made)
    embeddings = made.embed_frozen(names)
    sentences = sum(len(call) for call in calls)
    again = made.embed_frozen(names)
    torch.save({"first": embeddings, "again": again, "sentences": sentences}, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize(
    ("names", "templates", "share"), [(NAMES, "t14", 28), (NAMES[:3], "t1", 2), (["x"], "t1", 1)]
)
def test_two_processes_give_what_one_gives(
    names: list[str], templates: str, share: int, tmp_path: Path
) -> None:
    """Also where the sentences cannot be shared equally."""
    assert run_in_processes(_embed_and_save, tmp_path, names, templates, world_size=2) == [0, 0]
    expected = classifier(templates, cache=False).embed_frozen(names)
    shares = []
    for rank in range(2):
        result = torch.load(tmp_path / f"{rank}.pt")
        assert_close(result["first"], expected)
        assert_close(result["again"], expected)
        shares.append(result["sentences"])
    assert shares == [share] * 2


def test_a_process_whose_cache_has_the_words_helps_the_others(tmp_path: Path) -> None:
    """Of several machines, some may have embedded them before."""
    assert run_in_processes(_embed_and_save, tmp_path, NAMES, "t1", world_size=1) == [0]
    assert list((tmp_path / "cache0").rglob("*.safetensors"))
    assert run_in_processes(_embed_and_save, tmp_path, NAMES, "t1", world_size=2) == [0, 0]
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert_close(first["first"], second["first"])
    assert first["sentences"] == second["sentences"] == 2
