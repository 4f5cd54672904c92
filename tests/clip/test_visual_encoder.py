"""What all encoders have in common by config: memory format, compilation, recomputation."""

import shutil

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from maskclippp.clip import VisualEncoder
from tests.tiny_models import random_image, soft, tiny_visual_encoder

# The default backend needs a C++ compiler on CPUs.
BACKENDS = ["aot_eager", *(["inductor"] if shutil.which("g++") else [])]


def encoder(*options: object) -> VisualEncoder:
    torch.manual_seed(0)
    return tiny_visual_encoder(*options)


def embed(made: VisualEncoder) -> Tensor:
    torch.manual_seed(1)
    images = [random_image(64, 96), random_image(80, 50)]
    masks = [torch.rand(3, 64, 96) > 0.5, torch.rand(1, 80, 50) > 0.5]
    embeddings = made(images, soft(masks)).mask_embeddings
    assert embeddings is not None
    return embeddings


def gradients(made: VisualEncoder) -> dict[str, Tensor]:
    embed(made.train()).square().sum().backward()
    return {name: p.grad for name, p in made.named_parameters() if p.grad is not None}


@torch.no_grad()
def test_channels_last_gives_the_same_numbers() -> None:
    made = encoder(".VISUAL_ENCODER.CHANNELS_LAST", True)
    convolution = next(p for p in made.parameters() if p.ndim == 4 and p.shape[1] > 1)
    assert convolution.is_contiguous(memory_format=torch.channels_last)
    assert_close(embed(made.eval()), embed(encoder().eval()))


@pytest.mark.processes
@pytest.mark.parametrize("backend", BACKENDS)
def test_compiled_blocks_give_the_same_numbers_and_gradients(backend: str) -> None:
    made = encoder(".VISUAL_ENCODER.COMPILE", backend)
    plain = encoder()
    assert all(block._compiled_call_impl for block in made.blocks())
    assert list(made.state_dict()) == list(plain.state_dict())
    with torch.no_grad():
        assert_close(embed(made.eval()), embed(plain.eval()))
    expected = gradients(plain)
    for name, gradient in gradients(made).items():
        assert_close(gradient, expected[name], rtol=1e-4, atol=1e-5)


def test_an_unknown_backend_lists_those_there_are() -> None:
    message = r"VISUAL_ENCODER\.COMPILE: 'fast' is not a backend .*'inductor'"
    with pytest.raises(ValueError, match=message):
        encoder(".VISUAL_ENCODER.COMPILE", "fast")


def test_gradient_checkpointing_gives_the_same_gradients() -> None:
    expected = gradients(encoder())
    found = gradients(encoder(".VISUAL_ENCODER.GRADIENT_CHECKPOINTING", True))
    assert list(found) == list(expected)
    for name, gradient in expected.items():
        assert_close(found[name], gradient)


def test_unknown_features_list_the_valid_ones() -> None:
    with pytest.raises(ValueError, match=r"OUT_FEATURES has \['stage5'\]; valid names are .*stag"):
        encoder(".VISUAL_ENCODER.OUT_FEATURES", ["stage5"])


def test_a_frozen_encoder_stays_in_evaluation_mode() -> None:
    """Stochastic depth would change the features that a generator or an alignment builds on."""
    made = encoder(".VISUAL_ENCODER.FINETUNE_TYPE", "none")
    assert not any(module.training for module in made.train().modules())
    assert encoder(".VISUAL_ENCODER.FINETUNE_TYPE", "all").train().proxy.training


@pytest.mark.parametrize(("tuned", "expected"), [("none", (48, 72)), ("all", (32, 48))])
def test_a_frozen_encoder_sees_images_as_in_evaluation(
    tuned: str, expected: tuple[int, int]
) -> None:
    """Also before anybody has called ``train`` or ``eval``."""
    made = encoder(
        *(".VISUAL_ENCODER.FINETUNE_TYPE", tuned, ".VISUAL_ENCODER.RESIZE_TYPE", "short"),
        *(".VISUAL_ENCODER.IMAGE_SIZE", 32, ".VISUAL_ENCODER.TEST_RESIZE_TYPE", "short"),
        *(".VISUAL_ENCODER.TEST_IMAGE_SIZE", 48),
    )
    assert made([random_image(64, 96)]).batch.image_sizes == [expected]
    assert made.eval()([random_image(64, 96)]).batch.image_sizes == [(48, 72)]
