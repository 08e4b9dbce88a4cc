"""Which engine answers: ONNX Runtime on a CPU where it is installed and the weights have their ONNX form, else torch."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from propl_monai.errors import WHOLE, ProPLError, unknown
from propl_monai.inference.engines.base import NAMES
from propl_monai.inference.engines.graph_file import Graph, find_graph
from propl_monai.model.bundle_folder import Described

MakeGraph = Callable[[Described], Path]
MAKERS = ("torch", "onnx", "onnxscript")
GPU_FILES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg", "/dev/kfd")  # of NVIDIA, of Windows in WSL, of AMD
logger = logging.getLogger(__name__)


def choose_graph(
    engine: str, described: Described, device: object, decoder: str | None, make: MakeGraph | None = None
) -> Graph | None:
    """The graph to run, or None for torch.

    Args:
        engine: "auto", "torch" or "onnx"; "onnx" refuses what "auto" leaves to torch.
        described: the weights.
        device: as a user gave it; None for the best there is.
        decoder: as a user gave it; None for the one of the weights.
        make: makes the graph of weights that have none.
    """
    if engine not in NAMES:
        raise unknown("engine", "engine", engine, NAMES)
    if engine == "torch":
        require_torch("the engine torch")
        return None
    reason = _not_by_onnx(device)
    graph = None if reason else find_graph(described.weights, described.weights_sha256)
    held = graph.decoder if graph else described.header.get("decoder")
    if not reason and decoder not in (None, held):
        reason = f"the ONNX form of these weights holds decoder '{held}', not '{decoder}'", "leave --decoder out"
    missing = [package for package in MAKERS if find_spec(package) is None]
    if not reason and graph is None and make is not None and not missing:
        graph = _made(engine, described, make)
    if graph is None and not reason:
        cure = f"install {', '.join(missing)}" if missing else "`propl predict --engine onnx` makes it, once"
        reason = f"{described.weights} has no ONNX form, which torch and the extra `export` make", cure
    if not reason:
        return graph
    if engine == "onnx":
        raise ProPLError("engine onnx", reason[0], f"{reason[1]}, or use the engine torch")
    require_torch(reason[0])
    return None


def _not_by_onnx(device: object) -> tuple[str, str] | None:
    """Why ONNX Runtime cannot be used here, and the cure; None if it can."""
    if device is not None and str(device) != "cpu":
        return f"runs on the CPU alone, not on '{device}'", "give --device cpu"
    if find_spec("onnxruntime") is None:
        return "onnxruntime is not installed", "pip install onnxruntime"
    if device is None and _has_gpu():
        return "there is a GPU, which torch uses", "give --device cpu"
    return None


def _has_gpu() -> bool:
    """Whether torch finds a GPU; it is only asked where the system shows one, as its import takes seconds."""
    shown = any(Path(name).exists() for name in GPU_FILES) or shutil.which("nvidia-smi") is not None
    if not shown or find_spec("torch") is None:
        return False
    import torch

    return torch.cuda.is_available()


def _made(engine: str, described: Described, make: MakeGraph) -> Graph | None:
    try:
        make(described)
    except ProPLError as error:
        if engine == "onnx":
            raise
        logger.warning("%s; torch predicts", error)
    return find_graph(described.weights, described.weights_sha256)


def require_torch(what: str) -> None:
    """Refuse what needs torch by its name where torch is not installed."""
    if find_spec("torch") is None:
        raise ProPLError(what, "needs torch, which is not installed", WHOLE)
