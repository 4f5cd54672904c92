"""MaskCLIP++ as a detectron2 meta-architecture. It wires the parts and computes nothing itself.

Training: CLIP classifies annotated masks into the classes of the training set. Inference: a mask
generator supplies masks, which are classified into any requested classes.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY
from torch import Tensor, nn

from maskclippp.alignment import PSM, build_criterion, build_psm
from maskclippp.clip import (
    EncodedImages,
    TextTower,
    VisualEncoder,
    build_text_tower,
    build_visual_encoder,
)
from maskclippp.clip.similarity import similarity
from maskclippp.errors import InputError
from maskclippp.generators import (
    ImageMasks,
    MaskGenerator,
    build_generator,
    check_generator,
)
from maskclippp.inference import postprocess
from maskclippp.inference.class_logits import max_over_synonyms
from maskclippp.inference.settings import (
    ClassifiedMasks,
    InferenceSettings,
    combine_with_generator,
    image_results,
)
from maskclippp.masks.overlap import label_by_overlap
from maskclippp.masks.soft_masks import SoftMasks
from maskclippp.words.requested import RequestedWords
from maskclippp.words.sources import training_vocabulary
from maskclippp.words.templates import get_templates
from maskclippp.words.text_classifier import TextClassifier
from maskclippp.words.vocabulary import Vocabulary

Records = Sequence[dict[str, Any]]


@META_ARCH_REGISTRY.register()
class MaskCLIPpp(nn.Module):
    """The model.

    Args:
        visual_encoder: the mask classifier's image tower.
        text_encoder: its text tower.
        psm: similarities -> logits.
        criterion: the training loss.
        make_generator: builds the mask generator; called when it is first needed, because
            training on ground-truth masks needs none.
        train_vocabulary: classes of the training set; None for a model that is only used.
        test_dataset: registered dataset that is requested first; may be None.
        vocabulary: value of DATASETS.VOCABULARY (:mod:`maskclippp.words.sources`).
        templates: prompts of the text classifier.
        text_chunk_size: sentences per forward pass of the text tower.
        text_cache: keep embeddings of a frozen text tower on disk.
        use_logit_scale: multiply similarities by the clamped logit scale.
        train_masks: "ground_truth" | "segmentor".
        ignore_index: label of generated training masks that match no annotated one.
        inference: what is computed in evaluation.
    """

    @configurable
    def __init__(
        self,
        *,
        visual_encoder: VisualEncoder,
        text_encoder: TextTower,
        psm: PSM,
        criterion: nn.Module,
        make_generator: Callable[[], MaskGenerator],
        train_vocabulary: Vocabulary | None = None,
        test_dataset: str | None = None,
        vocabulary: str = "builtin",
        templates: Sequence[str] = ("a photo of a {}.",),
        text_chunk_size: int = 512,
        text_cache: bool = True,
        use_logit_scale: bool = False,
        train_masks: str = "ground_truth",
        ignore_index: int = -100,
        inference: InferenceSettings | None = None,
    ) -> None:
        super().__init__()
        if train_masks not in ("ground_truth", "segmentor"):
            raise InputError(
                f"TRAIN_MASKS: {train_masks!r} is not one of ('ground_truth', 'segmentor')"
            )
        self.visual_encoder = visual_encoder
        self.text_encoder = text_encoder
        self.psm = psm
        self.criterion = criterion
        self.train_vocabulary = train_vocabulary
        self.vocabulary = vocabulary
        self.train_masks = train_masks
        self.ignore_index = ignore_index
        self.inference = inference or InferenceSettings()
        self.text_is_trained = any(p.requires_grad for p in text_encoder.parameters())
        self.logit_scale = self._make_logit_scale(use_logit_scale)
        self.text_classifier = TextClassifier(
            text_encoder,
            templates,
            chunk_size=text_chunk_size,
            # Embeddings of a tuned tower are outdated after the next step.
            cache=text_cache and not self.text_is_trained,
        )
        # Behind a function: as an attribute it would join the module tree, and would be saved,
        # and set to training, as soon as it is built.
        self._get_generator: Callable[[], MaskGenerator] = cache(make_generator)
        self._train_text: Tensor | None = None
        self._test_text: Tensor | None = None
        self.words: RequestedWords | None = None
        if test_dataset is not None:
            self._request_dataset(test_dataset)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Build all parts from the complete config."""
        if cfg.INPUT.FORMAT != "RGB":
            raise InputError(f"INPUT.FORMAT: CLIP reads RGB images, found {cfg.INPUT.FORMAT!r}")
        node = cfg.MODEL.MASKCLIPPP
        if cfg.DATASETS.TEST or node.TRAIN_MASKS == "segmentor":
            # The generator is built when it is first needed; what is missing is an error now.
            check_generator(cfg)
        return {
            "visual_encoder": build_visual_encoder(node.VISUAL_ENCODER, model=cfg.MODEL),
            "text_encoder": build_text_tower(node.TEXT_ENCODER),
            "psm": build_psm(cfg),
            "criterion": build_criterion(cfg),
            "make_generator": lambda: build_generator(cfg),
            "train_vocabulary": training_vocabulary(cfg.DATASETS.TRAIN, cfg.DATASETS.VOCABULARY),
            "test_dataset": cfg.DATASETS.TEST[0] if cfg.DATASETS.TEST else None,
            "vocabulary": cfg.DATASETS.VOCABULARY,
            "templates": get_templates(node.TEMPLATES),
            "text_chunk_size": node.TEXT_CHUNK_SIZE,
            "text_cache": node.TEXT_CACHE,
            "use_logit_scale": node.USE_LOGIT_SCALE,
            "train_masks": node.TRAIN_MASKS,
            "ignore_index": node.CRITERION.IGNORE_INDEX,
            "inference": InferenceSettings.from_config(cfg),
        }

    def _make_logit_scale(self, use_logit_scale: bool) -> nn.Parameter | None:
        """The scale of similarities: the tuned text tower's own, else one that is trained here."""
        tower_scale = self.text_encoder.logit_scale
        if not use_logit_scale:
            tower_scale.requires_grad_(False)  # unused: it would have no gradient
            return None
        if tower_scale.requires_grad:
            return tower_scale
        return nn.Parameter(tower_scale.detach().clone())

    @property
    def checkpoint_prefixes(self) -> tuple[str, ...]:
        """First components of the state-dict keys that a checkpoint holds."""
        prefixes = ["visual_encoder", "psm", "criterion"]
        if self.text_is_trained:
            prefixes.append("text_encoder")
        own_scale = self.logit_scale is not self.text_encoder.logit_scale
        if self.logit_scale is not None and own_scale:
            prefixes.append("logit_scale")
        return tuple(prefixes)

    @property
    def device(self) -> torch.device:
        """The device that the model computes on."""
        return self.visual_encoder.device

    def set_test_dataset(self, name: str) -> None:
        """Request the classes of a registered dataset from now on.

        In a distributed run all processes must call this together.

        Raises:
            InputError, MissingFileError: see :meth:`RequestedWords.of_dataset`.
        """
        self._request_dataset(name)
        if not self.inference.segmentor_only:
            self._get_test_text()
        self._get_classifying_generator()

    def set_test_vocabulary(
        self, class_names: Sequence[str], thing_classes: Sequence[int] = ()
    ) -> None:
        """Request any classes from now on.

        Args:
            class_names: one string per class, synonyms separated by commas.
            thing_classes: numbers of the classes that have instances.

        Raises:
            InputError: no or empty names, or a thing class that does not exist.
        """
        vocabulary = Vocabulary.from_class_names(class_names)
        train = self.train_vocabulary or Vocabulary(())
        self._request(RequestedWords(vocabulary, frozenset(thing_classes), train))

    @property
    def test_vocabulary(self) -> Vocabulary | None:
        """The requested classes; None before any were requested."""
        return None if self.words is None else self.words.vocabulary

    def _request_dataset(self, name: str) -> None:
        self._request(RequestedWords.of_dataset(name, self.vocabulary, self.train_vocabulary))

    def _request(self, words: RequestedWords) -> None:
        self.words = words
        self._test_text = None

    def requested_words(self) -> RequestedWords:
        """What this model is asked to find; an InputError if nothing was requested."""
        if self.words is None:
            raise InputError(
                "no classes were requested: set DATASETS.TEST, or call set_test_vocabulary"
            )
        return self.words

    def train(self, mode: bool = True) -> "MaskCLIPpp":
        """See ``nn.Module``; embeddings of a tuned text tower are recomputed after training."""
        if mode and self.text_is_trained:
            self._test_text = None
        super().train(mode)
        return self

    def _get_test_text(self) -> Tensor:
        """[Ka, T, D] of the test vocabulary."""
        vocabulary = self.requested_words().vocabulary
        if self._test_text is None or self._test_text.device != self.device:
            self._test_text = self.text_classifier.embed_frozen(vocabulary.synonyms)
        return self._test_text

    def _sample_train_text(self, vocabulary: Vocabulary) -> Tensor:
        """[K, T, D] with one synonym per class, drawn at random in every iteration."""
        rows = vocabulary.sample_synonyms()
        if self.text_is_trained:
            return self.text_classifier.embed([vocabulary.synonyms[row] for row in rows])
        if self._train_text is None:
            self._train_text = self.text_classifier.embed_frozen(vocabulary.synonyms)
        return self._train_text[rows]

    def forward(self, batched_inputs: Records) -> dict[str, Tensor] | list[dict[str, Any]]:
        """Losses in training, results per image in evaluation.

        Args:
            batched_inputs: one record per image. ``image``: [3, h, w], RGB, 0..255. Training:
                ``instances`` with ``gt_masks`` bool [n, h, w] and ``gt_classes`` int64 [n].
                Evaluation: ``height`` and ``width`` of the results (default: of the image), and
                the annotations that a ground-truth generator needs.

        Returns:
            Training: ``{"loss_ce": scalar}``. Evaluation: a dictionary per image with
            ``category_overlapping_mask`` bool [K] and, as configured,

            - ``sem_seg_labels`` int64 [H, W], or ``sem_seg`` float [K, H, W];
            - ``panoptic_seg``: int32 [H, W] and the list of segments;
            - ``instances``: ``pred_masks``, ``pred_boxes``, ``pred_classes``, ``scores``;
            - ``mask_cls`` int64 [Q], alone, when mask accuracy is asked for;
            - ``pred_masks`` bool [Q, H, W], alone, when only the generator is judged.
        """
        if self.training:
            return self._losses(batched_inputs)
        with torch.no_grad(), self.inference.autocast(self.device):
            return self._infer(batched_inputs)

    def classify_masks(self, batched_inputs: Records) -> list[ClassifiedMasks]:
        """What the results of :meth:`forward` in evaluation are made of, per image."""
        with torch.no_grad(), self.inference.autocast(self.device):
            return self._classify_masks(batched_inputs)

    def _losses(self, records: Records) -> dict[str, Tensor]:
        vocabulary = self.train_vocabulary
        if vocabulary is None:
            raise InputError("no classes to train on: set DATASETS.TRAIN")
        masks, labels = self._training_masks(records, len(vocabulary))
        encoded = self.visual_encoder([record["image"] for record in records], masks)
        text = self._sample_train_text(vocabulary)
        logits = self._align(encoded, text)
        loss = self.criterion(
            logits,
            torch.cat(labels).to(self.device),
            encoded.batch.image_of_mask,
            len(records),
            encoded.mask_areas,
        )
        if len(logits) == 0:
            # DDP waits for the gradient of every trained parameter, also on such a batch.
            loss = loss + sum(p.sum() for p in self.parameters() if p.requires_grad) * 0
        return {"loss_ce": loss}

    def _training_masks(
        self, records: Records, num_classes: int
    ) -> tuple[list[SoftMasks], list[Tensor]]:
        """Per image: n masks and their labels [n]."""
        masks, labels = [], []
        for record in records:
            instances = record["instances"]
            gt_masks = getattr(instances.gt_masks, "tensor", instances.gt_masks)
            gt_classes = instances.gt_classes
            if len(gt_classes) and int(gt_classes.max()) >= num_classes:
                raise InputError(
                    f"{record.get('file_name', 'an image')}: annotated class "
                    f"{int(gt_classes.max())}, but DATASETS.TRAIN has {num_classes} classes "
                    f"(0..{num_classes - 1})"
                )
            masks.append(gt_masks)
            labels.append(gt_classes)
        if self.train_masks == "ground_truth":
            return [SoftMasks(image_masks) for image_masks in masks], labels
        generated = [found.masks for found in self._get_generator()(records)]
        labeled = [
            label_by_overlap(found, truth, classes, self.ignore_index)
            for found, truth, classes in zip(generated, masks, labels, strict=True)
        ]
        return generated, labeled

    def _align(self, encoded: EncodedImages, text: Tensor) -> Tensor:
        """Logits [N, Ka] of all masks against all names."""
        assert encoded.mask_embeddings is not None
        correlation = similarity(encoded.mask_embeddings, text, self.logit_scale)
        logits: Tensor = self.psm(correlation, encoded, text)
        return logits

    def _get_classifying_generator(self) -> MaskGenerator:
        """The mask generator, with the test vocabulary set."""
        generator = self._get_generator()
        if self.test_vocabulary is not None and not self.inference.segmentor_only:
            generator.set_vocabulary(self.test_vocabulary)
        return generator

    def _infer(self, records: Records) -> list[dict[str, Any]]:
        """Results of a batch, in its order."""
        if not self.inference.pad_alone:
            return self._infer_padded(records)
        # Images of one size are padded alike: the others would add to their padding.
        indices_of_size: dict[torch.Size, list[int]] = {}
        for index, record in enumerate(records):
            indices_of_size.setdefault(record["image"].shape, []).append(index)
        results: dict[int, dict[str, Any]] = {}
        for indices in indices_of_size.values():
            found = self._infer_padded([records[index] for index in indices])
            results.update(zip(indices, found, strict=True))
        return [results[index] for index in range(len(records))]

    def _infer_padded(self, records: Records) -> list[dict[str, Any]]:
        """Results of images that are padded to a common size."""
        sizes = [_output_size(record) for record in records]
        if self.inference.segmentor_only:
            return [
                {"pred_masks": postprocess.binary_masks(found.masks.to(self.device), size)}
                for found, size in zip(self._get_generator()(records), sizes, strict=True)
            ]
        words = self.requested_words()
        results = []
        for image, size in zip(self._classify_masks(records), sizes, strict=True):
            result = image_results(image, size, words.thing_classes, len(words), self.inference)
            results.append({**result, "category_overlapping_mask": words.seen})
        return results

    def _classify_masks(self, records: Records) -> list[ClassifiedMasks]:
        words, text = self.requested_words(), self._get_test_text()
        generated: list[ImageMasks] = self._get_classifying_generator()(records)
        masks = [found.masks.to(self.device) for found in generated]
        encoded = self.visual_encoder([record["image"] for record in records], masks)
        # In half precision the similarities of hundreds of words are not distinct.
        with torch.autocast(self.device.type, enabled=False):
            name_logits = self._align(encoded.float(), text)
        class_of_synonym = words.class_of_synonym(self.device)
        class_logits = max_over_synonyms(name_logits, class_of_synonym, len(words))
        per_image = torch.split(class_logits, encoded.batch.masks_per_image)
        return [
            ClassifiedMasks(image_masks, self._combine(logits, found, words))
            for image_masks, logits, found in zip(masks, per_image, generated, strict=True)
        ]

    def _combine(self, logits: Tensor, found: ImageMasks, words: RequestedWords) -> Tensor:
        """Logits [Q, K] combined with those of the generator, if it classifies its masks."""
        if found.logits is None:
            return logits
        own = found.own_classes
        table = None if own is None else words.class_of_own_class(own)
        theirs = found.logits.to(self.device)
        return combine_with_generator(logits, theirs, words.seen, table, self.inference)


def _output_size(record: dict[str, Any]) -> tuple[int, int]:
    height, width = record["image"].shape[-2:]
    return record.get("height", height), record.get("width", width)
