"""Does the prompt matter, and does its wording: asking a trained network in other words, or for something else."""

from __future__ import annotations

from importlib import resources

from propl_monai import tasks
from propl_monai.errors import ProPLError, unknown
from propl_monai.model.network import ProPL
from propl_monai.model.prompts import PromptBank

PARAPHRASES = "prompt_bank_compact_paraphrased.safetensors"
WAYS = ("paraphrased", "wrong")


def ask(network: ProPL, way: str) -> None:
    """Give a trained network another prompt bank, in place.

    Args:
        network: in prompt mode "text", with the packaged bank's text encoder.
        way: "paraphrased" for sentences that training never saw, "wrong" for the prompt of another task.
    """
    if way not in WAYS:
        raise unknown("asked", "way of asking", way, WAYS)
    prompts = network.prompts
    if prompts is None:
        raise ProPLError("asked", "the network has no prompt bank", "attach one, or open weights that hold one")
    paraphrases = str(resources.files("propl_monai.model").joinpath(PARAPHRASES))
    bank = PromptBank.load(paraphrases) if way == "paraphrased" else _of_other_tasks(prompts.bank)
    network.attach_prompts(bank, prompts.mode, prompts.padding)


def _of_other_tasks(bank: PromptBank) -> PromptBank:
    """The bank with the sentence of each task under the name of another."""
    names, facts = bank.task_names, bank.describe()
    order = [names.index(other_task(name)) for name in names]
    sentences = [facts["sentences"][number] for number in order]
    return PromptBank(
        names, sentences, bank.embeddings[order], bank.mask[order], facts["encoder"], facts["encoder_sha256"]
    )


def other_task(name: str) -> str:
    """The next task of the same organ, or where the organ has one task only, the next in the list that is alone too."""
    alone = [task for task in tasks.TASKS if sum(other.organ == task.organ for other in tasks.TASKS) == 1]
    own = tasks.find(name)
    circle = [task for task in tasks.TASKS if task.organ == own.organ]
    circle = circle if len(circle) > 1 else alone
    return circle[(circle.index(own) + 1) % len(circle)].name
