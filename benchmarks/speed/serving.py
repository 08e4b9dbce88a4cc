"""What a user of trained weights waits for: the size of the file, its loading, and frames a second, all the way to masks."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.speed.clock import seconds
from benchmarks.speed.workloads import network_of
from propl_monai.datasets.phantoms.phantom import make_phantom
from propl_monai.deploy.export import export
from propl_monai.images import write_picture
from propl_monai.inference.inferer import PromptInferer
from propl_monai.inference.predict_folder import predict_paths
from propl_monai.inference.predictor import Predictor, as_picture
from propl_monai.model.weights import save_weights
from propl_monai.tasks import NAMES

FRAMES, DRAWN, FRAME = 64, 8, 512  # pictures, different ones among them, and pixels of a side
BATCH = 8  # of the network alone
TASK = NAMES[2]


def serving(preset: str, pixels: int, threads: int, repeats: int, device: str = "cpu") -> dict[str, Any]:
    """Measure with random weights, in this process.

    Args:
        preset: "paper" or "compact".
        pixels: of a side of the network's grid.
        threads: of torch and of ONNX Runtime.
        repeats: of each figure; the median counts.
        device: of our network; ONNX Runtime stays on the CPU.

    Returns:
        "file_mb" of the weights with one decoder (what `propl export FILE.safetensors` writes), "full_file_mb" with both,
        "load_seconds" of `Predictor.from_bundle` (packages are imported already), and frames a second, one task:
        "memory_fps" from arrays to masks, "folder_fps" from PNG files to mask files, and, where ONNX Runtime is installed,
        "onnx_fps" of the exported network alone beside "network_fps" of ours.
    """
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        about = {"preset": preset, "normalisation": "half", "spatial_size": [pixels, pixels]}
        save_weights(network_of(preset), folder, about)
        small = folder / "small.safetensors"
        export(folder / "model.safetensors", small, decoder="pd")
        pictures = _write_pictures(folder / "frames")
        predictor = Predictor.from_bundle(small, device=device)
        row: dict[str, Any] = {
            "preset": preset,
            "pixels": pixels,
            "file_mb": round(small.stat().st_size / 1e6, 1),
            "full_file_mb": round((folder / "model.safetensors").stat().st_size / 1e6, 1),
            "load_seconds": round(_median(lambda: Predictor.from_bundle(small, device=device), repeats), 3),
        }
        frames = [as_picture(picture) for picture in pictures]
        row["memory_fps"] = _rate(lambda: predictor.predict(frames, TASK), repeats)
        row["folder_fps"] = _rate(lambda: _segment(predictor, folder / "frames"), repeats)
        row |= _network_alone(folder, predictor, threads, repeats)
        return row


def _write_pictures(folder: Path) -> list[np.ndarray]:
    drawn = [make_phantom("heart", number // 2, number % 2, FRAME).image for number in range(DRAWN)]
    pictures = [drawn[number % DRAWN] for number in range(FRAMES)]
    for number, picture in enumerate(pictures):
        write_picture(folder / f"{number:03d}.png", picture)
    return pictures


def _segment(predictor: Predictor, pictures: Path) -> None:
    with tempfile.TemporaryDirectory() as masks:
        predict_paths(predictor, [pictures], masks, TASK)


def _network_alone(folder: Path, predictor: Predictor, threads: int, repeats: int) -> dict[str, float]:
    image = torch.rand(BATCH, 1, *predictor.spatial_size)
    task = torch.zeros(BATCH, dtype=torch.int64)
    inferer = PromptInferer([TASK], predictor.decoder)
    with torch.inference_mode():
        # There and back: a GPU that was only given its work has not done it yet.
        alone = _rate(lambda: inferer(image.to(predictor.device), predictor.network).cpu(), repeats, BATCH)
    found = {"network_fps": alone}
    if find_spec("onnxruntime") and find_spec("onnx"):
        import onnxruntime

        export(folder / "model.safetensors", folder / "network.onnx", decoder=predictor.decoder)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(
            str(folder / "network.onnx"), options, providers=["CPUExecutionProvider"]
        )
        inputs = {"image": image.numpy(), "task": task.numpy()}
        found["onnx_fps"] = _rate(lambda: session.run(None, inputs), repeats, BATCH)
    return found


def _rate(work: Callable[[], object], repeats: int, frames: int = FRAMES) -> float:
    work()
    return round(frames / _median(work, repeats), 1)


def _median(work: Callable[[], object], repeats: int) -> float:
    return statistics.median(seconds(work, repeats))
