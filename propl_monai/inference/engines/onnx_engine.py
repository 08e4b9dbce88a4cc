"""The engine that starts at once: ONNX Runtime on the CPU, NumPy and Pillow; no torch is loaded."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from propl_monai.data.normalisations import normalise
from propl_monai.errors import ProPLError, first_line
from propl_monai.images.resize import enlarge, exceeding, shrink
from propl_monai.inference.engines.graph_file import INPUTS, OUTPUTS, Graph
from propl_monai.model.bundle_folder import Described

ROWS = 8  # pairs of picture and task that are decoded together
NEAR = 4e-7  # of a probability: six times its rounding
BANK = "prompts.bank."


class OnnxEngine:
    """See `base.Engine`. One decoder, that of the graph, and no uncertainty.

    Args:
        described: the weights.
        graph: of these weights.
        tta: average the probabilities with those of the picture mirrored left to right.
    """

    name, device = "onnx", "cpu"

    def __init__(self, described: Described, graph: Graph, tta: bool) -> None:
        self.described, self.tta, self.decoder = described, tta, graph.decoder
        architecture = described.header["architecture"]
        try:
            with safe_open(str(described.weights), framework="np") as opened:
                tensors = {name: opened.get_tensor(name) for name in graph.tensors}
                self._texts = _texts(described, architecture, opened)
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            fact = f"does not hold what its ONNX form needs ({first_line(error)})"
            raise ProPLError(described.weights, fact, f"delete {graph.path}, or give --engine torch") from error
        _require_finite(described, tensors)
        self._numbers = {name: number for number, name in enumerate(architecture["tasks"])}
        threads = _threads()
        self._workers = min(threads, ROWS)
        self._pool = ThreadPoolExecutor(self._workers, "onnx")
        self._session = _session(graph, tensors, -(-threads // self._workers))

    def prepare(self, grey: np.ndarray) -> np.ndarray:
        """See `base.Engine`."""
        levels = shrink(grey, self.described.spatial_size).astype(np.float32) / 255
        return normalise(levels, self.described.normalisation)[None]

    def answer(
        self, images: Sequence[np.ndarray], tasks: list[str], uncertainty: bool
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """See `base.Engine`."""
        if uncertainty:
            raise ProPLError("uncertainty", "is not in the ONNX form", "give --engine torch")
        numbers = [self._numbers[name] for name in tasks]
        # Two batches in two threads take less than one batch in a session of two threads, which divides every layer.
        step = max(1, min(ROWS // len(tasks), -(-len(images) // self._workers)))
        batches = [np.stack(images[start : start + step]) for start in range(0, len(images), step)]
        maps, pooled = zip(*self._pool.map(lambda batch: self._answer(batch, numbers), batches), strict=True)
        return np.concatenate(maps), np.concatenate(pooled)

    def _answer(self, images: np.ndarray, numbers: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """(B, 1, H, W) to logits (B, K, H, W) of K tasks, and pooled features (B, C)."""
        count, tasks = len(images), len(numbers)
        pairs = np.repeat(np.arange(count), tasks), np.tile(numbers, count)
        logits, pooled = self.run(images, *pairs)
        if self.tta:
            mirrored, _ = self.run(np.ascontiguousarray(images[..., ::-1]), *pairs)
            logits = _mean(logits, mirrored[..., ::-1])
        return logits.reshape(count, tasks, *images.shape[2:]), pooled

    def run(self, images: np.ndarray, rows: np.ndarray, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Run the graph, which encodes each image once.

        Args:
            images: (B, 1, H, W), normalised.
            rows: (R,), of the image of each pair.
            numbers: (R,), of the task of each pair.

        Returns:
            Logits (R, 1, H, W), and pooled features (B, C).
        """
        given = dict(zip(INPUTS, (images, rows, self._texts[numbers]), strict=True))
        logits, pooled = self._session.run(list(OUTPUTS), given)
        return logits, pooled

    def finish(self, maps: np.ndarray, size: tuple[int, int], count: int) -> tuple[np.ndarray, None]:
        """See `base.Engine`."""
        return _probability(enlarge(maps, size)), None

    def masks(self, maps: np.ndarray, size: tuple[int, int], count: int, threshold: float) -> np.ndarray:
        """See `base.Engine`. A logit says on which side it is; only beside the threshold the probability is asked."""
        edge, near = float(np.log(threshold / (1 - threshold))), NEAR / (threshold * (1 - threshold))
        found = []
        for one in maps:
            mask = exceeding(one, size, edge, near)
            found.append(_probability(enlarge(one[None], size))[0] > threshold if mask is None else mask)
        return np.stack(found)


def _probability(logits: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # of a logit below -88: 1 / infinity is right
        return 1 / (1 + np.exp(-logits))


def _session(graph: Graph, tensors: dict[str, np.ndarray], threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what it warns of concerns its developers; errors are raised as well
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # idle threads burn no processor
    filled = {name: np.ascontiguousarray(value, np.float32) for name, value in tensors.items()}
    values = [onnxruntime.OrtValue.ortvalue_from_numpy(value) for value in filled.values()]
    options.add_external_initializers(list(filled), values)
    try:
        return onnxruntime.InferenceSession(graph.content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime has an exception for every code of its own
        fact = f"cannot be run ({first_line(error)})"
        raise ProPLError(graph.path, fact, "delete it, or give --engine torch") from error


def _threads() -> int:
    """Those that this process may use; said aloud, as ONNX Runtime would count all processors of the machine."""
    free = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    named = os.environ.get("OMP_NUM_THREADS", "")
    return min(free, int(named)) if named.isdecimal() and int(named) > 0 else free


def _texts(described: Described, architecture: dict[str, Any], opened: Any) -> np.ndarray:
    """The text of every task, (K, L, E), float32, as `prompts.Prompts.table` makes it; the bank is checked by its hash."""
    embeddings, mask, header = (opened.get_tensor(BANK + name) for name in ("embeddings", "mask", "header"))
    digest = hashlib.sha256(header.tobytes())
    digest.update(np.ascontiguousarray(embeddings, np.float32).tobytes())
    if described.header.get("prompt_bank_sha256") != digest.hexdigest():
        fact = "holds other prompts than its header says"
        raise ProPLError(described.weights, fact, "download it again, or train again")
    if json.loads(header.tobytes())["tasks"] != architecture["tasks"] or mask.shape != embeddings.shape[:2]:
        raise ValueError("its tasks, embeddings and mask do not fit each other")
    count, length, width = embeddings.shape
    mode, padding = architecture["prompt_mode"], architecture["prompt_padding"]
    if mode == "learned":
        return opened.get_tensor("prompts.learned").astype(np.float32)
    if mode == "onehot":
        return np.repeat(np.eye(count, width, dtype=np.float32)[:, None], length, axis=1)
    if mode == "none":
        return np.zeros((count, length, width), np.float32)
    return embeddings if padding == "released" else embeddings * mask[..., None].astype(np.float32)


def _require_finite(described: Described, tensors: dict[str, np.ndarray]) -> None:
    broken = [name for name, value in tensors.items() if value.size and not np.isfinite(value).all()]
    if broken:
        fact = f"holds {len(broken)} tensors with NaN or infinity, first '{broken[0]}'"
        raise ProPLError(described.weights, fact, "download it again, or train again")


def _mean(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Logits of the mean of two probabilities, see `network.mean_logits`."""
    log2 = np.float32(np.log(2))
    return np.logaddexp(np.logaddexp(a + b + log2, a), b) - np.logaddexp(np.logaddexp(log2, a), b)
