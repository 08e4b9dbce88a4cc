"""The CLIP-driven universal model: the sentence acts in the head alone."""

from __future__ import annotations

import torch
from factories import TINY_ENCODER

from propl_monai.model.networks.clip_universal import ClipUniversal

IMAGE = torch.rand(2, 1, 64, 64)


def test_a_sentence_instead_of_a_task() -> None:
    torch.manual_seed(0)
    network = ClipUniversal(TINY_ENCODER).eval()
    with torch.no_grad():
        by_task = network(IMAGE, task=["left atrium", "fetal head"])
        text = network.text(["left atrium", "fetal head"], 2)
        assert torch.equal(network(IMAGE, text=text), by_task)
        assert not torch.equal(network(IMAGE, text=text.flip(0)), by_task)


def test_without_a_prompt_it_cannot_tell_tasks_apart() -> None:
    """The control: the heart's targets share their images, and only the prompt says which one is meant."""
    network = ClipUniversal(TINY_ENCODER, prompt_mode="none").eval()
    with torch.no_grad():
        assert torch.equal(network(IMAGE, task="left atrium"), network(IMAGE, task="myocardium"))


def test_only_the_head_of_the_image_s_task_learns() -> None:
    """Of the learned sentences, those of other tasks get no gradient: nothing says what is in the image beside it."""
    network = ClipUniversal(TINY_ENCODER, prompt_mode="learned")
    network(IMAGE, task=["left atrium", "fetal head"]).mean().backward()
    assert network.prompts is not None and network.prompts.learned.grad is not None
    touched = network.prompts.learned.grad.flatten(1).any(1).tolist()
    assert [network.task_names[number] for number, found in enumerate(touched) if found] == [
        "fetal head",
        "left atrium",
    ]
