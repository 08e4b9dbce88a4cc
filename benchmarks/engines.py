"""Compares the two engines on your pictures: pixels of the masks that differ, and the time of each step.

    python -m benchmarks.engines ROOT [--weights runs/mine] [--pictures 25]

ROOT is a folder in the plain layout, of which evenly spaced pictures of each task are predicted for that task.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from scipy.ndimage import binary_dilation, binary_erosion

from benchmarks.parity import chosen
from propl_monai import TASKS, Predictor, read_image

ENGINES = ("onnx", "torch")
STEPS = ("to the grid", "network", "to the picture")


def main() -> None:
    """Compare and print."""
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("data", type=Path, help="folder of images in the plain layout")
    reader.add_argument("--weights", type=Path, help="folder of a training, or its weights; default: the package's own")
    reader.add_argument("--pictures", type=int, default=25, help="per task")
    given = reader.parse_args()
    made = [
        Predictor.from_bundle(given.weights, engine=name, device="cpu")
        if given.weights
        else Predictor(engine=name, device="cpu")
        for name in ENGINES
    ]
    seconds = np.zeros((len(ENGINES), len(STEPS)))
    differing, off_edge, levels, largest = [], 0, 0, 0.0
    pixels = 0
    for task in TASKS:
        for path in chosen(given.data, task.code, given.pictures):
            picture = read_image(path)
            masks, grids = [], []
            for number, predictor in enumerate(made):
                laps = [time.perf_counter()]
                prepared = predictor.prepare(picture)
                laps.append(time.perf_counter())
                maps = predictor.maps([prepared], [task.name])[0]
                laps.append(time.perf_counter())
                (found,) = predictor.finish(prepared, maps, [task.name])
                laps.append(time.perf_counter())
                seconds[number] += np.diff(laps)
                masks.append(found)
                grids.append(np.asarray(prepared.image))
            changed = masks[0].mask != masks[1].mask
            edge = binary_dilation(masks[1].mask) & ~binary_erosion(masks[1].mask)
            differing.append(int(changed.sum()))
            off_edge += int((changed & ~edge).sum())
            levels += int((np.abs(grids[0] - grids[1]) > 1e-4).sum())
            largest = max(largest, float(np.abs(masks[0].probability - masks[1].probability).max()))
            pixels += changed.size
    equal = sum(count == 0 for count in differing)
    print(f"{len(differing)} pictures, {pixels / 1e6:.1f} million pixels: {equal} masks are equal in every pixel,")
    print(
        f"the others differ in {max(differing)} pixels at most, {sum(differing)} in all, {off_edge} of them off the edge"
    )
    print(f"largest difference of a probability {largest:.1e}; pixels of the grid that differ: {levels}")
    for name, row in zip(ENGINES, 1000 * seconds / len(differing), strict=True):
        print(f"{name}: " + ", ".join(f"{step} {value:.1f} ms" for step, value in zip(STEPS, row, strict=True)))


if __name__ == "__main__":
    main()
