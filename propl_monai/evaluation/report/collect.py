"""What only the network can tell: calibration on all evaluated pictures, and the masks of the cases that are shown.

The temperature is fitted before the first evaluated picture is opened.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from propl_monai.data import transforms
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
from propl_monai.evaluation.metrics import overlap
from propl_monai.evaluation.panels import best_median_worst
from propl_monai.evaluation.report.run_files import EVALUATE_AGAIN, RunFiles
from propl_monai.images import read_image, to_grey
from propl_monai.inference.inferer import PromptInferer
from propl_monai.inference.postprocess import RestoreSized
from propl_monai.model.network import ProPL
from propl_monai.model.weights import load_network

FITTED_ON = "validation"
DICE_TOLERANCE = 0.05  # another device moves a few pixels of an edge; another picture or mask moves more
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
    """What a pass over the pictures gave; `prompts` are the sentences that were asked, by task."""

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
    network, header = load_network(weights)
    if absent := [key for key in ("spatial_size", "normalisation") if key not in header]:
        raise ProPLError(weights, f"does not say its {' and '.join(absent)}", "train again with this version")
    datalist = Datalist.read(datalist_file, data)
    fitting, measured = _items(files, datalist, datalist_file)
    decoder = files.evaluation_record["results"].get("about", {}).get("decoder") or network.chosen_decoder
    run = _Pass(network, header, decoder, progress, len(fitting) + len(measured))
    temperature = _fit(run, fitting)
    wanted = ranks_to_show(files) if pictures else {}
    tasks, shown = _measure(run, measured, files.task_names, temperature, wanted)
    calibration = Calibration(files.measured_on, temperature, len(fitting), tasks)
    return Collected(prompts_of(network), calibration, _checked(shown, wanted, files))


class _Pass:
    """The network over some items, one picture a time, as the evaluation does it."""

    def __init__(self, network: ProPL, header: Mapping[str, Any], decoder: str, progress: Progress, total: int) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")  # as the configs choose it
        self.network = network.to(self.device)
        self.load = transforms.evaluation(header["spatial_size"], header["normalisation"])
        self.restore, self.inferer = RestoreSized("pred"), PromptInferer(decoder=decoder)
        self.progress, self.done, self.total = progress, 0, total

    @torch.inference_mode()
    def logits(self, item: Item) -> tuple[NDArray[np.float64], Mask]:
        """Logits and reference of a picture, both (H, W) at its own size."""
        loaded = self.load(item)
        grid = self.inferer(loaded["image"][None].to(self.device), self.network, task=[item["task"]])[0]
        whole = self.restore({"pred": grid.cpu(), "original_size": loaded["original_size"]})["pred"][0].double().numpy()
        if not np.isfinite(whole).all():
            raise ProPLError(item["case_id"], "the network gives logits that are not finite", "train again")
        self.done += 1
        self.progress(self.done, self.total)
        return whole, loaded["label"][0].numpy() > 0


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


def _fit(run: _Pass, items: Sequence[Item]) -> float | None:
    histograms: dict[str, LogitHistogram] = {}
    for item in items:
        histograms.setdefault(item["task"], LogitHistogram()).add(*run.logits(item))
    return fit_temperature(histograms.values()) if histograms else None


def _measure(
    run: _Pass, items: Sequence[Item], names: Sequence[str], temperature: float | None, wanted: Mapping[str, str]
) -> tuple[dict[str, TaskCalibration], dict[str, tuple[Item, Mask, Mask]]]:
    """The calibration of each task, and prediction and reference of the wanted cases by their ids."""
    plain = {name: ReliabilityCounts() for name in names}
    scaled = {name: ReliabilityCounts() for name in names}
    kept: dict[str, tuple[Item, Mask, Mask]] = {}
    for item in items:
        logits, reference = run.logits(item)
        plain[item["task"]].add(logits, reference)
        if temperature is not None:
            scaled[item["task"]].add(logits, reference, temperature)
        if item["case_id"] in wanted:
            kept[item["case_id"]] = (item, logits > 0, reference)
    tasks = {}
    for name in names:
        after = scaled[name].reliability() if temperature is not None else None
        tasks[name] = TaskCalibration(plain[name].images, plain[name].reliability(), after)
    return tasks, {case: kept[case] for case in wanted}


def ranks_to_show(files: RunFiles) -> dict[str, str]:
    """The ranks of the cases to show, by id: task by task, from best to worst."""
    ranks: dict[str, list[str]] = {}
    for name in files.task_names:
        for rank, case in best_median_worst(files.cases, name).items():
            ranks.setdefault(case, []).append(rank)
    return {case: " and ".join(words) for case, words in ranks.items()}


def _checked(kept: Mapping[str, tuple[Item, Mask, Mask]], ranks: Mapping[str, str], files: RunFiles) -> list[Shown]:
    """The cases to show, whose masks have the Dice of the table."""
    dice = dict(zip(files.cases["case"], files.cases["dice"], strict=True))
    convention = files.evaluation_record["options"].get("metric_convention", "standard")
    shown = []
    for case, (item, prediction, reference) in kept.items():
        found, _ = overlap(int((prediction & reference).sum()), int((prediction ^ reference).sum()), convention)
        if abs(found - dice[case]) > DICE_TOLERANCE:
            fact = f"has a Dice of {found:.3f} now, {dice[case]:.3f} in cases.csv"
            raise ProPLError(case, fact, f"its picture or mask was changed since; {EVALUATE_AGAIN}")
        picture = to_grey(read_image(item["image"]).pixels)
        shown.append(Shown(item["task"], ranks[case], case, dice[case], picture, prediction, reference))
    return shown


def prompts_of(network: ProPL) -> dict[str, str]:
    """The sentence of each task, where the network is asked in words."""
    if network.prompts is None or network.prompts.mode != "text":
        return {}
    facts = network.prompts.bank.describe()
    return dict(zip(facts["tasks"], facts["sentences"], strict=True))


def _task_json(part: TaskCalibration) -> dict[str, Any]:
    found: dict[str, Any] = {"images": part.images}
    for name, reliability in (("plain", part.plain), ("scaled", part.scaled)):
        found[name] = (
            None
            if reliability is None
            else {
                "expected_error": reliability.expected_error,
                "average_error": reliability.average_error,
                "share": reliability.share.tolist(),
                "predicted": reliability.predicted.tolist(),
                "observed": reliability.observed.tolist(),
            }
        )
    return found
