"""Writes what another program needs to segment without this one; docs/export.md describes it."""

import importlib.util
import io
import json
import logging
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from maskclippp.errors import InputError, MissingPackageError, check_choice
from maskclippp.export.graphs import ClassifierGraph, GeneratorGraph
from maskclippp.files.atomic import atomic_write, make_folder, write_json
from maskclippp.generators import FCCLIPSegmentor
from maskclippp.meta_arch import MaskCLIPpp
from maskclippp.words.requested import RequestedWords

GRAPHS = ("generator", "classifier")
FORMATS = ("onnx", "pt2")

_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
# Of what the graphs are traced with, where sizes may change: no two numbers are equal.
_TRACED_IMAGE, _TRACED_MASKS, _TRACED_SYNONYMS = (203, 301), (7, 37, 53), 5
_SMALLEST_SIDE = 32
_ANY = torch.export.Dim.DYNAMIC
_INLINE_BYTES = 2**30  # larger ONNX files keep their weights in a second file

Size = tuple[int, int]


@dataclass(frozen=True)
class _Traced:
    """A graph, inputs to trace it with, which of their sizes may change, and its outputs' names."""

    module: nn.Module
    inputs: dict[str, Tensor]
    sizes: dict[str, Any]
    outputs: tuple[str, ...]


def check_packages(formats: Sequence[str]) -> None:
    """Raise an InputError for an unknown format, or one whose packages are not installed."""
    for name in formats:
        check_choice("format", name, FORMATS)
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing and "onnx" in formats:
        raise MissingPackageError(
            f"exporting to ONNX needs {', '.join(missing)}: pip install 'maskclippp[export]', or "
            "export with --format pt2"
        )


def export_model(
    model: MaskCLIPpp,
    words: RequestedWords,
    folder: Path,
    *,
    graphs: Sequence[str] = GRAPHS,
    formats: Sequence[str] = ("onnx",),
    image_size: Size | None = None,
    test_size: Size = (0, 0),
) -> list[Path]:
    """Write the words, and graphs, into a folder; the files, in order.

    Args:
        model: on the CPU, in evaluation mode.
        words: whose text embeddings are written. The graphs take those of any words.
        folder: is made if it is missing.
        graphs: of :data:`GRAPHS`.
        formats: of :data:`FORMATS`.
        image_size: height and width of all images; None: any.
        test_size: least shorter and largest longer side at which the model sees images, a note.

    Raises:
        InputError: an unknown graph or format; a graph that cannot be exported, or not for images
            of any size; ``folder`` is a file.
        MissingPackageError: a format needs a package that is not installed.
    """
    check_packages(formats)
    for name in graphs:
        check_choice("graph", name, GRAPHS)
    make_folder(folder, "the folder")
    image = 255 * torch.rand(1, 3, *(image_size or _TRACED_IMAGE))
    matrices = text_matrices(model, words)
    note: dict[str, Any] = {"image_size": image_size, "test_size": test_size}
    traced: dict[str, _Traced] = {}
    if "generator" in graphs:
        traced["generator"] = _generator(model, image, matrices, image_size)
        with torch.no_grad():
            masks = model.mask_generator([{"image": image[0]}])[0].masks
        assert masks.frame is not None
        pairs = zip(masks.frame.padded_size, masks.shape, strict=True)
        note["mask_stride"] = [pixels / cells for pixels, cells in pairs]
    if "classifier" in graphs:
        traced["classifier"] = _classifier(model, image, matrices, image_size)
    written = [folder / "text.npz", folder / "words.json"]
    for name, graph in traced.items():
        written += _write_graph(graph, folder / name, formats, fixed=image_size is not None)
    content = io.BytesIO()
    np.savez(content, **{key: value.numpy() for key, value in matrices.items()})  # type: ignore[arg-type]
    with atomic_write(written[0]) as file:
        file.write(content.getvalue())
    write_json(written[1], _listed(words))
    if traced:  # other words for graphs of before leave their note as it is
        written.append(folder / "model.json")
        write_json(written[-1], _earlier_note(written[-1], traced) | note)
    return written


def _earlier_note(path: Path, written: Collection[str]) -> dict[str, Any]:
    """What still holds for a generator that was exported earlier."""
    if "generator" in written or not any(path.parent.glob("generator.*")) or not path.is_file():
        return {}
    note = json.loads(path.read_bytes())
    return {"mask_stride": note["mask_stride"]} if "mask_stride" in note else {}


def text_matrices(model: MaskCLIPpp, words: RequestedWords) -> dict[str, Tensor]:
    """What words are for the graphs, by the names in ``text.npz``.

    - ``text`` float32 [Ka, T, D], every synonym in every template; ``class_of_synonym`` int64 [Ka];
    - ``logit_scale`` float32, by which similarities are multiplied;
    - ``classifier_weight`` float32 [K], of the classifier in the ensemble with the generator;
    - ``generator_text`` float32 [Ka, D'] of an open-vocabulary generator;
    - ``class_of_own_class`` int64 [K' + 1] of a generator with classes of its own, K for none.
    """
    vocabulary, settings = words.vocabulary, model.inference
    scale = torch.ones(()) if model.logit_scale is None else model.logit_scale.detach().exp()
    alpha, beta = settings.ensemble_alpha, settings.ensemble_beta
    weight = (
        torch.where(words.seen, alpha, beta) if settings.ensemble_on else torch.ones(len(words))
    )
    matrices = {
        "text": model.text_classifier.embed_frozen(vocabulary.synonyms),
        "class_of_synonym": vocabulary.class_of_synonym,
        "logit_scale": scale.clamp(max=model.text_encoder.max_scale),
        "classifier_weight": weight.float(),
    }
    generator = model.mask_generator
    if isinstance(generator, FCCLIPSegmentor):
        generator.set_vocabulary(vocabulary)
        if generator.text is not None:
            matrices["generator_text"] = generator.text
    elif own := getattr(generator, "own_classes", None):
        matrices["class_of_own_class"] = words.class_of_own_class(own)
    return matrices


def _listed(words: RequestedWords) -> list[dict[str, Any]]:
    return [
        {"synonyms": names, "is_thing": number in words.thing_classes, "is_seen": bool(seen)}
        for number, (names, seen) in enumerate(
            zip(words.vocabulary.classes, words.seen, strict=True)
        )
    ]


def _image_sizes(image_size: Size | None) -> Any:
    side = torch.export.Dim.DYNAMIC(min=_SMALLEST_SIDE)
    return {2: side, 3: side} if image_size is None else None


def _generator(
    model: MaskCLIPpp, image: Tensor, matrices: Mapping[str, Tensor], image_size: Size | None
) -> _Traced:
    inputs, sizes = {"image": image}, {"image": _image_sizes(image_size)}
    if "generator_text" in matrices:
        inputs["text"] = _some_rows(matrices["generator_text"])
        sizes["text"] = {0: _ANY}
    return _Traced(GeneratorGraph(model.mask_generator), inputs, sizes, ("masks", "logits"))


def _classifier(
    model: MaskCLIPpp, image: Tensor, matrices: Mapping[str, Tensor], image_size: Size | None
) -> _Traced:
    height, width = _TRACED_MASKS[1:]
    stride = torch.tensor([image.shape[2] / height, image.shape[3] / width])
    inputs = {
        "image": image,
        "masks": torch.rand(_TRACED_MASKS),
        "mask_stride": stride,
        "text": _some_rows(matrices["text"]),
    }
    sizes = {
        "image": _image_sizes(image_size),
        "masks": {0: _ANY, 1: _ANY, 2: _ANY},
        "mask_stride": None,
        "text": {0: _ANY},
    }
    return _Traced(ClassifierGraph(model), inputs, sizes, ("mask_embeddings", "logits"))


def _some_rows(matrix: Tensor) -> Tensor:
    """More than one, in which case torch.export would take the number for a constant."""
    return matrix[torch.arange(_TRACED_SYNONYMS) % len(matrix)]


def _write_graph(graph: _Traced, stem: Path, formats: Sequence[str], *, fixed: bool) -> list[Path]:
    written = []
    try:
        with torch.no_grad():
            # What timm keeps of a size (rotary embeddings) must not come from the tracing.
            graph.module.eval()(**graph.inputs)
            program = torch.export.export(
                graph.module, (), graph.inputs, dynamic_shapes=graph.sizes, strict=False
            )
        for kind in formats:
            path = stem.with_suffix(f".{kind}")
            if kind == "pt2":
                with atomic_write(path) as file:
                    torch.export.save(program, file)
            else:
                _write_onnx(program, path, graph.outputs)
            written.append(path)
    except InputError:
        raise
    except RuntimeError as error:
        reason = str(error).strip().partition("\n")[0]
        remedy = "" if fixed else "; give --image-size HEIGHT WIDTH for images of one size"
        raise InputError(f"the {stem.name} cannot be exported: {reason}{remedy}") from error
    return written


def _write_onnx(program: Any, path: Path, outputs: Sequence[str]) -> None:
    for name in ("onnxscript", "onnx_ir"):  # they report each step
        logging.getLogger(name).setLevel(logging.ERROR)
    bytes_of_weights = sum(value.nbytes for value in program.state_dict.values())
    with warnings.catch_warnings():
        # torch copies a class that it calls deprecated itself.
        warnings.filterwarnings("ignore", "`isinstance.treespec", FutureWarning)
        converted = torch.onnx.export(
            program, dynamo=True, output_names=outputs, external_data=False, verbose=False
        )
    assert converted is not None
    # Written by its library, under its own name: a second file is named after the first.
    converted.save(path, external_data=bytes_of_weights > _INLINE_BYTES)
