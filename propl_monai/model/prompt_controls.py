"""Controls for the prompt: a trained network gets paraphrased prompts, or those of other tasks."""

from __future__ import annotations

from importlib import resources

from propl_monai import tasks
from propl_monai.errors import ProPLError, unknown
from propl_monai.model.networks.base import Segmenter, no_text
from propl_monai.model.networks.prompted import PromptedSegmenter
from propl_monai.model.prompts import PromptBank

PARAPHRASES = "prompt_bank_compact_paraphrased.safetensors"
WAYS = ("paraphrased", "wrong")


def ask(network: Segmenter, way: str) -> None:
    """Give a trained network another prompt bank, in place.

    Args:
        network: in prompt mode "text", with the packaged bank's text encoder.
        way: "paraphrased" for sentences that training never saw, "wrong" for the prompt of another task.
    """
    if way not in WAYS:
        raise unknown("prompt control", "control", way, WAYS)
    if not isinstance(network, PromptedSegmenter):
        raise no_text(network.name)
    prompts = network.prompts
    if prompts is None:
        raise ProPLError(
            "prompt control", "the network has no prompt bank", "attach one, or open weights that hold one"
        )
    if way == "paraphrased":
        bank = PromptBank.load(str(resources.files("propl_monai.model").joinpath(PARAPHRASES)))
    else:
        old, facts = prompts.bank, prompts.bank.describe()
        order = [old.task_names.index(other_task(name)) for name in old.task_names]
        sentences = [facts["sentences"][number] for number in order]
        encoder = (facts["encoder"], facts["encoder_sha256"])
        bank = PromptBank(old.task_names, sentences, old.embeddings[order], old.mask[order], *encoder)
    network.attach_prompts(bank, prompts.mode, prompts.padding)


def other_task(name: str) -> str:
    """The next task of the same organ, or where the organ has one task only, the next in the list that is alone too."""
    alone = [task for task in tasks.TASKS if sum(other.organ == task.organ for other in tasks.TASKS) == 1]
    own = tasks.find(name)
    circle = [task for task in tasks.TASKS if task.organ == own.organ]
    circle = circle if len(circle) > 1 else alone
    return circle[(circle.index(own) + 1) % len(circle)].name
