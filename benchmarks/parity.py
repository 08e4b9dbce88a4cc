"""Compares an exported file with its network on your pictures: logits and speed, and the rounding error of both.

    python benchmarks/parity.py runs/mine thyroid.onnx DATA [--pictures 9]

DATA is a folder in the plain layout, of which evenly spaced pictures of each task are taken. "Exact" is the same network
in float64: its difference from the float32 network is rounding, which no export can undo.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from propl_monai import TASKS, Predictor, read_image
from propl_monai.deploy.exportable import ExportableNetwork
from propl_monai.deploy.parity import onnx_runner, program_runner


def chosen(data: Path, code: str, count: int) -> list[Path]:
    """At most `count` pictures of a task, evenly spaced in the order of their names."""
    found = sorted(data.glob(f"{code}/*/images/*.*"))
    return [found[index] for index in np.linspace(0, len(found) - 1, min(count, len(found))).round().astype(int)]


@torch.inference_mode()
def main() -> None:
    """Compare and print."""
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("weights", type=Path, help="folder of a training, or its model.safetensors")
    reader.add_argument("file", type=Path, help="its export, .onnx or .pt2")
    reader.add_argument("data", type=Path, help="folder of images in the plain layout")
    reader.add_argument("--pictures", type=int, default=9, help="per task")
    given = reader.parse_args()
    predictor = Predictor.from_bundle(given.weights, device="cpu", engine="torch")
    run = onnx_runner(given.file) if given.file.suffix == ".onnx" else program_runner(given.file)
    exact = ExportableNetwork(predictor.network, predictor.decoder).double()
    differences: dict[str, list[float]] = {"file, network": [], "network, exact": [], "file, exact": []}
    logits: list[float] = []
    seconds = {"network": 0.0, "file": 0.0}
    for task in TASKS:
        number = torch.tensor([predictor.tasks.index(task.name)])
        for path in chosen(given.data, task.code, given.pictures):
            image = torch.as_tensor(predictor.prepare(read_image(path)).image)[None].contiguous()
            begun = time.perf_counter()
            network = predictor.network(image, task=number, decoder=predictor.decoder).double()
            between = time.perf_counter()
            found = run(image, number).double()
            seconds["network"] += between - begun
            seconds["file"] += time.perf_counter() - between
            wanted = exact(image.double(), number)
            pairs = ((found, network), (network, wanted), (found, wanted))
            for values, (one, other) in zip(differences.values(), pairs, strict=True):
                values.append(float((one - other).abs().max()))
            logits += [float(wanted.min()), float(wanted.max())]
    print(
        f"{len(logits) // 2} pictures, logits from {min(logits):.0f} to {max(logits):.0f}; largest difference of a logit"
    )
    for name, values in differences.items():
        print(f"{name:<15} largest {max(values):.1e}  median {np.median(values):.1e}")
    for name, taken in seconds.items():
        print(f"{name:<15} {len(logits) / 2 / taken:.1f} pictures/s, one at a time")


if __name__ == "__main__":
    main()
