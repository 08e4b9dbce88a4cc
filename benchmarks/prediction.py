"""Measures how long weights take to open, the gain of predicting tasks together, and the effect of a batch on results.

`python benchmarks/prediction.py runs/mine ROOT` takes eight pictures of every task from a folder in the plain layout, opens
the weights five times, and predicts every task in batches of eight and one by one. Times are of one CPU core.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from propl_monai import TASKS, Predictor, read_image
from propl_monai.inference import decoding

OPENED, DECODED, EACH = 5, 5, 8


def main() -> None:
    """Print the figures of docs/predict.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", help="a bundle, the folder of a training, or a weights file")
    parser.add_argument("root", type=Path, help="of pictures in the plain layout")
    given = parser.parse_args()
    torch.set_num_threads(1)
    opened = [
        _seconds(lambda: Predictor.from_bundle(given.weights, device="cpu", engine="torch"), time.perf_counter)
        for _ in range(OPENED)
    ]
    print(f"opening the weights: {statistics.median(opened):.2f} s, median of {OPENED}")
    _together(given.weights)
    folders = {code: sorted(given.root.glob(f"{code}/*/images")) for code in (task.code for task in TASKS)}
    files = [file for found in folders.values() for folder in found for file in sorted(folder.iterdir())[:EACH]]
    _differences(given.weights, files)


def _seconds(work: Callable[[], object], clock: Callable[[], float]) -> float:
    begun = clock()
    work()
    return clock() - begun


@torch.inference_mode()
def _together(weights: str) -> None:
    """Decode all tasks of one picture, together and one after the other; the shortest of five times."""
    predictor = Predictor.from_bundle(weights, device="cpu", engine="torch")
    image = torch.randn(1, 1, *predictor.spatial_size, generator=torch.Generator().manual_seed(0))
    features = predictor.network.encode(image)
    texts = [predictor.network.text(task, 1) for task in predictor.tasks]
    inferer = decoding.TaskDecoder(decoder=predictor.decoder)
    for rows in (decoding.ROWS, 1):
        decoding.ROWS = rows
        taken = [
            _seconds(lambda: inferer.logits(predictor.network, features, texts), time.process_time)
            for _ in range(DECODED)
        ]
        print(
            f"decoding {len(texts)} tasks of a picture, {rows} together: {1000 * min(taken):.0f} ms of processor time"
        )


def _differences(weights: str, files: Sequence[Path]) -> None:
    pictures = [read_image(file) for file in files]
    alone = Predictor.from_bundle(weights, device="cpu", engine="torch", batch=1)
    together = Predictor.from_bundle(weights, device="cpu", engine="torch", batch=8).predict(
        pictures, list(alone.tasks)
    )
    differences, flipped, pixels = [], 0, 0
    for picture, found in zip(pictures, together, strict=True):
        for one in found:
            other = alone(picture, one.task)
            differences.append(float(np.abs(one.probability - other.probability).max()))
            flipped, pixels = flipped + int((one.mask != other.mask).sum()), pixels + one.mask.size
    print(
        f"{len(pictures)} pictures, {len(alone.tasks)} tasks: a probability differs by {max(differences):.1e} at most,"
    )
    print(f"{flipped} of {pixels / 1e6:.0f} million pixels of the masks change sides")


if __name__ == "__main__":
    main()
