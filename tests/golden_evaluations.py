"""Whole models of golden cases on any device, and what they must compute."""

import dataclasses
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.structures import Instances
from torch import Tensor
from torch.testing import assert_close

from maskclippp.clip import VisualEncoder
from maskclippp.config.keys import get_cfg
from maskclippp.generators import FCCLIPSegmentor, ImageMasks, MaskGenerator
from maskclippp.generators.mask2former.segmentor import MaskTransformerSegmentor
from maskclippp.masks.soft_masks import Frame, SoftMasks
from maskclippp.meta_arch import MaskCLIPpp
from tests.golden_cases import GoldenCase
from tests.golden_models import dense_rows, register_models

CPU = torch.device("cpu")


def build_model(case: GoldenCase, folder: Path, device: torch.device = CPU) -> MaskCLIPpp:
    """The model of the case's config, with the case's weights under their published names."""
    config = case.info["config"]
    register_models(config, folder)
    cfg = get_cfg()
    cfg.INPUT.FORMAT = "RGB"
    cfg.merge_from_other_cfg(CfgNode(config["config_overrides_on_reference_defaults"]))
    names = f"{case}_train_{folder.name}", f"{case}_test_{folder.name}"
    train_classes = config["train_classes"]
    test_classes = config.get("test_classes", train_classes)
    MetadataCatalog.get(names[0]).set(stuff_classes=train_classes)
    things = {i: i for i in config.get("thing_class_indices_of_test", [])}
    MetadataCatalog.get(names[1]).set(
        stuff_classes=test_classes, thing_dataset_id_to_contiguous_id=things, ignore_label=255
    )
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (names[0],), (names[1],)
    cfg.MODEL.DEVICE = str(device)
    node = cfg.MODEL.MASKCLIPPP
    for part in ("VISUAL_ENCODER", "TEXT_ENCODER", "VISUAL_ENCODER_F", "TEXT_ENCODER_F"):
        node[part].PRETRAINED = "random"
    node.SEGMENTOR.PRETRAINED = "random"
    node.TEST.MASK_ACC = False  # whatever the case says: test_mask_classes asks for it
    node.TEST.SEMANTIC_OUTPUT = "scores"
    node.TEST.PAD_ALONE = False
    model = MaskCLIPpp(cfg)
    shapes = {k: v.shape for k, v in model.state_dict().items()}
    state = dense_rows(case.tensors("weights"), shapes)
    if model.logit_scale is not None and "_logit_scale" in state:
        state["logit_scale"] = state.pop("_logit_scale")
    result = model.load_state_dict(state, strict=False)
    assert result.missing_keys in ([], ["text_encoder.logit_scale"])
    return model.to(device)


def load_generator(model: MaskCLIPpp, case: GoldenCase) -> None:
    """Give the model's generator, its encoder and its text tower the weights of the case."""
    generator = model._get_generator()
    assert isinstance(generator, MaskTransformerSegmentor)
    weights = case.tensors("weights")
    parts: dict[str, torch.nn.Module] = {"segmentor": generator.head}
    parts["visual_encoder_f"] = generator.encoder
    if isinstance(generator, FCCLIPSegmentor):
        assert generator.text_classifier is not None
        parts["text_encoder_f"] = generator.text_classifier.tower
    for name, part in parts.items():
        shapes = {f"{name}.{k}": v.shape for k, v in part.state_dict().items()}
        state = dense_rows({k: v for k, v in weights.items() if k.startswith(f"{name}.")}, shapes)
        part.load_state_dict({k.removeprefix(f"{name}."): v for k, v in state.items()})


def per_image(tensors: dict[str, Tensor], name: str) -> list[Tensor]:
    """The tensors <name>/0, <name>/1, ..."""
    return [tensors[f"{name}/{i}"] for i in range(sum(k.startswith(f"{name}/") for k in tensors))]


def records_of(case: GoldenCase) -> list[dict[str, Any]]:
    """The images of a case, as the model takes them."""
    inputs, sizes = case.tensors("inputs"), case.info["config"]["output_sizes"]
    return [
        {"image": image, "height": size[0], "width": size[1]}
        for image, size in zip(per_image(inputs, "image"), sizes, strict=True)
    ]


def check_results(results: list[dict[str, Any]], case: GoldenCase) -> None:
    """Compare all results that the case holds."""
    outputs, limits = case.tensors("outputs"), case.info["tolerance"]
    check = {"rtol": limits["rtol"], "atol": limits["atol"]}
    for index, result in enumerate(map(_on_host, results)):
        seen = outputs["category_overlapping_mask"]
        assert torch.equal(result["category_overlapping_mask"], seen)
        if f"sem_seg/{index}" in outputs:
            assert_close(result["sem_seg"], outputs[f"sem_seg/{index}"], **check)
        if f"panoptic_seg/{index}" in outputs:
            ids, segments = result["panoptic_seg"]
            differing = (ids != outputs[f"panoptic_seg/{index}"]).float().mean()
            assert differing <= 0.005
            assert segments == case.info["segments_info"][index]
        if f"instances_classes/{index}" in outputs:
            instances = result["instances"]
            assert torch.equal(instances.pred_classes, outputs[f"instances_classes/{index}"])
            assert_close(instances.scores, outputs[f"instances_scores/{index}"], rtol=0, atol=1e-3)
        if f"instances_masks/{index}" in outputs:
            masks = outputs[f"instances_masks/{index}"].bool()
            assert (result["instances"].pred_masks != masks).float().mean() <= 0.005


def _on_host(result: Any) -> Any:
    """The same with all its tensors on the host."""
    if isinstance(result, dict):
        return {name: _on_host(value) for name, value in result.items()}
    if isinstance(result, tuple):
        return tuple(_on_host(value) for value in result)
    return result.to("cpu") if isinstance(result, Tensor | Instances) else result


class RecordedGenerator(MaskGenerator):
    """Answers what the generator of a case answered."""

    def __init__(self, recorded: list[ImageMasks], encoder: VisualEncoder) -> None:
        super().__init__()
        self.recorded = recorded
        self.encoder = encoder

    def forward(self, records: Any) -> list[ImageMasks]:
        """See :class:`MaskGenerator`."""
        batch = self.encoder([record["image"] for record in records]).batch
        values = self.recorded[0].masks.values
        stride = batch.images.shape[-1] // values.shape[-1]
        padded_size = values.shape[-2] * stride, values.shape[-1] * stride
        return [
            dataclasses.replace(
                found, masks=SoftMasks(found.masks.values, Frame(padded_size, size))
            )
            for found, size in zip(self.recorded, batch.image_sizes, strict=True)
        ]


def use_generator(model: MaskCLIPpp, case: GoldenCase) -> None:
    """The case's generator; a reduced case has no weights for it, but its answers."""
    if "weights/segmentor.*" not in case.info.get("reduced", {}).get("zero", ()):
        load_generator(model, case)
        return
    outputs = case.tensors("outputs")
    generator = model._get_generator()
    assert isinstance(generator, MaskTransformerSegmentor)
    recorded = [
        ImageMasks(SoftMasks(masks), logits, generator.own_classes)
        for masks, logits in zip(
            outputs["segmentor/pred_masks"], outputs["segmentor/pred_logits"], strict=True
        )
    ]
    replay = RecordedGenerator(recorded, generator.encoder)
    model._get_generator = lambda: replay


def check_training_step(case: GoldenCase, folder: Path, device: torch.device = CPU) -> None:
    """Compare the loss of a case, and the gradients that it holds."""
    model = build_model(case, folder, device).train()
    inputs, outputs = case.tensors("inputs"), case.tensors("outputs")
    records = []
    for image, masks, labels in zip(
        *(per_image(inputs, name) for name in ("image", "masks", "labels")), strict=True
    ):
        instances = Instances((image.shape[-2], image.shape[-1]))
        instances.gt_masks, instances.gt_classes = masks, labels
        records.append({"image": image, "instances": instances})
    (loss,) = model(records).values()
    limits = case.info["tolerance"]
    assert_close(loss.cpu(), outputs["loss"], rtol=limits["rtol"], atol=limits["atol"])
    loss.backward()
    weights = case.tensors("weights")
    checked = 0
    for key, expected in outputs.items():
        if not key.startswith("grad/"):
            continue
        name = key.removeprefix("grad/").removesuffix("#rows")
        parameter = model.get_parameter("logit_scale" if name == "_logit_scale" else name)
        assert parameter.grad is not None, name
        gradient = parameter.grad.cpu()
        if key.endswith("#rows"):
            gradient = gradient[weights[f"{name}#row_ids"].long()]
        bound = max(limits["rtol"] * expected.abs().max().item(), limits["atol"])
        assert (gradient - expected).abs().max().item() <= bound, name
        checked += 1
    assert checked > 10


def check_evaluation_with_true_masks(
    case: GoldenCase, folder: Path, device: torch.device = CPU
) -> None:
    """Compare the results of a case, and its text embeddings."""
    model = build_model(case, folder, device).eval()
    labels = per_image(case.tensors("inputs"), "gt_sem_seg")
    records = [
        {**record, "sem_seg": label.long()}
        for record, label in zip(records_of(case), labels, strict=True)
    ]
    check_results(model(records), case)
    limits = case.info["tolerance"]
    check = {"rtol": limits["rtol"], "atol": limits["atol"]}
    text = model.text_classifier.embed_frozen(model.requested_words.vocabulary.synonyms)
    assert_close(text.cpu(), case.tensors("outputs")["test_t_embs"], **check)


def check_evaluation_with_a_generator(
    case: GoldenCase, folder: Path, device: torch.device = CPU
) -> None:
    """Compare the results of a case."""
    model = build_model(case, folder, device).eval()
    use_generator(model, case)
    check_results(model(records_of(case)), case)
