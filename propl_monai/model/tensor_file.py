"""Safetensors files with a JSON header of ours: weights and prompt banks. The header is written and read here alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from propl_monai.common.files import write_atomically

HEADER = "propl"  # key of the file's metadata


def write_tensors(path: Path | str, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write a file as a whole; its folder is made if missing."""
    write_atomically(Path(path), save(dict(tensors), {HEADER: json.dumps(header, sort_keys=True)}))


def read_tensors(path: Path | str, *names: str) -> tuple[Any, list[Tensor]]:
    """The header of a file, and the tensors that are named, read without the rest.

    Raises:
        OSError, SafetensorError: the file cannot be read.
        KeyError, ValueError, RecursionError: it holds no such header or tensor.
    """
    with safe_open(str(path), framework="pt") as opened:
        lacking = set(names) - set(opened.keys())
        if lacking:
            raise KeyError(f"it holds no {', '.join(sorted(lacking))}")
        return json.loads((opened.metadata() or {})[HEADER]), [opened.get_tensor(name) for name in names]
