"""One file to hand on: TorchScript or ONNX, which need no package of ours, or weights with one decoder, which do."""

from __future__ import annotations

import copy
import json
import logging
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from propl_monai.common.files import file_sha256, write_atomically
from propl_monai.common.run_record import versions
from propl_monai.data.transforms import NORMALISATIONS
from propl_monai.deploy.exportable import ExportableNetwork
from propl_monai.deploy.parity import (
    EXACT,
    LARGEST_DIFFERENCE,
    Runner,
    compare,
    onnx_runner,
    parity_inputs,
    require,
    require_parity,
    safetensors_runner,
    torchscript_runner,
)
from propl_monai.errors import ProPLError, first_line, unknown
from propl_monai.model.bundle_folder import find_weights
from propl_monai.model.encoder import STRIDES
from propl_monai.model.network import ProPL
from propl_monai.model.weights import load_network, save_safetensors

SUFFIXES = {"onnx": (".onnx",), "torchscript": (".ts", ".pt"), "safetensors": (".safetensors",)}
OPSET = 20  # of ONNX; the first that has GELU as one operator
HEADER = "propl"  # key of what the file says about itself
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
RENEWED = ("architecture", "decoder", "prompt_bank_sha256")  # entries of a header that follow from the network


def export(
    source: Path | str, output: Path | str, format: str | None = None, decoder: str | None = None
) -> dict[str, Any]:
    """Export weights, check the file against the network, and write the result beside it, `NAME.parity.json`.

    An ONNX or TorchScript file takes `image` (B, 1, H, W), float32, normalised as it says itself, and `task` (B,), int64:
    places in its list of task names. It gives `logits` (B, 1, H, W). Batch, height and width are free, the channel is
    one. A safetensors file holds the encoder, the prompts and the decoder that predicts: `Predictor.from_bundle` takes it
    and answers with the same bits; it cannot be trained, and without decoder sd it tells no uncertainty.

    Args:
        source: a model.safetensors, a folder that holds one, or a bundle, whose `models` folder does.
        output: the file to write, with the suffix of its format: .onnx, .ts or .pt, or .safetensors.
        format: "onnx", "torchscript" or "safetensors"; None for that of the suffix.
        decoder: "sd", "pd", "mean" (which is both), or None for the choice that the weights carry.

    Returns:
        What was written to the parity file.
    """
    output = Path(output)
    format = _format_of(output) if format is None else format
    _check_format(output, format)
    weights = find_weights(Path(source))
    if output.resolve() == weights.resolve():
        raise ProPLError(output, "is the file that is exported", "choose another name")
    network, header = load_network(weights)
    sha256 = file_sha256(weights)
    network.require_decoder(decoder or network.chosen_decoder)
    about = describe(network, header, decoder)
    size = about["spatial_size"]
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        candidate = Path(folder) / output.name
        if format == "safetensors":
            run = _write_safetensors(network, candidate, about["decoder"], {"full_weights_sha256": sha256, **header})
        else:
            run = _write_program(format, network, candidate, about)
        inputs = parity_inputs(len(about["tasks"]), size, about["normalisation"])
        allowed = EXACT if format == "safetensors" else LARGEST_DIFFERENCE
        parity = compare(network, run, inputs, decoder, allowed)
        require_parity(output, parity)
        write_atomically(output, candidate.read_bytes())
    record = {
        "file": output.name,
        "sha256": file_sha256(output),
        "format": format,
        "opset": OPSET if format == "onnx" else None,
        "weights_sha256": sha256,
        "free_axes": ["batch", "height", "width"],
        **about,
        "parity": parity,
        "versions": versions() | _installed(PACKAGES),
    }
    text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
    write_atomically(output.with_name(f"{output.name}.parity.json"), text.encode())
    return record


def describe(network: ProPL, header: Mapping[str, Any], decoder: str | None = None) -> dict[str, Any]:
    """What a user of the file must know; it is stored inside it as JSON under the key "propl".

    Args:
        network: with a prompt bank.
        header: of its weights.
        decoder: None for the network's choice.
    """
    if network.prompts is None or "spatial_size" not in header or header.get("normalisation") not in NORMALISATIONS:
        fact = "do not say their tasks, and the size and normalisation of their images"
        raise ProPLError("these weights", fact, "export weights that a training of this package has written")
    bank = network.prompts.bank.describe()
    constants = NORMALISATIONS[header["normalisation"]]
    return {
        "tasks": bank["tasks"],  # the place in this list is the number that asks for it
        "prompts": bank["sentences"],
        "decoder": decoder or network.chosen_decoder,
        "encoder": network.encoder.name,
        "spatial_size": list(header["spatial_size"]),
        "normalisation": header["normalisation"],
        # of grey levels divided by 255; null: the mean and deviation of each image
        "mean": constants[0] if constants else None,
        "deviation": constants[1] if constants else None,
    }


def _format_of(output: Path) -> str:
    for format, suffixes in SUFFIXES.items():
        if output.suffix in suffixes:
            return format
    every = ", ".join(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)
    raise ProPLError(output, "has no suffix of an export", f"end it in one of {every}, or give --format")


def _check_format(output: Path, format: str) -> None:
    if format not in SUFFIXES:
        raise unknown("--format", "format", format, SUFFIXES)
    if output.suffix not in SUFFIXES[format]:
        raise ProPLError(output, f"is no name for {format}", f"end it in {' or '.join(SUFFIXES[format])}")


def _write_safetensors(network: ProPL, path: Path, decoder: str, header: Mapping[str, Any]) -> Runner:
    slim = copy.deepcopy(network)
    slim.keep_decoder(decoder)
    save_safetensors(slim, path, {key: value for key, value in header.items() if key not in RENEWED})
    return safetensors_runner(path)


def _write_program(format: str, network: ProPL, path: Path, about: Mapping[str, Any]) -> Runner:
    exportable = ExportableNetwork(network, about["decoder"])
    if format == "onnx":
        _write_onnx(exportable, path, about["spatial_size"], about)
        return onnx_runner(path)
    _write_torchscript(exportable, path, about["spatial_size"], about)
    return torchscript_runner(path)


def _example(size: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Two images, as a batch of one would be taken for a constant, of a height and width that differ."""
    return torch.zeros(2, 1, size[0], size[1] + STRIDES[-1]), torch.tensor([0, 0])


def _write_torchscript(network: nn.Module, path: Path, size: Sequence[int], about: Mapping[str, Any]) -> None:
    with warnings.catch_warnings():
        # That traces are deprecated, and that they may fix what was meant to be free: the parity check would tell.
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        traced = torch.jit.trace(network, _example(size), check_trace=False)
        torch.jit.save(traced, str(path), {f"{HEADER}.json": json.dumps(about)})


def _write_onnx(network: nn.Module, path: Path, size: Sequence[int], about: Mapping[str, Any]) -> None:
    require(*PACKAGES)
    told = logging.getLogger("onnxscript")  # it tells of every operator that it cannot simplify
    level = told.level
    told.setLevel(logging.ERROR)
    try:
        program: Any = torch.onnx.export(
            network,
            _example(size),
            dynamo=True,
            opset_version=OPSET,
            input_names=["image", "task"],
            output_names=["logits"],
            dynamic_shapes={"image": {0: "batch", 2: "height", 3: "width"}, "task": {0: torch.export.Dim.DYNAMIC}},
            verbose=False,
        )
    except torch.onnx.errors.OnnxExporterError as error:
        fact = f"cannot be exported to ONNX ({first_line(error)})"
        raise ProPLError(f"encoder '{about['encoder']}'", fact, "take --format torchscript") from error
    finally:
        told.setLevel(level)
    program.model.metadata_props[HEADER] = json.dumps(about)
    program.save(str(path), external_data=False)


def _installed(names: Sequence[str]) -> dict[str, str]:
    """Versions of those packages that are installed."""
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
