"""The files of a bundle that prediction reads: weights with their header, and metadata.json; all are checked first.

torch is imported where a network is built, and not before: a prediction by ONNX Runtime does without it.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from propl_monai.common.files import file_sha256, write_atomically
from propl_monai.common.packaged_bundle import packaged_bundle
from propl_monai.data.normalisations import NORMALISATIONS
from propl_monai.errors import ProPLError, first_line
from propl_monai.model.tensor_file import WEIGHTS, read_header

if TYPE_CHECKING:
    from propl_monai.model.networks.base import Segmenter

LARGEST_GRID = 4096  # pixels a side; a network's grid has 160 or 224
CURE = "give the folder of a bundle, or the model.safetensors of a training"
CHECKSUM = "model.sha256"  # beside shipped weights, one line as `sha256sum` writes it
RESTORE = "restore it, with git in a checkout, else by installing again; or name other weights with --weights"


class Described(NamedTuple):
    """Weights before any tensor is read.

    Attributes:
        weights: the file.
        header: of it, see `tensor_file.read_header`.
        spatial_size: grid (rows, columns) of its images.
        normalisation: of its images.
        weights_sha256: of the file.
        about: name and version of the bundle.
        crop_sector: whether the black border around the scan is cut from its images, see `images.sector`.
    """

    weights: Path
    header: dict[str, Any]
    spatial_size: tuple[int, int]
    normalisation: str
    weights_sha256: str
    about: dict[str, str]
    crop_sector: bool = False


def shipped_weights(bundle: Path | None = None) -> Path:
    """The weights that belong to the package, or to a bundle. They may be missing: `shipped_sha256` says so."""
    return (bundle or packaged_bundle()) / "models" / WEIGHTS


def shipped_sha256(weights: Path) -> str:
    """The hash that shipped weights must have, from the file beside them."""
    if not weights.is_file():
        fact = "is not there, so this installation has no trained weights"
        cure = (
            "take them from a checkout or wheel that has them, or name others with --weights or `Predictor.from_bundle`"
        )
        raise ProPLError(weights, fact, cure)
    beside = weights.with_name(CHECKSUM)
    found = re.match(
        r"([0-9a-f]{64})\b", beside.read_text(encoding="ascii", errors="replace") if beside.is_file() else ""
    )
    if not found:
        raise ProPLError(beside, f"is missing, or holds no SHA-256 of the {WEIGHTS} beside it", RESTORE)
    return found[1]


def write_checksum(weights: Path, sha256: str) -> None:
    """The file beside weights that `shipped_sha256` reads."""
    write_atomically(weights.with_name(CHECKSUM), f"{sha256}  {weights.name}\n".encode())


def describe_bundle(
    path: Path, sha256: str | None = None, cure: str = "it was changed: download it again"
) -> Described:
    """Check weights by hash and header: of tensors nothing is read yet, of configs nothing at all.

    Args:
        path: see `find_weights`.
        sha256: that the weights must have; None for any.
        cure: for weights with another one.
    """
    weights = find_weights(path)
    found = file_sha256(weights)
    if sha256 is not None and sha256.lower() != found:
        raise ProPLError(weights, f"has sha256 {found}, not {sha256}", cure)
    header = read_header(weights)
    size, normalisation = preprocessing(weights, header)
    about = read_metadata(path / "configs" / "metadata.json") if path.is_dir() else {}
    crop_sector = header.get("crop_sector", False)
    if not isinstance(crop_sector, bool):
        fact = f"has a header without a valid preprocessing (crop_sector {crop_sector!r})"
        raise ProPLError(weights, fact[:300], CURE)
    return Described(weights, header, size, normalisation, found, about, crop_sector)


def describe_shipped() -> Described:
    """The weights that belong to the package, which must be those that were shipped."""
    bundle = packaged_bundle()
    return describe_bundle(bundle, shipped_sha256(shipped_weights(bundle)), RESTORE)


def open_network(described: Described) -> Segmenter:
    """The network of described weights, in eval mode, after a check of its tensors."""
    from propl_monai.model.weights import load_network

    network, header = load_network(described.weights)
    check_weights(described.weights, network, header)
    return network


def find_weights(path: Path) -> Path:
    """The weights of a bundle, of the folder of a training, or the file itself."""
    if not path.exists():
        raise ProPLError(path, "does not exist", CURE)
    if not path.is_dir():
        return path
    for place in (path / "models" / WEIGHTS, path / WEIGHTS):
        if place.is_file():
            return place
    raise ProPLError(path, f"holds no models/{WEIGHTS}", "train first, or " + CURE)


def check_weights(path: Path, network: Segmenter, header: dict[str, Any]) -> None:
    """Check that weights are finite and hold the prompts that their header names."""
    import torch

    # Extremes pass NaN and infinity on, at a tenth of the cost of looking at each value.
    values = {name: value for name, value in network.state_dict().items() if value.numel()}
    broken = [name for name, value in values.items() if not torch.isfinite(torch.stack(value.aminmax())).all()]
    if broken:
        fact = f"holds {len(broken)} tensors with NaN or infinity, first '{broken[0]}'"
        raise ProPLError(path, fact, "download it again, or train again")
    if header.get("prompt_bank_sha256") != network.prompt_bank_sha256:
        raise ProPLError(path, "holds other prompts than its header says", "download it again, or train again")


def preprocessing(path: Path, header: dict[str, Any]) -> tuple[tuple[int, int], str]:
    """Grid (rows, columns) and normalisation from the header of weights."""
    size, kind = header.get("spatial_size"), header.get("normalisation")
    if (
        isinstance(size, list)
        and len(size) == 2
        and all(type(side) is int and 1 <= side <= LARGEST_GRID for side in size)
    ):
        if isinstance(kind, str) and kind in NORMALISATIONS:
            return (size[0], size[1]), kind
    fact = f"has a header without a valid preprocessing (spatial_size {size!r}, normalisation {kind!r})"
    raise ProPLError(path, fact[:300], CURE)


def read_metadata(path: Path) -> dict[str, str]:
    """Name and version of a bundle from its metadata.json; empty where it has none."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {key: str(content[key]) for key in ("name", "version") if key in content}
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise ProPLError(path, f"is no sound JSON ({first_line(error)})", "download the bundle again") from error
