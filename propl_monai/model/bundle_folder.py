"""The files of a bundle that prediction reads: weights with their header, and metadata.json; all are checked first."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from propl_monai.data.transforms import NORMALISATIONS
from propl_monai.errors import ProPLError, first_line
from propl_monai.model.network import ProPL
from propl_monai.model.weights import WEIGHTS

LARGEST_GRID = 4096  # pixels a side; a network's grid has 160 or 224
CURE = "give the folder of a bundle, or the model.safetensors of a training"


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


def check_weights(path: Path, network: ProPL, header: dict[str, Any]) -> None:
    """Check that weights are finite and hold the prompts that their header names."""
    # Extremes pass NaN and infinity on, at a tenth of the cost of looking at each value.
    values = {name: value for name, value in network.state_dict().items() if value.numel()}
    broken = [name for name, value in values.items() if not torch.isfinite(torch.stack(value.aminmax())).all()]
    if broken:
        fact = f"holds {len(broken)} tensors with NaN or infinity, first '{broken[0]}'"
        raise ProPLError(path, fact, "download it again, or train again")
    bank = network.prompts.bank.sha256 if network.prompts else None
    if header.get("prompt_bank_sha256") != bank:
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
