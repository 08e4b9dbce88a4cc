"""Weights as they ship with the package: both decoders in half precision, with what that costs and where they are from."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from propl_monai.common.files import file_sha256, write_atomically
from propl_monai.common.run_record import read_object
from propl_monai.data.datalist import as_items
from propl_monai.datasets.cohort import datalist_of_training
from propl_monai.deploy.export import PACKAGES
from propl_monai.deploy.onnx_graph import make_graph
from propl_monai.deploy.parity import compare, parity_inputs, require, safetensors_runner
from propl_monai.errors import ProPLError
from propl_monai.images import read_image, read_mask
from propl_monai.inference.predictor import Predictor
from propl_monai.model.bundle_folder import describe_bundle, find_weights, write_checksum
from propl_monai.model.weights import WEIGHTS, copy_aside, load_network, save_safetensors

LARGEST_LOSS = 0.002  # mean Dice that a task may lose
MEASURED_ON = "validation"  # the test split is not looked at
RECORD = "run.json"
NAME_IT = "name the folder of a training"
KEPT = ("status", "started", "seconds", "commit", "versions")  # of a training's run.json
PLACES = ("_dir", "_file", "_weights", "prompts")  # endings of options that name a place on one machine
Progress = Callable[[int, int], None]


def ship(
    run: Path | str,
    data: Path | str,
    output: Path | str,
    datalist_file: Path | str | None = None,
    progress: Progress = lambda done, total: None,
) -> dict[str, Any]:
    """Write `model.safetensors`, kernels and matrices in float16, with `model.sha256`, which `Predictor()` checks.

    Beside them goes their ONNX form, `model.graph.onnx`, see `onnx_graph`.

    The header holds that of the training, and `halved`: hash of the full weights, largest difference of a probability,
    and mean Dice before and after by task; and `training`: hash and main entries of its run.json, without places.

    Args:
        run: folder of a training, with `models/model.safetensors` and run.json, or `train/run.json`.
        data: folder of the images, whose validation cases are predicted by both.
        output: folder, such as `models` of a bundle; weights that it holds are copied to its `previous`, and scores with
            them (`propl known` fits new ones).
        datalist_file: of the training; None for the one beside its run.json, or else the folder as it is.
        progress: called with (cases done, in all).

    Returns:
        The entries `halved` and `training`, the file's `bytes` and `sha256`, and `graph`, the path of the ONNX form.
    """
    require(*PACKAGES)
    run, output = Path(run), Path(output)
    weights = find_weights(run)
    if weights.resolve() == (output / WEIGHTS).resolve():
        raise ProPLError(weights, "is the file that is halved", "choose another output folder")
    record = next((path for path in (run / RECORD, run / "train" / RECORD) if path.is_file()), run / RECORD)
    training = _training(record)
    network, header = load_network(weights)
    network.require_decoder("mean", str(weights))
    beside = record.with_name("datalist.json")
    listed = datalist_file or (beside if beside.is_file() else None)
    datalist = datalist_of_training(data, listed, header.get("datalist_sha256"))
    items = as_items([case for case in datalist.select(MEASURED_ON).cases if case.mask], datalist.root)
    with tempfile.TemporaryDirectory() as scratch:
        candidate = Path(scratch) / WEIGHTS
        save_safetensors(network, candidate, header, half=True)
        halved = {"full_weights_sha256": file_sha256(weights), **_measure(weights, candidate, items, progress)}
        own = {key: value for key, value in header.items() if key not in ("architecture", "decoder")}
        save_safetensors(network, candidate, {**own, "halved": halved, "training": training}, half=True)
        content, sha256 = candidate.read_bytes(), file_sha256(candidate)
    copy_aside(output)
    write_atomically(output / WEIGHTS, content)
    write_checksum(output / WEIGHTS, sha256)
    graph = make_graph(describe_bundle(output / WEIGHTS))
    return {"halved": halved, "training": training, "bytes": len(content), "sha256": sha256, "graph": graph}


def _training(path: Path) -> dict[str, Any]:
    """The entries of a run.json that say how weights were made, without the names of folders."""
    record = read_object(path, NAME_IT)
    if record.get("verb") != "train":
        raise ProPLError(path, "is not the run.json of a training", NAME_IT)
    options = {key: value for key, value in record["options"].items() if not key.endswith(PLACES)}
    about = {key: record.get(key) for key in KEPT} | {"cases": record["results"].get("cases")}
    return {"run_sha256": file_sha256(path), **about, "options": options}


def _measure(full: Path, half: Path, items: Sequence[Mapping[str, Any]], progress: Progress) -> dict[str, Any]:
    """What halving costs: on noise, and on cases with a mask."""
    before, after = (Predictor.from_bundle(path, device="cpu", engine="torch") for path in (full, half))
    inputs = parity_inputs(len(before.tasks), before.spatial_size, before.normalisation)
    noise = compare(before.network, safetensors_runner(half), inputs)
    dice: dict[str, list[tuple[float, float]]] = defaultdict(list)
    largest = 0.0
    for number, item in enumerate(items, start=1):
        picture, reference = read_image(item["image"]), read_mask(item["label"])
        one, other = (predictor.predict([picture], item["task"])[0][0] for predictor in (before, after))
        largest = max(largest, float(np.abs(one.probability - other.probability).max()))
        dice[item["task"]].append((_dice(one.mask, reference), _dice(other.mask, reference)))
        progress(number, len(items))
    means = {task: [float(value) for value in np.mean(pairs, axis=0)] for task, pairs in dice.items()}
    found = {
        "measured_on": f"{MEASURED_ON} split, {len(items)} cases",
        "largest_probability_difference": largest,
        "largest_probability_difference_on_noise": noise["largest_probability_difference"],
        "largest_dice_difference_of_a_case": max(abs(a - b) for pairs in dice.values() for a, b in pairs),
        "mean_dice": {task: {"full": a, "half": b, "difference": b - a} for task, (a, b) in means.items()},
    }
    lost = {task: a - b for task, (a, b) in means.items() if a - b > LARGEST_LOSS}
    if lost:
        fact = ", ".join(f"{task} loses {value:.4f} Dice" for task, value in lost.items())
        raise ProPLError(full, f"in half precision {fact}, where {LARGEST_LOSS} is allowed", "ship the full weights")
    return found


def _dice(mask: np.ndarray, reference: np.ndarray) -> float:
    """Both empty counts as 1."""
    total = int(mask.sum()) + int(reference.sum())
    return 2 * int((mask & reference).sum()) / total if total else 1.0
