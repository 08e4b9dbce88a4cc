"""Weights and resume state on disk: whole or not at all, checked before they are used, never unpickled."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

import propl_monai
from propl_monai import tasks
from propl_monai.common.files import write_atomically
from propl_monai.common.packaged_bundle import KNOWN
from propl_monai.errors import ProPLError, first_line
from propl_monai.model.encoder import VisionEncoder, load_pretrained
from propl_monai.model.networks.base import Segmenter
from propl_monai.model.networks.prompted import PromptedSegmenter
from propl_monai.model.networks.registry import network_class
from propl_monai.model.prompts import PromptBank, Prompts
from propl_monai.model.tensor_file import (
    ADDED_TASKS,
    OF_EARLIER_FILES,
    WEIGHTS,
    read_header,
    read_tensors,
    write_tensors,
)

FLAT_WEIGHTS = "model.pt"  # the name that MONAI's tools expect
STATE = "checkpoint_last.pt"


def architecture(network: Segmenter) -> dict[str, Any]:
    """What a state dict must match: the name of the network in the registry, and its options."""
    return {"network": network.name, **network.options}


def save_weights(network: Segmenter, folder: Path | str, about: Mapping[str, Any]) -> None:
    """Write `model.safetensors`, whose header describes it, and `model.pt`, the same tensors as a flat state dict.

    Args:
        network: on any device.
        folder: made if missing.
        about: further header entries, such as preset, normalisation, spatial_size and the validation score.
    """
    folder = Path(folder)
    save_safetensors(network, folder / WEIGHTS, about)
    write_atomically(folder / FLAT_WEIGHTS, _torch_bytes(_plain_state(network)))


def save_safetensors(network: Segmenter, path: Path | str, about: Mapping[str, Any], half: bool = False) -> None:
    """Write one safetensors file; of a network with one decoder, its header says which: it can predict, not be trained.

    Args:
        network: on any device.
        path: of the file; its folder is made if missing.
        about: further header entries, see `save_weights`.
        half: kernels and matrices in float16; the rest, which is small and sensitive, as it is. Read back as float32.
    """
    header = {
        "version": propl_monai.__version__,
        "architecture": architecture(network),
        "prompt_bank_sha256": network.prompt_bank_sha256,
        "decoder": network.chosen_decoder,
        **about,
    }
    added = [task for task in tasks.known() if tasks.is_added(task.name) and task.name in network.task_names]
    if added:
        header[ADDED_TASKS] = [tasks.facts(task) for task in added]
    state = _plain_state(network)
    if half:  # a prompt bank is known by its hash, so it keeps its bits
        kept = {name for name, value in state.items() if value.ndim < 2 or name.startswith("prompts.")}
        state = {name: value if name in kept else value.half() for name, value in state.items()}
    write_tensors(path, state, header)


def _plain_state(network: Segmenter) -> dict[str, Tensor]:
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


def _class_of(path: Path | str, found: Mapping[str, Any]) -> type[Segmenter]:
    """The class of the network that an architecture names, after a check that it holds all options of it."""
    made = network_class(found["network"], str(path))
    if lacking := made.required - found.keys():
        fact = f"has a header that does not say what network it holds: it lacks {', '.join(sorted(lacking))}"
        raise ProPLError(path, fact, "train or download it again")
    return made


def _held(found: Mapping[str, Any]) -> list[str]:
    """The decoders that an architecture names; where it names none, the file holds all that the network has."""
    return found.get("decoders", list(network_class(found["network"]).decoders))


def load_weights(network: Segmenter, path: Path | str, expected: Mapping[str, Any] | None = None) -> dict[str, Any]:
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
        _class_of(path, header["architecture"])
        _require_network(path, header["architecture"], network)
        _compare(path, {**header["architecture"], **header}, {**architecture(network), **(expected or {})})
        # Copied: rounding depends on how memory is aligned, and tensors in a file lie where its header ends.
        state = {name: value.clone() for name, value in load_file(str(path)).items()}
    else:
        state = _torch_load(path)
    own, assign = network.state_dict(), next(network.parameters()).is_meta
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


def start_from(network: Segmenter, source: str | None) -> None:
    """What a training starts from: pretrained weights of the encoder, or all weights of an earlier training.

    Args:
        network: changed in place.
        source: a file of this package, `….safetensors`, with the encoder, decoders and prompts of this network, or of one
            that it is `related` to; or see `encoder.load_pretrained`.
    """
    if str(source).endswith(".safetensors"):
        if read_header(str(source))["architecture"]["network"] in network.related:
            network.take(load_network(str(source))[0])
        else:
            load_weights(network, str(source))
    elif isinstance(encoder := getattr(network, "encoder", None), VisionEncoder):
        load_pretrained(encoder, source)
    elif source not in (None, "none"):
        raise ProPLError(
            "encoder_weights", f"network '{network.name}' has no encoder that takes them", "set it to none"
        )


def load_network(path: Path | str) -> tuple[Segmenter, dict[str, Any]]:
    """The network that a safetensors file describes, with its weights, in eval mode, and the header. Runs no config.

    It has the decoders that the file holds: both, or the one that it was exported with (`save_safetensors`).
    """
    header = read_header(path)
    wanted = header["architecture"]
    made = _class_of(path, wanted)
    with torch.device("meta"):  # allocates no weights and draws no random numbers: the file brings them
        network = made.rebuilt(wanted)
    if {name for name, _ in network.named_buffers()} - network.state_dict().keys():
        network = made.rebuilt(wanted)  # its encoder has constants that no file holds, as TinyViT
    if isinstance(network, PromptedSegmenter) and wanted["tasks"]:
        # Not the packaged bank: the weights bring their own, which may hold other tasks.
        bank = _bank_of(path, network.text_shape)
        network.prompts = Prompts(bank, wanted["prompt_mode"], wanted["prompt_padding"])
    load_weights(network, path)
    return network.eval(), header


def described_network(
    weights: Path | str, prompts: str | bool | None = None, default_task: str | None = None, **settings: Any
) -> Segmenter:
    """The network that the header of weights describes, before they are loaded: `network_def` of evaluation and inference.

    Args:
        weights: see `from_header`; where there is no such file, the network is ProPL.
        prompts: file of a prompt bank, None for the packaged one.
        default_task: see `Segmenter`.
        settings: encoder, prompt_mode, prompt_padding and decoder_block, which stand for those of the header.
    """
    path = Path(weights).with_suffix(".safetensors")
    header = read_header(path) if path.is_file() else {"architecture": OF_EARLIER_FILES}
    found = header["architecture"]
    network = network_class(found["network"]).configured({**found, **settings}, prompts, default_task)
    if prompts is None and ADDED_TASKS in header and isinstance(network, PromptedSegmenter):
        # No file of the package has the sentences that a user added; the weights do.
        options = network.options
        network.attach_prompts(_bank_of(path, network.text_shape), options["prompt_mode"], options["prompt_padding"])
    return network


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


def _require_network(path: Path, found: Mapping[str, Any], network: Segmenter) -> None:
    if found["network"] != network.name:
        fact = f"holds network '{found['network']}', where '{network.name}' is wanted"
        raise ProPLError(path, fact, f"use the config of {found['network']}, or weights of {network.name}")
    held = _held(found)
    if held != list(network.decoders):
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
        if found.get("text_shape") != wanted.get("text_shape"):
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
