"""Weights and resume state on disk: whole or not at all, checked before they are used, never unpickled."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

import propl_monai
from propl_monai.common.files import write_atomically
from propl_monai.common.packaged_bundle import KNOWN
from propl_monai.errors import ProPLError, first_line
from propl_monai.model.decoder import BLOCKS
from propl_monai.model.encoder import load_pretrained
from propl_monai.model.network import BOTH, ProPL
from propl_monai.model.prompts import PromptBank, Prompts
from propl_monai.model.tensor_file import read_tensors, write_tensors

WEIGHTS = "model.safetensors"
FLAT_WEIGHTS = "model.pt"  # the name that MONAI's tools expect
STATE = "checkpoint_last.pt"
ARCHITECTURE_KEYS = {"encoder", "prompt_mode", "prompt_padding", "text_shape", "tasks"}
LARGEST_TEXT = 4096  # tokens of a prompt, and their width


def architecture(network: ProPL) -> dict[str, Any]:
    """What a state dict must match: encoder, decoder block, prompt mode and padding, (L, E), and the tasks of the bank."""
    prompts = network.prompts
    return {
        "encoder": network.encoder.name,
        "decoder_block": network.decoder_block,
        "prompt_mode": prompts.mode if prompts else None,
        "prompt_padding": prompts.padding if prompts else None,
        "text_shape": list(network.text_shape),
        "tasks": prompts.bank.task_names if prompts else [],
    }


def save_weights(network: ProPL, folder: Path | str, about: Mapping[str, Any]) -> None:
    """Write `model.safetensors`, whose header describes it, and `model.pt`, the same tensors as a flat state dict.

    Args:
        network: on any device.
        folder: made if missing.
        about: further header entries, such as preset, normalisation, spatial_size and the validation score.
    """
    folder = Path(folder)
    save_safetensors(network, folder / WEIGHTS, about)
    write_atomically(folder / FLAT_WEIGHTS, _torch_bytes(_plain_state(network)))


def save_safetensors(network: ProPL, path: Path | str, about: Mapping[str, Any], half: bool = False) -> None:
    """Write one safetensors file; of a network with one decoder, its header says which: it can predict, not be trained.

    Args:
        network: on any device.
        path: of the file; its folder is made if missing.
        about: further header entries, see `save_weights`.
        half: kernels and matrices in float16; the rest, which is small and sensitive, as it is. Read back as float32.
    """
    held = {"decoders": list(network.decoders)} if network.decoders != BOTH else {}
    header = {
        "version": propl_monai.__version__,
        "architecture": {**architecture(network), **held},
        "prompt_bank_sha256": network.prompts.bank.sha256 if network.prompts else None,
        "decoder": network.chosen_decoder,
        **about,
    }
    state = _plain_state(network)
    if half:  # a prompt bank is known by its hash, so it keeps its bits
        kept = {name for name, value in state.items() if value.ndim < 2 or name.startswith("prompts.")}
        state = {name: value if name in kept else value.half() for name, value in state.items()}
    write_tensors(path, state, header)


def _plain_state(network: ProPL) -> dict[str, Tensor]:
    return {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}


def copy_aside(folder: Path) -> list[Path]:
    """Copy the weights of a folder into the next number below its `previous`; the copies, none without weights.

    Scores that were fitted to them are moved there: beside other weights they would be refused.
    """
    previous = folder / "previous"
    taken = [int(each.name) for each in previous.glob("*") if each.name.isdecimal()]
    aside = previous / str(1 + max(taken, default=0))
    found = [folder / name for name in (WEIGHTS, FLAT_WEIGHTS) if (folder / name).exists()]
    if found:
        aside.mkdir(parents=True)
        if (folder / KNOWN).exists():
            shutil.move(folder / KNOWN, aside / KNOWN)
    return [Path(shutil.copy2(path, aside / path.name)) for path in found]


def read_header(path: Path | str) -> dict[str, Any]:
    """The header of a safetensors weights file."""
    try:
        header, _ = read_tensors(path)
    except (OSError, SafetensorError) as error:
        raise ProPLError(
            path, f"is no readable safetensors file ({error})", "train first, or download it again"
        ) from error
    except (KeyError, ValueError, RecursionError) as error:
        raise ProPLError(path, "was not written by propl_monai", "give the model.safetensors of a training") from error
    if not isinstance(header, dict) or not _is_architecture(header.get("architecture")):
        raise ProPLError(path, "has a header that does not say what network it holds", "train or download it again")
    header["architecture"].setdefault("decoder_block", BLOCKS[0])  # files from before there was a choice
    return header


def from_header(path: Path | str, key: str, default: Any) -> Any:
    """An entry of the header of weights or of its architecture, such as "encoder" or "spatial_size".

    Args:
        path: of the weights; for a `.pt`, which has no header, the `.safetensors` file beside it counts.
        key: of the entry.
        default: the answer where there is no such file, or no such entry.
    """
    path = Path(path).with_suffix(".safetensors")
    header = read_header(path) if path.is_file() else {"architecture": {}}
    return {**header["architecture"], **header}.get(key, default)


def _is_architecture(found: Any) -> bool:
    """Whether a header's entry may be built from, before anything is allocated for it."""
    if not isinstance(found, dict) or not ARCHITECTURE_KEYS <= found.keys():
        return False
    shape, tasks = found["text_shape"], found["tasks"]
    sizes = isinstance(shape, list) and len(shape) == 2 and all(type(n) is int and 0 < n <= LARGEST_TEXT for n in shape)
    names = isinstance(tasks, list) and all(isinstance(name, str) for name in tasks)
    decoders = _held(found) in ([*BOTH], *([name] for name in BOTH))
    block = found.get("decoder_block", BLOCKS[0]) in BLOCKS
    return sizes and names and decoders and block and isinstance(found["encoder"], str)


def _held(found: Mapping[str, Any]) -> list[str]:
    """The decoders that an architecture names; where it names none, the file holds both."""
    return found.get("decoders", [*BOTH])


def load_weights(network: ProPL, path: Path | str, expected: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Fill the network from a safetensors file or a flat `.pt`; whatever does not fit is refused.

    Args:
        network: changed in place; one on the meta device takes the tensors of the file as its own.
        path: of the weights.
        expected: header entries that must be equal, such as the spatial_size and normalisation of the preprocessing.

    Returns:
        The header; empty for a `.pt`, which has none.
    """
    path = Path(path)
    header: dict[str, Any] = {}
    if path.suffix == ".safetensors":
        header = read_header(path)
        _require_decoders(path, _held(header["architecture"]), network)
        _compare(path, {**header["architecture"], **header}, {**architecture(network), **(expected or {})})
        # Copied: rounding depends on how memory is aligned, and tensors in a file lie where its header ends.
        state = {name: value.clone() for name, value in load_file(str(path)).items()}
    else:
        state = _torch_load(path)
    own, assign = network.state_dict(), network.get_buffer("predictor").is_meta
    # Copies: tensors of a file begin anywhere in memory, and rounding depends on how they are aligned.
    state = {key: value.to(own[key].dtype, copy=assign) if key in own else value for key, value in state.items()}
    try:
        network.load_state_dict(state, assign=assign)
    except RuntimeError as error:
        lines = str(error).splitlines()[1:]
        fact = (
            f"does not fit the network in {len(lines)} tensors or groups of them: {'; '.join(lines[:3]).strip()[:400]}"
        )
        cure = "give the model.safetensors of that training, whose header describes the network"
        raise ProPLError(path, fact, cure) from error
    return header


def start_from(network: ProPL, source: str | None) -> None:
    """What a training starts from: pretrained weights of the encoder, or all weights of an earlier training.

    Args:
        network: changed in place.
        source: a file of this package, `….safetensors`, with the encoder, decoders and prompts of this network; or see
            `encoder.load_pretrained`.
    """
    if str(source).endswith(".safetensors"):
        load_weights(network, str(source))
    else:
        load_pretrained(network.encoder, source)


def load_network(path: Path | str) -> tuple[ProPL, dict[str, Any]]:
    """The network that a safetensors file describes, with its weights, in eval mode, and the header. Runs no config.

    It has the decoders that the file holds: both, or the one that it was exported with (`save_safetensors`).
    """
    header = read_header(path)
    wanted = header["architecture"]
    with torch.device("meta"):  # allocates no weights and draws no random numbers: the file brings them
        network = _without_prompts(wanted)
    if {name for name, _ in network.named_buffers()} - network.state_dict().keys():
        network = _without_prompts(wanted)  # its encoder has constants that no file holds, as TinyViT
    if wanted["tasks"]:
        # Not the packaged bank: the weights bring their own, which may hold other tasks.
        bank = _bank_of(path, network.text_shape)
        network.prompts = Prompts(bank, wanted["prompt_mode"], wanted["prompt_padding"])
    load_weights(network, path)
    return network.eval(), header


def _without_prompts(wanted: Mapping[str, Any]) -> ProPL:
    parts = {"decoder_block": wanted["decoder_block"], "decoders": _held(wanted)}
    return ProPL(wanted["encoder"], prompts=False, text_shape=tuple(wanted["text_shape"]), **parts)


def _bank_of(path: Path | str, shape: tuple[int, ...]) -> PromptBank:
    try:
        _, (header, embeddings, mask) = read_tensors(
            path, *(f"prompts.bank.{n}" for n in ("header", "embeddings", "mask"))
        )
        about = json.loads(bytes(header.tolist()).decode())
        names, sentences = about["tasks"], about["sentences"]
        if embeddings.shape != (len(names), *shape) or mask.shape != embeddings.shape[:2]:
            raise ValueError("its tasks, embeddings and mask do not fit each other, or the decoders")
        return PromptBank(names, sentences, embeddings, mask, about["encoder"], about["encoder_sha256"])
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ProPLError(
            path, f"holds no sound prompt bank ({first_line(error)})", "train or download it again"
        ) from error


def _require_decoders(path: Path, held: Sequence[str], network: ProPL) -> None:
    if list(held) != list(network.decoders):
        fact = f"holds decoder {' and '.join(held)}, where {' and '.join(network.decoders)} is wanted"
        cure = "give the full weights, the model.safetensors of the training; a file with one decoder only predicts"
        raise ProPLError(path, fact, cure)


def _compare(path: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    wanted = json.loads(json.dumps(wanted))  # the header is JSON: (160, 160) is [160, 160] there
    differing = [
        f"{key} {found.get(key)!r} there, {wanted[key]!r} here" for key in wanted if found.get(key) != wanted[key]
    ]
    if differing:
        cure = "use the configs that these weights were trained with, or none: evaluation and inference read the header"
        if found.get("text_shape") != wanted["text_shape"]:
            cure += ", and --prompts the bank of that training"
        raise ProPLError(path, "holds another network: " + "; ".join(differing), cure)


def save_state(path: Path | str, state: Mapping[str, Any]) -> None:
    """Write a resume state: state dicts, and plain numbers and strings."""
    write_atomically(Path(path), _torch_bytes(dict(state)))


def load_state(path: Path | str) -> dict[str, Any]:
    """Read a resume state."""
    return _torch_load(Path(path))


def _torch_bytes(state: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def _torch_load(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ProPLError(path, "does not exist", "train first, or name the weights file of a training")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # zip, pickle and runtime errors, by what is wrong with the file
        raise ProPLError(path, f"cannot be read ({first_line(error)})", "train again or download it again") from error
    if not isinstance(state, dict):
        raise ProPLError(path, "holds no state dict", "give a file that a training has written")
    return state
