"""Export to ONNX or to a program of torch, which run without this package, or to weights with one decoder, which need it."""

from __future__ import annotations

import copy
import json
import logging
import tempfile
from collections.abc import Mapping, Sequence
from importlib import metadata, util
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from propl_monai.common.files import file_sha256, write_atomically
from propl_monai.common.run_record import versions
from propl_monai.data.normalisations import NORMALISATIONS
from propl_monai.deploy.exportable import exportable
from propl_monai.deploy.parity import (
    EXACT,
    LARGEST_DIFFERENCE,
    compare,
    onnx_runner,
    parity_inputs,
    program_runner,
    require,
    require_parity,
    safetensors_runner,
)
from propl_monai.errors import ProPLError, first_line, unknown
from propl_monai.model.bundle_folder import find_weights
from propl_monai.model.encoder import STRIDES
from propl_monai.model.networks.base import Segmenter
from propl_monai.model.weights import load_network, save_safetensors

SUFFIXES = {"onnx": (".onnx",), "pt2": (".pt2",), "safetensors": (".safetensors",)}
OPSET = 20  # of ONNX; the first that has GELU as one operator
HEADER = "propl"  # key of the description inside a file
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_FREE = torch.export.Dim.DYNAMIC
# entries of a header that follow from the network, or are of another file
DERIVED = ("architecture", "decoder", "prompt_bank_sha256", "halved")


def export(
    source: Path | str, output: Path | str, format: str | None = None, decoder: str | None = None
) -> dict[str, Any]:
    """Export weights, compare the file with the network, and write the result of that to `NAME.parity.json` beside it.

    An ONNX file or a program of torch (`torch.export`) maps `image` (B, 1, H, W), float32, normalised as described in the
    file, and `task` (B,), int64, indices into its list of tasks, to `logits` (B, 1, H, W). Batch, height and width are free.
    A safetensors file holds the encoder, the prompts and the decoder that predicts: `Predictor.from_bundle` predicts the
    same bits with it; it cannot be trained, and without decoder sd it gives no uncertainty.

    Args:
        source: a model.safetensors, a folder that holds one, or a bundle, whose `models` folder does.
        output: the file to write, with the suffix of its format: .onnx, .pt2 or .safetensors.
        format: "onnx", "pt2" or "safetensors"; None for that of the suffix.
        decoder: "sd", "pd", "mean" (which is both), or None for the one that the weights have chosen.

    Returns:
        The content of the parity file.
    """
    output = Path(output)
    format = _checked_format(output, format)
    weights = find_weights(Path(source))
    if output.resolve() == weights.resolve():
        raise ProPLError(output, "is the file that is exported", "choose another name")
    network, header = load_network(weights)
    sha256 = file_sha256(weights)
    network.require_decoder(decoder or network.chosen_decoder)
    about = describe(network, header, decoder)
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        candidate = Path(folder) / output.name
        if format == "safetensors":
            slim = copy.deepcopy(network)
            slim.keep_decoder(about["decoder"])
            kept = {key: value for key, value in header.items() if key not in DERIVED}
            save_safetensors(slim, candidate, {"full_weights_sha256": sha256, **kept})
            run = safetensors_runner(candidate)
        elif format == "onnx":
            _write_onnx(exportable(network, about["decoder"]), candidate, about)
            run = onnx_runner(candidate)
        else:
            _write_program(exportable(network, about["decoder"]), candidate, about)
            run = program_runner(candidate)
        inputs = parity_inputs(len(about["tasks"]), about["spatial_size"], about["normalisation"])
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
        "versions": versions() | {name: metadata.version(name) for name in PACKAGES if util.find_spec(name)},
    }
    text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
    write_atomically(output.with_name(f"{output.name}.parity.json"), text.encode())
    return record


def describe(network: Segmenter, header: Mapping[str, Any], decoder: str | None = None) -> dict[str, Any]:
    """What a user of the file must know, stored inside it as JSON under the key "propl".

    Args:
        network: with a prompt bank.
        header: of its weights.
        decoder: None for the network's choice.
    """
    if not network.task_names or "spatial_size" not in header or header.get("normalisation") not in NORMALISATIONS:
        fact = "do not state their tasks, and the size and normalisation of their images"
        raise ProPLError("these weights", fact, "export weights that a training of this package has written")
    sentences = dict.fromkeys(network.task_names) | network.sentences
    constants = NORMALISATIONS[header["normalisation"]]
    return {
        "network": network.name,
        "tasks": network.task_names,  # the index in this list is the input `task`
        "prompts": list(sentences.values()),  # null where the network reads none
        "decoder": decoder or network.chosen_decoder,
        "encoder": network.options["encoder"],
        "spatial_size": list(header["spatial_size"]),
        "normalisation": header["normalisation"],
        # whether the caller has to cut the black border around the scan before, as `propl crop` does
        "crop_sector": header.get("crop_sector", False),
        # of grey levels divided by 255; null: the mean and deviation of each image
        "mean": constants[0] if constants else None,
        "deviation": constants[1] if constants else None,
    }


def _checked_format(output: Path, format: str | None) -> str:
    """The format, by default that of the suffix; the suffix must fit it."""
    for known, suffixes in SUFFIXES.items():
        if output.suffix in suffixes and format in (None, known):
            return known
    if format is None:
        every = ", ".join(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)
        raise ProPLError(output, "has no suffix of an export", f"end it in one of {every}, or give --format")
    if format not in SUFFIXES:
        raise unknown("--format", "format", format, SUFFIXES)
    raise ProPLError(output, f"has a suffix that is not one of {format}", f"end it in {' or '.join(SUFFIXES[format])}")


def _example(size: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Two images whose height and width differ: the exporters take a batch of one for a constant."""
    return torch.zeros(2, 1, size[0], size[1] + STRIDES[-1]), torch.tensor([0, 0])


def _write_program(network: nn.Module, path: Path, about: Mapping[str, Any]) -> None:
    if about["spatial_size"][0] <= STRIDES[-1]:  # one cell in the deepest map
        fact = f"take images of {about['spatial_size']}, whose height torch.export takes for a constant"
        raise ProPLError(
            "these weights", fact, f"use --format onnx or safetensors, or train at more than {STRIDES[-1]} px"
        )
    free = {"image": {0: _FREE, 2: _FREE, 3: _FREE}, "task": {0: _FREE}}
    try:
        program = torch.export.export(network, _example(about["spatial_size"]), dynamic_shapes=free)
    except (RuntimeError, torch._dynamo.exc.TorchDynamoException) as error:
        fact = f"cannot be exported by torch.export ({first_line(error)})"
        raise ProPLError(f"encoder '{about['encoder']}'", fact, "use --format onnx or safetensors") from error
    torch.export.save(program, path, extra_files={f"{HEADER}.json": json.dumps(about)})


def _write_onnx(network: nn.Module, path: Path, about: Mapping[str, Any]) -> None:
    free = {"image": {0: "batch", 2: "height", 3: "width"}, "task": {0: _FREE}}
    program = onnx_program(network, _example(about["spatial_size"]), free, about["encoder"])
    program.model.metadata_props[HEADER] = json.dumps(about)
    program.save(str(path), external_data=False)


def onnx_program(
    network: nn.Module,
    example: tuple[Tensor, ...],
    free: Mapping[str, Any],
    encoder: str,
    outputs: Sequence[str] = ("logits",),
    optimize: bool = True,
) -> Any:
    """A network as torch's `ONNXProgram`.

    Args:
        network: in eval mode.
        example: of its inputs.
        free: axes that are not those of the example, by the names of the inputs, in their order.
        encoder: its name, for errors.
        outputs: their names.
        optimize: fold constants, batch normalisation into convolutions among them.
    """
    require(*PACKAGES)
    log = logging.getLogger("onnxscript")  # it logs every operator that it cannot simplify
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        return torch.onnx.export(
            network,
            example,
            dynamo=True,
            opset_version=OPSET,
            input_names=list(free),
            output_names=list(outputs),
            dynamic_shapes=dict(free),
            optimize=optimize,
            verbose=False,
        )
    except torch.onnx.errors.OnnxExporterError as error:
        fact = f"cannot be exported to ONNX ({first_line(error)})"
        raise ProPLError(f"encoder '{encoder}'", fact, "use torch, or --format pt2") from error
    finally:
        log.setLevel(level)
