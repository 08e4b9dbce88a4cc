"""Our training step against the plain one of `benchmarks.speed`: the same losses and gradients from fewer passes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from benchmarks.speed.reference import SIZES, TOKENS, WORDS, PlainProPL, PlainStep
from propl_monai.model.prompts import PromptBank
from propl_monai.model.released import from_released, released_name
from propl_monai.training.methods.propl import ProPLMethod

PIXELS, BATCH = 64, 2
TASKS = ["gland", "nodule"]


class CountedCalls:
    """How often a part of the network ran."""

    def __init__(self, module: nn.Module) -> None:
        self.count = 0
        module.register_forward_hook(self._add)

    def _add(self, *_: object) -> None:
        self.count += 1


class Pair:
    """The plain network and ours, of the same weights and the same prompts."""

    def __init__(self) -> None:
        torch.manual_seed(5)
        self.plain = PlainProPL(SIZES["paper"]).train()
        self.plain.text_encoder.eval()  # its dropout has no counterpart in a bank of prompts
        self.words = torch.randint(WORDS, (len(TASKS), TOKENS))
        self.ours = from_released(self.plain.state_dict()).train()
        with torch.no_grad():
            text = self.plain.text_encoder(self.words)
        seen = torch.ones(len(TASKS), TOKENS, dtype=torch.bool)
        self.ours.attach_prompts(PromptBank(TASKS, TASKS, text, seen, "random", "0" * 64), padding="released")
        # In float64, as a gradient that is a small difference of large terms depends on the processor in float32.
        self.plain.double()
        self.ours.double()
        self.image, self.other = torch.rand(2, BATCH, 1, PIXELS, PIXELS, dtype=torch.float64)
        self.label = (torch.rand(BATCH, 1, PIXELS, PIXELS) > 0.5).double()

    def step_plainly(self, passes: int, power: int) -> dict[str, Tensor]:
        torch.manual_seed(9)  # both draw the masks of the dropped tokens from it, and nothing else
        step = PlainStep(self.plain, passes, power=power)
        grey = (one.expand(-1, 3, -1, -1) for one in (self.image, self.other))
        return step((next(grey), self.words, self.label), (next(grey), self.words))

    def step(self, passes: int, power: int) -> dict[str, Tensor]:
        torch.manual_seed(9)
        method = ProPLMethod(self.ours, passes=passes, perturbation="token", power=power)
        task = torch.arange(BATCH)
        labelled = {"image": self.image, "label": self.label, "task": task}
        return method.step(labelled, {"image": self.other, "task": task}, 0.0)


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    yield Pair()


@pytest.mark.parametrize(("passes", "power"), [(2, 1), (3, 2)])
def test_losses_and_gradients_equal_those_of_the_plain_step(pair: Pair, passes: int, power: int) -> None:
    for network in (pair.plain, pair.ours):
        network.zero_grad()
    plain, ours = pair.step_plainly(passes, power), pair.step(passes, power)
    for name in ("loss", "supervised", "pseudo"):
        assert float(ours[name].detach()) == pytest.approx(float(plain[name].detach()), abs=1e-5), name
    plain["loss"].backward()
    ours["loss"].backward()
    theirs = dict(pair.plain.named_parameters())
    compared = 0
    for name, parameter in pair.ours.named_parameters():
        gradient = theirs[released_name(name)].grad
        if gradient is None or parameter.grad is None:
            assert gradient is None and parameter.grad is None, name
            continue
        limit = 1e-4 * float(gradient.abs().max()) + 1e-7
        assert float((parameter.grad - gradient).abs().max()) <= limit, name
        compared += 1
    assert compared > 300


def test_the_masks_are_shared_and_matter(pair: Pair) -> None:
    """Without them the pseudo-label would be another one, and the equality above would be of nothing."""
    ours = pair.step(2, 1)
    torch.manual_seed(10)
    method = ProPLMethod(pair.ours, passes=2, perturbation="token")
    task = torch.arange(BATCH)
    again = method.step(None, {"image": pair.other, "task": task}, 0.0)
    assert abs(float(again["pseudo"]) - float(ours["pseudo"])) > 1e-7


def test_what_the_plain_step_repeats_is_done_once(pair: Pair) -> None:
    counted = {
        "plain encoder": CountedCalls(pair.plain.encoder),
        "plain text": CountedCalls(pair.plain.text_encoder),
        "encoder": CountedCalls(pair.ours.encoder),
        "sd": CountedCalls(pair.ours.decoder_sd),
        "pd": CountedCalls(pair.ours.decoder_pd),
    }
    pair.step_plainly(3, 1)
    pair.step(3, 1)
    found = {name: one.count for name, one in counted.items()}
    # A pass of the labelled batch, N of the unlabelled one, and one more for pd.
    assert found == {"plain encoder": 5, "plain text": 5, "encoder": 1, "sd": 1 + 3, "pd": 1}
