"""DoDNet: tasks that are fixed, and what it refuses."""

from __future__ import annotations

import pytest
import torch
from factories import TINY_ENCODER

from propl_monai.errors import ProPLError
from propl_monai.model.networks.dodnet import DoDNet
from propl_monai.model.prompt_controls import ask

TWO = ("left atrium", "fetal head")


@pytest.fixture(scope="module")
def two() -> DoDNet:
    torch.manual_seed(0)
    return DoDNet(TINY_ENCODER, TWO).eval()


def test_a_task_that_its_head_does_not_know_is_refused_by_name(two: DoDNet) -> None:
    image = torch.rand(1, 1, 32, 32)
    with pytest.raises(ProPLError, match="network 'dodnet': unknown task 'thyroid nodule'"):
        two(image, task="TN")
    assert torch.equal(two(image, task="LA"), two(image, task=torch.tensor([0])))


def test_it_reads_no_sentences(two: DoDNet) -> None:
    for refused in (
        lambda: two(torch.rand(1, 1, 32, 32), text=torch.rand(1, 24, 384)),
        lambda: DoDNet(TINY_ENCODER, TWO, prompts="bank.safetensors"),
        lambda: DoDNet.configured(two.options, "bank.safetensors", None),
        lambda: ask(two, "paraphrased"),
    ):
        with pytest.raises(ProPLError, match="network 'dodnet': reads no sentences"):
            refused()


def test_the_task_changes_the_head_and_nothing_before_it(two: DoDNet) -> None:
    image = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        features = two.features(image)
        each = [two.logits(features, task) for task in TWO]
        controller = two.decoder.controller
        controller.weight[:, -len(TWO) :].zero_()
        same = [two.logits(features, task) for task in TWO]
    assert not torch.equal(*each) and torch.equal(*same)
