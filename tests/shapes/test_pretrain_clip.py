"""Pre-training of the built-in CLIP: its batches, what it prints, its file, and resuming."""

import logging
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from detectron2.config import CfgNode
from safetensors.torch import load_file

from maskclippp.clip.open_clip_models import load_text_tower, load_visual_tower
from maskclippp.data.shapes.vocabulary import CLASSES
from shapes import pretrain_clip as tool


def arguments(output: Path, steps: int) -> list[str]:
    sizes = ["--batch-size", "6", "--pool", "60", "--fresh", "2"]
    return ["--output", str(output), "--steps", str(steps), *sizes, "--test-period", "2"]


def test_the_pictures_of_a_hard_batch_share_a_word() -> None:
    options = tool.parse_arguments(arguments(Path("unused"), 1))
    pool = tool.Pool(options, step=0)
    for batch, kind in enumerate(tool.SHARED):
        scenes, _ = pool.choose(batch, 6)
        words = {tool.word_of(scene.segments[-1].category, kind) for scene in scenes if kind}
        assert len(words) == (1 if kind else 0)
        assert None not in words


def test_a_resumed_run_sees_the_same_pictures() -> None:
    options = tool.parse_arguments(arguments(Path("unused"), 8))
    pool, resumed = (tool.Pool(options, step=step) for step in (0, 5))
    for batch in range(8):
        scenes, _ = pool.choose(batch, 6)
        if batch >= 5:
            again, _ = resumed.choose(batch, 6)
            assert all(np.array_equal(a.image, b.image) for a, b in zip(scenes, again, strict=True))


def test_margins_are_of_classes_that_differ_in_one_word() -> None:
    vectors = torch.nn.functional.one_hot(torch.arange(len(CLASSES)), len(CLASSES)).float()
    expected = {"color": 6 * 15, "form": 6 * 15, "tint": 4 * 3, "pattern": 3 * 6}
    for kind, pairs in expected.items():
        margins = tool.word_margins(vectors, kind, logit_scale=10.0)
        assert margins.tolist() == [10.0] * pairs


def test_a_run_goes_on_and_writes_what_the_package_reads(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    output = tmp_path / "clip.safetensors"
    tool.train(tool.parse_arguments(arguments(output, 2)))
    tool.train(tool.parse_arguments(arguments(output, 3)))
    assert "going on from step 2" in caplog.text
    assert "pattern" in caplog.text
    node = CfgNode({"MODEL_NAME": tool.MODEL_NAME, "PRETRAINED": str(output), "LOAD_FROM": ""})
    state = load_file(output)
    assert load_visual_tower(node).trunk.stem[0].weight.shape == (32, 3, 4, 4)
    tower, logit_scale = load_text_tower(node)
    assert torch.equal(logit_scale, state["logit_scale"].float())
    tokens = open_clip.get_tokenizer(tool.MODEL_NAME)(["a photo of a red dotted circle."])
    rows = tower.token_embedding.weight[tokens[0][tokens[0] != 0]]
    assert (rows.norm(dim=1) > 0).all()
