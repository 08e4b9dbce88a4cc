"""The work that is timed, on random pictures: a training step or a prediction, by the plain reference or this package."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.speed.reference import SIZES, TOKENS, WORDS, PlainProPL, PlainStep, Size
from propl_monai.errors import ProPLError, unknown
from propl_monai.inference.inferer import PromptInferer
from propl_monai.model.decoder import BLOCKS
from propl_monai.model.network import ProPL
from propl_monai.model.prompts import PromptBank
from propl_monai.tasks import NAMES
from propl_monai.training.methods import METHODS

SIDES = ("reference", "propl")
KINDS = ("training", "prediction")
PRECISIONS = ("fp32", "bf16")
Call = Callable[[], Tensor]


@dataclass(frozen=True)
class Work:
    """One piece of work.

    Attributes:
        side: "reference", the released way (`benchmarks.speed.reference`), or "propl", this package.
        kind: "training", a step of labelled and unlabelled pictures with backward and SGD; or "prediction".
        preset: "paper" (ConvNeXt-Tiny, BERT-base) or "compact" (EfficientNet-Lite0, MiniLM).
        batch: pictures, in a training step of each stream.
        passes: N of UPLC, for training.
        tasks: predicted on each picture, for prediction.
        pixels: of a side of the picture, a multiple of 32.
        precision: "fp32" or "bf16" (autocast).
        decoder_block: of this package's decoders, see `network.ProPL`.
        device: of torch.
        threads: of the CPU.
    """

    side: str
    kind: str = "training"
    preset: str = "paper"
    batch: int = 4
    passes: int = 2
    tasks: int = 1
    pixels: int = 224
    precision: str = "fp32"
    decoder_block: str = "unetr"
    device: str = "cpu"
    threads: int = 2

    def __post_init__(self) -> None:
        for what, value, known in (
            ("side", self.side, SIDES),
            ("kind", self.kind, KINDS),
            ("preset", self.preset, tuple(SIZES)),
            ("precision", self.precision, PRECISIONS),
            ("decoder_block", self.decoder_block, BLOCKS),
        ):
            if value not in known:
                raise unknown(what, what, value, known)
        for name in ("batch", "passes", "tasks", "pixels", "threads"):
            if getattr(self, name) < 1:
                raise ProPLError(name, f"is {getattr(self, name)}", "give 1 or more")
        if self.pixels % 32:
            raise ProPLError(
                "pixels", f"{self.pixels} is no multiple of 32", "give one, as the reference needs it: 160, 224"
            )
        if self.tasks > len(NAMES):
            raise ProPLError("tasks", f"{self.tasks} are more than there are", f"give 1 to {len(NAMES)}")

    def text(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self))


def build(work: Work) -> Call:
    """The work as a function without arguments; one call is one training step or one prediction of the batch."""
    torch.manual_seed(0)
    image = torch.rand(2, work.batch, 1, work.pixels, work.pixels, device=work.device)
    label = (torch.rand_like(image[0]) > 0.5).float()
    make = {"training": _training, "prediction": _prediction}[work.kind]
    call = make(work, image[0], label, image[1])

    def autocast() -> Tensor:
        with torch.autocast(work.device.partition(":")[0], torch.bfloat16, enabled=work.precision == "bf16"):
            return call()

    return autocast


def network_of(preset: str, decoder_block: str = "unetr") -> ProPL:
    """Our network in the size of the reference of that preset, with a random prompt bank of the eight tasks."""
    size: Size = SIZES[preset]
    network = ProPL(size.encoder, prompts=False, text_shape=(TOKENS, size.text_width), decoder_block=decoder_block)
    seen = torch.ones(len(NAMES), TOKENS, dtype=torch.bool)
    text = torch.randn(len(NAMES), TOKENS, size.text_width)
    network.attach_prompts(PromptBank(list(NAMES), list(NAMES), text, seen, "made up", "0" * 64), padding="released")
    return network


def _training(work: Work, labelled: Tensor, label: Tensor, unlabelled: Tensor) -> Call:
    if work.side == "reference":
        plain = PlainProPL(SIZES[work.preset]).to(work.device).train()
        step = PlainStep(plain, work.passes)
        words = _words(work.batch, work.device)
        batches = (_colour(labelled), words, label), (_colour(unlabelled), words)
        return _descending(plain, lambda: step(*batches)["loss"])
    network = _ours(work).train()
    make: Any = METHODS["propl"]  # methods differ in their options
    method = make(network, passes=work.passes, perturbation="token")
    task = torch.arange(work.batch, device=work.device) % len(NAMES)
    given = {"image": labelled, "label": label, "task": task}, {"image": unlabelled, "task": task}
    return _descending(network, lambda: method.step(*given, progress=0.0)["loss"])


def _descending(network: nn.Module, loss: Call) -> Call:
    parameters = [one for one in network.parameters() if one.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=1e-3, momentum=0.9, weight_decay=1e-5)

    def step() -> Tensor:
        optimizer.zero_grad()
        value = loss()
        # Outside autocast, as torch recommends.
        with torch.autocast(value.device.type, enabled=False):
            value.backward()
            optimizer.step()
        return value.detach()

    return step


def _prediction(work: Work, image: Tensor, _label: Tensor, _other: Tensor) -> Call:
    if work.side == "reference":
        plain = PlainProPL(SIZES[work.preset]).to(work.device).eval()
        words, colour = _words(work.batch, work.device), _colour(image)

        def predict() -> Tensor:  # a whole forward pass per task
            return torch.stack([plain(colour, words)["pd"] for _ in range(work.tasks)])

        return torch.inference_mode()(predict)
    network = _ours(work).eval()
    network.keep_decoder("pd")
    inferer = PromptInferer(list(NAMES[: work.tasks]), "pd")
    return torch.inference_mode()(lambda: inferer(image, network))


def _ours(work: Work) -> ProPL:
    return network_of(work.preset, work.decoder_block).to(work.device).to(memory_format=torch.channels_last)


def _words(batch: int, device: str) -> Tensor:
    return torch.randint(WORDS, (batch, TOKENS), device=device)


def _colour(grey: Tensor) -> Tensor:
    return grey.repeat(1, 3, 1, 1)
