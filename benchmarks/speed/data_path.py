"""Whether training is ever starved: seconds of its loader and of a step on as many pictures, and what the cache holds."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.speed.clock import seconds
from benchmarks.speed.workloads import Work, build
from propl_monai.data.datalist import as_items
from propl_monai.data.loaders import DrawnDataset, PairedLoader
from propl_monai.data.transforms import training
from propl_monai.datasets.phantoms.write_phantoms import write_phantoms
from propl_monai.datasets.sources.registry import read_source

CASES = 24  # of each task
ORIGINAL = 512  # pixels of a side of a phantom on disk
# Views of the presets, as in the bundle's train.json and compact.json: the costliest that each asks for.
VIEWS: dict[str, dict[str, dict[str, Any]]] = {
    "paper": {"labelled": {"normalisation": "imagenet"}, "unlabelled": {"normalisation": "imagenet"}},
    "compact": {
        "labelled": {"normalisation": "half", "flip": 0.5, "photometric": 0.5},
        "unlabelled": {"normalisation": "half", "flip": 0.5, "strong_view": 0.5},
    },
}


def data_path(work: Work, calls: int, steps: int = 12) -> dict[str, Any]:
    """Measure loader and training step in this process, one after the other, with as many threads.

    Args:
        work: a training step of this package.
        calls: training steps that are timed.
        steps: batches that are timed.

    Returns:
        "loader_seconds" a step of labelled and unlabelled batch together, "step_seconds", "ratio" (how many times faster
        the loader is), and "cache_mb_per_1000", MiB of the cache for 1,000 pictures with masks and without.
    """
    torch.set_num_threads(work.threads)
    with tempfile.TemporaryDirectory() as folder:
        streams = _streams(Path(folder), work)
        labelled, unlabelled = streams["labelled"], streams["unlabelled"]
        loader = PairedLoader(labelled, unlabelled, work.batch, work.batch, seed=0, steps=steps + 1)
        batches = iter(loader)
        next(batches)  # the first one starts threads and loads libraries
        loading = sum(seconds(lambda: next(batches), steps)) / steps
        memory = {name: round(_mb_per_1000(stream), 1) for name, stream in streams.items()}
    call = build(work)
    # A GPU has done the step only when its loss can be read. The first call does not count.
    step = statistics.median(seconds(lambda: float(call()), 1 + calls)[1:])
    return {
        "preset": work.preset,
        "pixels": work.pixels,
        "batch": work.batch,
        "loader_seconds": round(loading, 4),
        "step_seconds": round(step, 4),
        "ratio": round(step / loading, 2),
        "cache_mb_per_1000": memory,
    }


def _streams(folder: Path, work: Work) -> dict[str, DrawnDataset]:
    write_phantoms(folder, CASES, ORIGINAL)
    datalist = read_source("folder", folder)
    items = as_items(datalist.cases, datalist.root)
    unlabelled = [{key: value for key, value in item.items() if key != "label"} for item in items]
    size = (work.pixels, work.pixels)
    return {
        name: DrawnDataset(given, training(size, **VIEWS[work.preset][name]))
        for name, given in (("labelled", items), ("unlabelled", unlabelled))
    }


def _mb_per_1000(stream: DrawnDataset) -> float:
    """Of the tensors that the cache keeps, counted byte by byte."""
    held = sum(value.nbytes for item in stream._cache for value in item.values() if isinstance(value, Tensor))
    return 1000 * held / len(stream) / 2**20
