"""Synonyms -> text embeddings [Ka, T, D]: every synonym in every template, L2-normalized.

Three savings that change no result. A causal text tower runs only up to the longest sentence of a
chunk, and sentences are grouped by length so that few chunks are long. Embeddings of recent
vocabularies are kept in memory while the weights do not change. Those of a frozen tower are also
cached on disk, by (weights, templates, synonyms).
"""

import hashlib
import logging
import re
from collections.abc import Hashable, Sequence
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from detectron2.utils import comm
from torch import Tensor
from tqdm import tqdm

from maskclippp.clip.text_tower import TextTower
from maskclippp.devices import copied_to
from maskclippp.errors import InputError
from maskclippp.files.cache import cache_folder, read_cached_tensor, write_cached_tensor
from maskclippp.words.spelling import shortened
from maskclippp.words.vocabulary import Vocabulary

logger = logging.getLogger(__name__)

_PATIENCE = 3.0  # seconds until a terminal shows progress
_KEPT_NAMES = 2**16  # of which the token ids are kept

# Vocabularies whose embeddings are kept: that of the training set and a few test vocabularies.
_MAX_KEPT = 4


class TextClassifier:
    """Embeds synonyms with one text tower and one set of templates.

    Args:
        tower: the text tower.
        templates: T sentences with one ``{}`` for the synonym.
        chunk_size: maximum number of sentences per forward pass.
        cache: cache embeddings on disk if the tower is frozen.
    """

    def __init__(
        self,
        tower: TextTower,
        templates: Sequence[str],
        *,
        chunk_size: int = 512,
        cache: bool = True,
    ) -> None:
        if chunk_size < 1:
            raise InputError(f"TEXT_CHUNK_SIZE: expected a positive number, found {chunk_size}")
        self.tower = tower
        self.templates = tuple(templates)
        self.chunk_size = chunk_size
        self.cache = cache
        self._tokens_of_name: dict[str, Tensor] = {}
        self._kept: dict[tuple[Hashable, ...], Tensor] = {}
        self._hashed: tuple[Hashable, hashlib.blake2b] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """For copies of the model, all but the state of a hash, which cannot be copied."""
        return self.__dict__ | {"_hashed": None}

    def sentences(self, names: Sequence[str]) -> list[str]:
        """Every name in every template: len(names) x T sentences, templates varying fastest."""
        return [template.format(name) for name in names for template in self.templates]

    def sample(self, vocabulary: Vocabulary) -> Tensor:
        """Embed one randomly drawn synonym per class -> [K, T, D]; a tuned tower gets gradients.

        With a frozen tower all processes must call this together, see :meth:`embed_frozen`.
        """
        rows = vocabulary.sample_synonyms()
        if self.tower.frozen:
            embeddings = self.embed_frozen(vocabulary.synonyms)
            return embeddings[copied_to(torch.tensor(rows), embeddings.device)]
        return self.embed([vocabulary.synonyms[row] for row in rows])

    def embed(self, names: Sequence[str]) -> Tensor:
        """Embed names with gradients, in this process only -> [len(names), T, D]."""
        embeddings = self._embed_tokens(self._tokens(names))
        return embeddings.view(len(names), len(self.templates), -1)

    def embed_frozen(self, names: Sequence[str]) -> Tensor:
        """Embed names without gradients -> float32 [len(names), T, D], on the tower's device.

        Recent results are kept until the tower's weights change. In a distributed run all processes
        must call this together; each embeds a share.
        """
        key = (tuple(names), self.tower.revision, self.tower.device)
        kept = self._kept.pop(key, None)
        if kept is None:
            embeddings = self._load_or_embed(self._tokens(names)).to(self.tower.device)
            kept = embeddings.view(len(names), len(self.templates), -1)
            # Those of other weights or devices are never asked for again.
            self._kept = {other: self._kept[other] for other in self._kept if other[1:] == key[1:]}
            while len(self._kept) >= _MAX_KEPT:
                del self._kept[next(iter(self._kept))]
        self._kept[key] = kept  # the most recently used comes last
        return kept

    @torch.inference_mode(mode=False)  # inside it, tensors could not be used in training later
    @torch.no_grad()
    def _load_or_embed(self, tokens: Tensor) -> Tensor:
        """[S, D], from the cache if all processes have it there."""
        path = None
        if self.cache and self.tower.frozen:
            # One process reads all weights for it.
            own = self._fingerprint(tokens) if comm.is_main_process() else ""
            path = cache_folder() / "text" / f"{comm.all_gather(own)[0]}.safetensors"
        embeddings = None if path is None else read_cached_tensor(path, len(tokens))
        # Processes may see different disks.
        if not all(comm.all_gather(embeddings is not None)):
            embeddings = self._embed_shared(tokens)
            if path is not None and comm.is_main_process():
                write_cached_tensor(path, embeddings)
        assert embeddings is not None
        return embeddings

    def _tokens(self, names: Sequence[str]) -> Tensor:
        """Token ids [len(names) x T, L]; each name is tokenized only once."""
        if len(self._tokens_of_name) > _KEPT_NAMES:
            self._tokens_of_name.clear()  # a program that runs for long meets ever new names
        new = [name for name in dict.fromkeys(names) if name not in self._tokens_of_name]
        if new:
            tokens = self.tower.tokenize(self.sentences(new))
            self._report_cut_off(new, tokens)
            self._tokens_of_name |= zip(new, torch.split(tokens, len(self.templates)), strict=True)
        return torch.cat([self._tokens_of_name[name] for name in names])

    def _report_cut_off(self, names: Sequence[str], tokens: Tensor) -> None:
        """Warn about names that exceed the context length, whose ends the tower does not see."""
        full = (tokens[:, -1] != self.tower.pad_id).view(len(names), -1).any(dim=1)
        for row in full.nonzero().flatten().tolist():
            # What is cut off can be shortened without an effect.
            shorter = self.sentences([re.sub(r"\W+$", "", names[row])[:-1]])
            kept = tokens.view(len(names), len(self.templates), -1)[row]
            if (self.tower.tokenize(shorter) == kept).all(dim=1).any():
                logger.warning(
                    "%r is too long for the text tower, which reads %d tokens: its end is cut off "
                    "and has no effect; use fewer words",
                    shortened(names[row]),
                    tokens.shape[1],
                )

    def _embed_shared(self, tokens: Tensor) -> Tensor:
        world, rank = comm.get_world_size(), comm.get_rank()
        with torch.autocast(self.tower.device.type, enabled=False):
            if world == 1:
                return self._embed_tokens(tokens)
            # Equal shares, the last padded with repeats, because all_gather needs equal shapes.
            share = -(-len(tokens) // world)
            rows = torch.arange(rank * share, (rank + 1) * share).clamp(max=len(tokens) - 1)
            mine = self._embed_tokens(tokens[rows])
            parts = [torch.empty_like(mine) for _ in range(world)]
            dist.all_gather(parts, mine.contiguous())
            return torch.cat(parts)[: len(tokens)]

    def _embed_tokens(self, tokens: Tensor) -> Tensor:
        """Normalized embeddings of token ids [S, L] -> [S, D], in the order given."""
        lengths = self.tower.lengths(tokens)
        order = lengths.argsort(stable=True)
        chunks = []
        with tqdm(
            desc="embedding words",
            total=len(tokens),
            unit="sentence",
            delay=_PATIENCE,
            leave=False,
            disable=None if comm.is_main_process() else True,  # None: unless in a terminal
        ) as bar:
            for rows in torch.split(order, self.chunk_size):
                chunk = tokens[rows, : int(lengths[rows[-1]])]
                chunks.append(self.tower.encode_tokens(copied_to(chunk, self.tower.device)))
                bar.update(len(rows))
        back = copied_to(order.argsort(), self.tower.device)
        return F.normalize(torch.cat(chunks), dim=-1)[back]

    def _fingerprint(self, tokens: Tensor) -> str:
        """Hash of everything that the embeddings depend on."""
        if self._hashed is None or self._hashed[0] != self.tower.revision:
            self._hashed = self.tower.revision, self._hash_weights()
        digest = self._hashed[1].copy()
        # Token ids also tell tokenizers apart.
        digest.update(f"{tokens.dtype} {tuple(tokens.shape)}".encode())
        digest.update(tokens.numpy().tobytes())
        return digest.hexdigest()

    def _hash_weights(self) -> "hashlib.blake2b":
        digest = hashlib.blake2b(digest_size=20)
        digest.update(self.tower.architecture.encode())
        for key, value in self.tower.state_dict().items():
            digest.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        return digest
