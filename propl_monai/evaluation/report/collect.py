"""What needs the network: calibration on all evaluated pictures, and the masks of the cases that are shown.

The temperature is fitted before the first evaluated picture is opened.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from propl_monai.data.datalist import Datalist, as_items
from propl_monai.datasets.cohort import evaluation_items
from propl_monai.errors import ProPLError
from propl_monai.evaluation.calibration import (
    BINS,
    LogitHistogram,
    Reliability,
    ReliabilityCounts,
    fit_temperature,
    together,
)
from propl_monai.evaluation.cases import CASES, EVALUATE_AGAIN
from propl_monai.evaluation.panels import best_median_worst, check_dice
from propl_monai.evaluation.report.run_files import RunFiles
from propl_monai.images import Picture, read_image, read_mask, to_grey
from propl_monai.inference.postprocess import RestoreSized
from propl_monai.inference.predictor import Predictor

FITTED_ON = "validation"
Mask = NDArray[np.bool_]
Item = dict[str, Any]
Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Shown:
    """A case to look at.

    Attributes:
        task: its task.
        rank: "best", "median" or "worst", or several of them in a task of few cases.
        case: its id.
        dice: of the table.
        picture: (H, W), 0-255.
        prediction, reference: (H, W).
    """

    task: str
    rank: str
    case: str
    dice: float
    picture: NDArray[np.uint8]
    prediction: Mask
    reference: Mask


@dataclass(frozen=True)
class TaskCalibration:
    """Reliability on `images` pictures, of the probabilities as they are and, where there is a temperature, scaled."""

    images: int
    plain: Reliability
    scaled: Reliability | None


@dataclass(frozen=True)
class Calibration:
    """Of one evaluation.

    Attributes:
        measured_on: the split or the external data, in words.
        temperature: fitted on validation pictures that are not measured on; None when there are none.
        fitted_images: how many pictures it was fitted on.
        tasks: by name, in the order of the registry.
    """

    measured_on: str
    temperature: float | None
    fitted_images: int
    tasks: Mapping[str, TaskCalibration]

    def all_tasks(self) -> TaskCalibration:
        """All tasks as one, each weighing the same."""
        parts = list(self.tasks.values())
        scaled = [part.scaled for part in parts if part.scaled is not None]
        return TaskCalibration(
            sum(part.images for part in parts),
            together(part.plain for part in parts),
            together(scaled) if scaled else None,
        )

    def to_json(self) -> dict[str, Any]:
        """Everything as JSON values."""
        rows = {**self.tasks, "all tasks": self.all_tasks()}
        return {
            "schema": 1,
            "bins": BINS,
            "measured_on": self.measured_on,
            "temperature": self.temperature,
            "fitted_on": FITTED_ON,
            "fitted_images": self.fitted_images,
            "tasks": {name: _task_json(part) for name, part in rows.items()},
        }


@dataclass(frozen=True, eq=False)
class Collected:
    """What a pass over the pictures gave; `prompts` are the sentences by task."""

    prompts: Mapping[str, str]
    calibration: Calibration
    shown: Sequence[Shown]


def collect(
    files: RunFiles,
    data: Path,
    weights: Path,
    datalist_file: Path,
    pictures: bool = True,
    progress: Progress = lambda done, total: None,
) -> Collected:
    """Run the evaluated network over the validation pictures and once more over the evaluated ones.

    Args:
        files: of the run.
        data: folder of the pictures.
        weights: that were evaluated, a safetensors file.
        datalist_file: that was evaluated on.
        pictures: keep the best, median and worst case of each task to look at.
        progress: called with (pictures done, in all).
    """
    decoder = files.evaluation_record["results"].get("about", {}).get("decoder")
    predictor = Predictor.from_bundle(weights, decoder=decoder, engine="torch")
    fitting, measured = _items(files, Datalist.read(datalist_file, data), datalist_file)
    counter, total = count(1), len(fitting) + len(measured)

    def step() -> None:
        progress(next(counter), total)

    temperature = temperature_of(predictor, fitting, step) if fitting else None
    ranks = ranks_to_show(files) if pictures else {}
    known = dict(zip(files.cases["case"], files.cases["dice"], strict=True))
    convention = files.evaluation_record["options"].get("metric_convention", "standard")
    counts = CalibrationCounts(temperature)
    shown: dict[str, Shown] = {}
    for item, picture, logits, reference in predict_items(predictor, measured):
        task, case, mask = item["task"], item["case_id"], logits > 0
        counts.add(task, logits, reference)
        if case in ranks:
            check_dice(mask, reference, known[case], case, CASES, EVALUATE_AGAIN, convention)
            shown[case] = Shown(task, ranks[case], case, known[case], to_grey(picture.pixels), mask, reference)
        step()
    calibration = Calibration(files.measured_on, temperature, len(fitting), counts.of(files.task_names))
    return Collected(predictor.network.sentences, calibration, [shown[case] for case in ranks])


class CalibrationCounts:
    """Counts for the reliability of each task, of the probabilities as they are and, with a temperature, scaled."""

    def __init__(self, temperature: float | None) -> None:
        self.temperature = temperature
        self.plain, self.scaled = (defaultdict[str, ReliabilityCounts](ReliabilityCounts) for _ in range(2))

    def add(self, task: str, logits: NDArray[np.float64], reference: Mask) -> None:
        """Count a picture: logits and reference (H, W)."""
        self.plain[task].add(logits, reference)
        if self.temperature is not None:
            self.scaled[task].add(logits, reference, self.temperature)

    def of(self, names: Sequence[str]) -> dict[str, TaskCalibration]:
        """The calibration of these tasks, by name."""
        found = {}
        for name in names:
            after = self.scaled[name].reliability() if self.temperature is not None else None
            found[name] = TaskCalibration(self.plain[name].images, self.plain[name].reliability(), after)
        return found


def temperature_of(predictor: Predictor, items: Sequence[Item], step: Callable[[], None]) -> float:
    """The temperature that fits the items, of validation, best; `step` is called after each of them."""
    histograms: dict[str, LogitHistogram] = defaultdict(LogitHistogram)
    for item, _, logits, reference in predict_items(predictor, items):
        histograms[item["task"]].add(logits, reference)
        step()
    return fit_temperature(histograms.values())


def predict_items(
    predictor: Predictor, items: Sequence[Item]
) -> Iterator[tuple[Item, Picture, NDArray[np.float64], Mask]]:
    """Each item with its picture, its logits and its reference, both (H, W) at the size of the picture."""
    restore = RestoreSized("pred")
    for item in items:
        picture = read_image(item["image"])
        prepared = predictor.prepare(picture)
        maps = predictor.maps([prepared], [item["task"]])[0]
        logits = (
            restore({"pred": maps, "original_size": prepared.size, "sector_box": prepared.box})["pred"][0]
            .double()
            .numpy()
        )
        if not np.isfinite(logits).all():
            raise ProPLError(item["case_id"], "the network gives logits that are not finite", "train again")
        yield item, picture, logits, read_mask(item["label"])


def _items(files: RunFiles, datalist: Datalist, datalist_file: Path) -> tuple[list[Item], list[Item]]:
    """What the temperature is fitted to, and the evaluated cases."""
    measured = evaluation_items(datalist, files.split, files.task_names, files.external)
    evaluated = {item["case_id"] for item in measured}
    if evaluated != set(files.cases["case"]):
        fact = f"holds {len(evaluated)} cases of the {files.measured_on}, cases.csv {len(files.cases)}, or others"
        raise ProPLError(datalist_file, fact, EVALUATE_AGAIN)
    fitting = [
        case for case in datalist.cases if case.split == FITTED_ON and case.mask and case.task in files.task_names
    ]
    return as_items([case for case in fitting if case.case_id not in evaluated], datalist.root), measured


def ranks_to_show(files: RunFiles) -> dict[str, str]:
    """The ranks of the cases to show, by id: task by task, from best to worst."""
    ranks: dict[str, list[str]] = {}
    for name in files.task_names:
        for rank, case in best_median_worst(files.cases, name).items():
            ranks.setdefault(case, []).append(rank)
    return {case: " and ".join(words) for case, words in ranks.items()}


def _task_json(part: TaskCalibration) -> dict[str, Any]:
    return {"images": part.images, "plain": _reliability_json(part.plain), "scaled": _reliability_json(part.scaled)}


def _reliability_json(found: Reliability | None) -> dict[str, Any] | None:
    if found is None:
        return None
    bins = {name: values.tolist() for name, values in vars(found).items()}
    return {"expected_error": found.expected_error, "average_error": found.average_error, **bins}
