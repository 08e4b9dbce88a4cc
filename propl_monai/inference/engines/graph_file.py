"""The ONNX form of weights: a small file with the operations alone, which is filled from the weights when it is loaded.

It lies beside the weights as `NAME.graph.onnx`, or in the user's cache folder where that cannot be written to, and names the
SHA-256 of its weights: of others it is never used. `deploy.onnx_graph` makes it. What describes it stands at the end, as
metadata of ONNX, with the SHA-256 of all that is before.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import NamedTuple

from propl_monai.common.files import write_atomically
from propl_monai.errors import ProPLError

SUFFIX = ".graph.onnx"
FACTS = "propl_graph"  # key of the file's metadata, and of the version in them
VERSION = 2  # of the form: inputs, outputs, and how tensors are named
LARGEST = 8_000_000  # bytes; a graph of EfficientNet-Lite1 has 0.2 million
INPUTS, OUTPUTS = ("image", "row", "text"), ("logits", "pooled")


class Graph(NamedTuple):
    """A graph that fits weights.

    Attributes:
        path: of its file.
        content: its bytes.
        decoder: "sd", "pd" or "mean".
        tensors: of the weights file, which the graph needs.
    """

    path: Path
    content: bytes
    decoder: str
    tensors: list[str]


def places(weights: Path, sha256: str) -> list[Path]:
    """Where the graph of weights may lie, the first choice first."""
    beside = weights.with_name(weights.name.removesuffix(".safetensors") + SUFFIX)
    cache = _cache_folder()
    return [beside] if cache is None else [beside, cache / f"{sha256}{SUFFIX}"]


def _cache_folder() -> Path | None:
    """Of this package and user, by the XDG standard or Windows' custom; None where there is no home."""
    named = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    try:
        return (Path(named) if named else Path.home() / ".cache") / "propl_monai"
    except RuntimeError:
        return None


def find_graph(weights: Path, sha256: str) -> Graph | None:
    """The graph of weights with this hash; None where there is none."""
    for path in places(weights, sha256):
        try:
            content = path.read_bytes() if path.is_file() and path.stat().st_size <= LARGEST else b""
        except OSError:  # the cache of another user
            continue
        if found := read_graph(path, content, sha256):
            return found
    return None


def read_graph(path: Path, content: bytes, sha256: str) -> Graph | None:
    """The graph in a file's bytes; None for another kind of file, another version, other weights, or a damaged file.

    ONNX keeps metadata as plain text, so they can be read without the package `onnx`, and before the graph is.
    """
    start = content.rfind(b'{"' + FACTS.encode() + b'":')
    try:
        facts, _ = json.JSONDecoder().raw_decode(content[start:].decode("utf-8", "replace")) if start >= 0 else ({}, 0)
        if facts.get(FACTS) != VERSION or facts["weights_sha256"] != sha256:
            return None
        if hashlib.sha256(content[: facts["bytes"]]).hexdigest() != facts["sha256"]:
            return None
        return Graph(path, content, str(facts["decoder"]), [str(name) for name in facts["tensors"]])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def describe_graph(body: bytes, weights_sha256: str, decoder: str, tensors: list[str]) -> str:
    """The metadata of a graph, which are put behind `body`, the rest of its file."""
    about = {"weights_sha256": weights_sha256, "decoder": decoder, "tensors": tensors}
    return json.dumps({FACTS: VERSION, **about, "bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()})


def write_graph(weights: Path, sha256: str, content: bytes) -> Path:
    """Keep a graph at the first place that can be written to."""
    failed: ProPLError | None = None
    for path in places(weights, sha256):
        try:
            write_atomically(path, content)
            return path
        except ProPLError as error:
            failed = error
    assert failed is not None  # there is always a place
    raise failed
