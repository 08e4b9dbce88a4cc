"""Asking in other words changes the words alone: prompt mode and padding stay those of the network."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from propl_monai import tasks
from propl_monai.errors import ProPLError
from propl_monai.model.prompt_controls import WAYS, ask, other_task
from propl_monai.model.prompts import PromptBank


@pytest.mark.parametrize("way", WAYS)
def test_mode_and_padding_are_kept(network: Any, way: str) -> None:
    asked = copy.deepcopy(network)
    asked.attach_prompts(PromptBank.load(), "text", "released")
    before = asked.prompts.table()
    ask(asked, way)
    assert (asked.prompts.mode, asked.prompts.padding) == ("text", "released")
    assert not torch.equal(asked.prompts.table(), before)


def test_wrong_gives_each_task_the_sentence_of_another(network: Any) -> None:
    asked = copy.deepcopy(network)
    before = asked.prompts.table()
    ask(asked, "wrong")
    for number, name in enumerate(tasks.NAMES):
        assert other_task(name) != name
        assert torch.equal(asked.prompts.table()[number], before[tasks.NAMES.index(other_task(name))])


def test_what_cannot_be_asked(network: Any) -> None:
    asked = copy.deepcopy(network)
    with pytest.raises(ProPLError, match="unknown control 'wrongly'; did you mean 'wrong'"):
        ask(asked, "wrongly")
    asked.prompts = None
    with pytest.raises(ProPLError, match="the network has no prompt bank"):
        ask(asked, "wrong")
