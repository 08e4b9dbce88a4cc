"""Measures the verification of data: milliseconds per pair of image and mask, the search for duplicates, loading a list.

    python benchmarks/verify.py [--pairs 96] [--pictures 10000] [--rows 100000] [--json]

Everything is made in a temporary folder and removed. The pairs are PNG phantoms of 448 × 560 pixels.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from propl_monai.common.files import file_sha256
from propl_monai.data.cases import Case
from propl_monai.data.datalist import Datalist
from propl_monai.datasets.phantoms.phantom import ANATOMIES, make_phantom
from propl_monai.datasets.verification.duplicates import similar_pictures
from propl_monai.datasets.verification.file_checks import THUMBNAIL
from propl_monai.datasets.verification.verify import verify

HEIGHT, WIDTH = 448, 560
GOALS = {"ms_per_pair_per_core": 10.0, "datalist_seconds": 5.0}


def make_pairs(root: Path, count: int) -> Datalist:
    """Write image and mask of `count` phantoms, each a patient of its own."""
    cases = []
    for index in range(count):
        anatomy = list(ANATOMIES)[index % len(ANATOMIES)]
        phantom = make_phantom(anatomy, index, 0, WIDTH)
        task, mask = next(iter(phantom.masks.items()))
        paths = root / f"{index}.png", root / f"{index}_mask.png"
        Image.fromarray(phantom.image[:HEIGHT]).save(paths[0])
        Image.fromarray(mask[:HEIGHT].astype(np.uint8) * 255).save(paths[1])
        image_sha256, mask_sha256 = map(file_sha256, paths)
        cases.append(
            Case(str(index), paths[0].name, paths[1].name, task, "S", str(index), "train", image_sha256, mask_sha256)
        )
    return Datalist(root, tuple(cases), "benchmark")


def make_thumbnails(count: int) -> np.ndarray:
    """Smooth noise in a sector on black, which makes different hearts look alike to a hash."""
    rng = np.random.default_rng(0)
    noise = gaussian_filter(rng.normal(size=(count, *THUMBNAIL)).astype(np.float32), (0, 1.5, 1.5))
    y, x = np.meshgrid(*(np.linspace(-1, 1, length) for length in THUMBNAIL), indexing="ij")
    sector = (np.abs(x) < 0.15 + 0.4 * (y + 1)) & (x**2 + (y + 1) ** 2 < 3.6)
    return np.where(sector, 90 + 250 * noise, 0).clip(0, 255).astype(np.uint8)


def make_list(path: Path, rows: int) -> None:
    """Write a datalist of that many cases, four of a group."""

    def digest(text: str) -> str:
        return hashlib.sha256(text.encode()).hexdigest()

    cases = []
    for index in range(rows):
        name, split = f"case{index:06d}", ("train", "validation", "test")[index // 4 % 3]
        paths = (f"LA/S/{name}", f"LA/S/images/{name}.png", f"LA/S/masks/{name}.png")
        hashes = (digest(name), digest(name + " mask"))
        cases.append(Case(*paths, "left atrium", "S", str(index // 4), split, *hashes, (0.5, 0.5)))
    Datalist(path.parent, tuple(cases), "benchmark").write(path)


def seconds(work: Callable[[], Any]) -> tuple[float, float]:
    """Wall-clock and CPU time of one call; other work on the machine adds to the first."""
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - processor


def measure(pairs: int, pictures: int, rows: int) -> dict[str, float]:
    """All figures."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as folder:
        datalist = make_pairs(Path(folder), pairs)
        verify(datalist, processes=1)  # imports and the disk's cache
        one, one_core = seconds(lambda: verify(datalist, processes=1))
        every, _ = seconds(lambda: verify(datalist, processes=cores))
        thumbnails = make_thumbnails(pictures)
        search, search_core = seconds(lambda: list(similar_pictures(thumbnails, np.arange(pictures))))
        make_list(Path(folder) / "list.json", rows)
        load, load_core = seconds(lambda: Datalist.read(Path(folder) / "list.json"))
    return {
        "cores": cores,
        "pairs": pairs,
        "ms_per_pair_per_core": round(1000 * one_core / pairs, 2),
        "ms_per_pair_one_process": round(1000 * one / pairs, 2),
        "ms_per_pair_all_cores": round(1000 * every / pairs, 2),
        "pictures": pictures,
        "duplicates_seconds_computing": round(search_core, 2),
        "duplicates_seconds": round(search, 2),
        "rows": rows,
        "datalist_seconds_computing": round(load_core, 2),
        "datalist_seconds": round(load, 2),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=96, help="pairs of image and mask")
    parser.add_argument("--pictures", type=int, default=10_000, help="pictures compared with each other")
    parser.add_argument("--rows", type=int, default=100_000, help="cases of the datalist")
    parser.add_argument("--json", action="store_true", help="print JSON only")
    arguments = parser.parse_args()
    figures = measure(arguments.pairs, arguments.pictures, arguments.rows)
    if arguments.json:
        print(json.dumps(figures, indent=1))
        return
    for name, value in figures.items():
        goal = f"   goal: at most {GOALS[name]:g}" if name in GOALS else ""
        print(f"{name:<30}{value:>10g}{goal}")


if __name__ == "__main__":
    main()
