"""Safetensors files with a JSON header of ours: weights and prompt banks. The header is written, read and checked here alone.

Reading needs no torch, so that a prediction by ONNX Runtime starts without it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from propl_monai import tasks
from propl_monai.common.files import write_atomically
from propl_monai.errors import ProPLError

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS = "model.safetensors"
HEADER = "propl"  # key of the file's metadata
ADDED_TASKS = "added_tasks"  # entry of the header: what the tasks are that the package does not have
DECODERS = ("sd", "pd", "mean")
BOTH = ("sd", "pd")  # the decoders that have weights
BLOCKS = ("unetr", "light")  # of a decoder's stage: the paper's, and a cheap one
OF_EARLIER_FILES = {"network": "propl", "decoder_block": BLOCKS[0]}  # from before there was a choice
ARCHITECTURE_KEYS = {"network", "encoder", "tasks"}  # of every network; its other options are checked when it is built
LARGEST_TEXT = 4096  # tokens of a prompt, and their width


def write_tensors(path: Path | str, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write a file as a whole; its folder is made if missing."""
    from safetensors.torch import save

    write_atomically(Path(path), save(dict(tensors), {HEADER: json.dumps(header, sort_keys=True)}))


def read_tensors(path: Path | str, *names: str, framework: str = "pt") -> tuple[Any, list[Any]]:
    """The header of a file, and the tensors that are named, read without the rest.

    Args:
        path: of the file.
        names: of tensors.
        framework: "pt" for tensors of torch, "np" for arrays.

    Raises:
        OSError, SafetensorError: the file cannot be read.
        KeyError, ValueError, RecursionError: it holds no such header or tensor.
    """
    with safe_open(str(path), framework=framework) as opened:
        lacking = set(names) - set(opened.keys())
        if lacking:
            raise KeyError(f"it holds no {', '.join(sorted(lacking))}")
        return json.loads((opened.metadata() or {})[HEADER]), [opened.get_tensor(name) for name in names]


def read_header(path: Path | str) -> dict[str, Any]:
    """The header of a safetensors weights file. Tasks that users have added to it are known to this process from now on."""
    try:
        header, _ = read_tensors(path, framework="np")
    except (OSError, SafetensorError) as error:
        raise ProPLError(
            path, f"is no readable safetensors file ({error})", "train first, or download it again"
        ) from error
    except (KeyError, ValueError, RecursionError) as error:
        raise ProPLError(path, "was not written by propl_monai", "give the model.safetensors of a training") from error
    found = header.get("architecture") if isinstance(header, dict) else None
    if isinstance(found, dict):
        header["architecture"] = found = {**OF_EARLIER_FILES, **found}
    if not _is_architecture(found):
        raise ProPLError(path, "has a header that does not say what network it holds", "train or download it again")
    added = header.get(ADDED_TASKS, [])
    for content in added if isinstance(added, list) else [added]:
        tasks.add(tasks.from_facts(content, path))
    return header


def _is_architecture(found: Any) -> bool:
    """Whether a header's entry may be built from, before anything is allocated for it."""
    if not isinstance(found, dict) or not ARCHITECTURE_KEYS <= found.keys():
        return False
    shape, known = found.get("text_shape", [1, 1]), found["tasks"]
    sizes = isinstance(shape, list) and len(shape) == 2 and all(type(n) is int and 0 < n <= LARGEST_TEXT for n in shape)
    names = isinstance(known, list) and all(isinstance(name, str) for name in known)
    decoders = found.get("decoders", [*BOTH]) in ([*BOTH], *([name] for name in BOTH))
    block = found.get("decoder_block", BLOCKS[0]) in BLOCKS
    return sizes and names and decoders and block and all(isinstance(found[key], str) for key in ("network", "encoder"))
