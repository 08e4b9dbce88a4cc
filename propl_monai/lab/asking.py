"""Does the prompt matter, and does its wording: asking a trained network in other words, or for something else."""

from __future__ import annotations

from importlib import resources

from propl_monai import tasks
from propl_monai.errors import unknown
from propl_monai.network import ProPL
from propl_monai.text import PromptBank

PARAPHRASES = "data/prompt_bank_compact_paraphrased.safetensors"
WAYS = ("paraphrased", "wrong")


def ask(network: ProPL, way: str) -> None:
    """Give a trained network another prompt bank, in place.

    Args:
        network: in prompt mode "text", with the packaged bank's text encoder.
        way: "paraphrased" for sentences that training never saw, "wrong" for the prompt of another task.

    Raises:
        ProPLError: no such way, or the network has no prompt bank.
    """
    if way not in WAYS:
        raise unknown("asked", "way of asking", way, WAYS)
    if way == "paraphrased":
        network.attach_prompts(PromptBank.load(str(resources.files("propl_monai").joinpath(PARAPHRASES))))
        return
    assert network.prompts is not None, "a network from the bundle has its bank"
    bank = network.prompts.bank
    names = bank.task_names
    facts = bank.describe()
    order = [names.index(other_task(name)) for name in names]
    sentences = [facts["sentences"][number] for number in order]
    moved = PromptBank(
        names, sentences, bank.embeddings[order], bank.mask[order], facts["encoder"], facts["encoder_sha256"]
    )
    network.attach_prompts(moved, network.prompts.mode, network.prompts.padding)


def other_task(name: str) -> str:
    """The next task of the same organ, or where the organ has one task only, the next in the list that is alone too."""
    alone = [task for task in tasks.TASKS if sum(other.organ == task.organ for other in tasks.TASKS) == 1]
    own = tasks.find(name)
    circle = [task for task in tasks.TASKS if task.organ == own.organ]
    circle = circle if len(circle) > 1 else alone
    return circle[(circle.index(own) + 1) % len(circle)].name
