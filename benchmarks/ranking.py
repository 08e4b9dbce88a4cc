"""Do labels help more in the order of `propl rank` than in a random order?

    python -m benchmarks.ranking DATA OUT --datalist DATALIST [--seeds 0,1,2] [--strategies random,diversity,…] [--units 1]

Train pictures with masks play the part of pictures without. A network is trained, supervised, on the labels of 1/16 of them;
then in rounds each task gets the labels of another 5 % of its train pictures, the first in the order of a strategy by the
network of the round before, and a new network is trained from ImageNet weights on all labels so far. Every strategy and round
is tested on the test split and set against `random` case by case, over all seeds; each seed has labels of its own to start
from. Call it again after a stop, or with `--units 1` for one piece of work at a time (a training with its test, or a ranking
of all tasks): what is done stays done.
"""

from __future__ import annotations

import csv
import json
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

import typer

from propl_monai import Predictor
from propl_monai.common.bundle_command import read_settings
from propl_monai.common.files import lock_folder, write_atomically
from propl_monai.common.options import pairs, words
from propl_monai.common.packaged_bundle import packaged_bundle
from propl_monai.data.cases import Case
from propl_monai.data.datalist import Datalist
from propl_monai.data.splits import labelled_images, unit_interval
from propl_monai.datasets.cohort import open_datalist
from propl_monai.errors import ProPLError
from propl_monai.evaluation.grids import markdown_table, number, percent
from propl_monai.evaluation.lab.finished_runs import RunResult, read_run
from propl_monai.evaluation.lab.one_run import Lab, do_run
from propl_monai.evaluation.lab.run_results import MODELS, RUN
from propl_monai.evaluation.lab.statistics import SURE, difference, holm, score
from propl_monai.evaluation.lab.variants import Run, Variant
from propl_monai.inference.ranking.rank_paths import rank_paths
from propl_monai.inference.ranking.strategies import STRATEGIES, find_strategy
from propl_monai.tasks import NAMES, find

START = "start"
SALT = "propl-monai-benchmark-ranking-1"
BUDGET = "short"  # of the lab: 500 steps at 128 px
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """What is measured; the same whenever the work is taken up again.

    Attributes:
        start: share of the train pictures with labels at the beginning.
        step: share of the train pictures of each task that a round adds.
        rounds: their number.
        preset: of the bundle.
        settings: config keys of every training.
    """

    start: str
    step: float
    rounds: int
    preset: str
    settings: dict[str, Any]


@dataclass(frozen=True)
class Unit:
    """One piece of work: a training with its test, or the ranking that it needs."""

    strategy: str
    round: int
    seed: int
    ranks: bool = False

    def __str__(self) -> str:
        return f"{'rank' if self.ranks else 'train'} {self.strategy}, round {self.round}, seed {self.seed}"


@dataclass(frozen=True)
class Bench:
    """The folder of a measurement.

    Attributes:
        folder: of all that is made.
        datalist: with all masks, verified.
        plan: what is measured.
    """

    folder: Path
    datalist: Datalist
    plan: Plan

    def units(self, strategies: Sequence[str], seeds: Sequence[int]) -> Iterator[Unit]:
        """All work, each after what it needs; the first seed comes first."""
        for seed in seeds:
            yield Unit(START, 0, seed)
            for number_of_round in range(1, self.plan.rounds + 1):
                for strategy in strategies:
                    yield Unit(strategy, number_of_round, seed, ranks=True)
                    yield Unit(strategy, number_of_round, seed)

    def do(self, unit: Unit) -> None:
        """Rank all tasks, or train and test."""
        if unit.ranks:
            self._rank(unit)
        else:
            path = self._path("lists", unit, ".json")
            with_labels(self.datalist, self.labels(unit)).write(path)
            do_run(self._lab(unit, path), self._run(unit), lambda: None)

    def is_done(self, unit: Unit) -> bool:
        """Whether nothing is left to do."""
        return (self._choice(unit) if unit.ranks else self.result(unit)).is_file()

    def result(self, unit: Unit) -> Path:
        """The run.json of a training."""
        return self._lab(unit, None).folder(self._run(unit)) / RUN

    def labels(self, unit: Unit) -> set[str]:
        """The cases whose labels a training has: those of the start, and what its strategy chose in all rounds so far."""
        found = start_labels(self.datalist.cases, self.plan.start, unit.seed)
        for number_of_round in range(1, unit.round + 1):
            found |= set(json.loads(self._choice(replace(unit, round=number_of_round)).read_text()))
        return found

    def _before(self, unit: Unit) -> Unit:
        first = unit.round == 1
        return replace(unit, strategy=START if first else unit.strategy, round=unit.round - 1, ranks=False)

    def _rank(self, unit: Unit) -> None:
        before, strategy = self._before(unit), find_strategy(unit.strategy)
        engine = {"engine": "torch", "uncertainty_of": strategy.uncertainty_of or "views", "batch": 16}
        predictor = Predictor.from_bundle(self.result(before).parent / MODELS, **engine)
        has, chosen = self.labels(before), []
        for task in dict.fromkeys(case.task for case in self.datalist.cases):
            cases = [case for case in self.datalist.select("train", [task]).cases if case.mask]
            count = max(1, round(self.plan.step * len(cases)))
            by_file = {str(self.datalist.root / case.image): case.case_id for case in cases}
            waiting = [file for file, case_id in by_file.items() if case_id not in has]
            if not waiting:
                continue
            table = self._path("orders", unit, f"/{find(task).slug}.csv")
            known = [file for file, case_id in by_file.items() if case_id in has]
            rank_paths(predictor, waiting, table, task, unit.strategy, labelled=known, first=count, seed=unit.seed)
            with table.open(newline="") as stream:
                chosen += [by_file[row["file"]] for row in csv.DictReader(stream)]
        write_atomically(self._choice(unit), json.dumps(chosen).encode())

    def _path(self, kind: str, unit: Unit, end: str) -> Path:
        return self.folder / kind / f"{unit.strategy}-{unit.round}-seed-{unit.seed}{end}"

    def _choice(self, unit: Unit) -> Path:
        """The cases that a ranking chose."""
        return self._path("orders", unit, ".json")

    def _lab(self, unit: Unit, datalist: Path | None) -> Lab:
        runs = self.folder / "runs" / f"{unit.strategy}-{unit.round}"
        return Lab(packaged_bundle(), self.datalist.root, runs, datalist, self.plan.preset, self.plan.settings)

    def _run(self, unit: Unit) -> Run:
        # The whole datalist was verified; one with fewer masks needs no look of its own.
        free = {"allow_unverified": True}
        keys = {"use_unlabelled": False, "labelled_batch_size": 8, **free}
        title = f"labels chosen by {unit.strategy}, {unit.round} rounds"
        return Run(Variant("ranked", title, "supervised", keys, evaluate=free), Fraction(1), unit.seed, BUDGET)


def start_labels(cases: Sequence[Case], share: str, seed: int) -> set[str]:
    """The cases whose labels are there at the beginning: as `labelled_images`, but other ones for each seed."""
    places = {case.image_sha256: unit_interval(SALT, str(seed), case.image_sha256) for case in cases}
    return labelled_images([replace(case, labelled_place=places[case.image_sha256]) for case in cases], share)


def with_labels(datalist: Datalist, chosen: set[str]) -> Datalist:
    """The datalist with the masks of these train cases alone, and of all that is held out."""
    cases = [
        case if case.split != "train" or case.case_id in chosen else replace(case, mask=None, mask_sha256=None)
        for case in datalist.cases
    ]
    return replace(datalist, cases=tuple(cases), place=None)


def table(bench: Bench, strategies: Sequence[str], seeds: Sequence[int]) -> tuple[list[dict[str, Any]], str]:
    """A row for the start and for each round and strategy, and all of them as Markdown; of the seeds that are done."""
    rows: list[dict[str, Any]] = []
    units = [
        Unit(START, 0, 0),
        *(Unit(name, turn, 0) for turn in range(1, bench.plan.rounds + 1) for name in strategies),
    ]
    runs = {(unit.strategy, unit.round): _runs(bench, unit, seeds) for unit in units}
    for (strategy, turn), some in runs.items():
        if not some:
            continue
        scores = score(some).loc[SURE]
        row = {"strategy": strategy, "round": turn, "seeds": [run.seed for run in some]}
        row |= {"labels": [len(bench.labels(Unit(strategy, turn, run.seed))) for run in some]}
        row |= {key: scores[key] for key in ("dice", "dice_low", "dice_high")}
        against = difference(some, runs.get(("random", turn), [])) if strategy not in (START, "random") else None
        if against is not None:
            gain = against.table.loc[SURE]
            row |= {f"gain{end}": gain[f"dice{end}"] for end in ("", "_low", "_high")} | {"p": against.p}
        rows.append(row)
    for row, corrected in zip(rows, holm([row.get("p") for row in rows]), strict=True):
        row["p_corrected"] = corrected
    head = ["labels", "order", "seeds", "Dice % [95 % CI]", "minus random [95 % CI]", "p, corrected"]
    lines = []
    for row in rows:
        labels = sum(row["labels"]) / len(row["labels"])
        gain = percent(row, "gain", sign="+") if "gain" in row else number(None)
        p = number(row["p_corrected"], digits=3)
        lines.append([f"{labels:.0f}", row["strategy"], str(len(row["seeds"])), percent(row, "dice"), gain, p])
    return rows, markdown_table(head, lines)


def _runs(bench: Bench, unit: Unit, seeds: Sequence[int]) -> list[RunResult]:
    paths = [bench.result(replace(unit, seed=seed)) for seed in seeds]
    found = [read_run(path) for path in paths if path.is_file()]
    return [run for run in found if run is not None]


def keep_plan(folder: Path, plan: Plan, sha256: str) -> None:
    """Write down what is measured; refuse to go on with something else."""
    path, now = folder / "plan.json", {**asdict(plan), "datalist_sha256": sha256}
    then = json.loads(path.read_text()) if path.is_file() else now
    if other := [f"{key} {then.get(key)!r}, now {now[key]!r}" for key in now if then.get(key) != now[key]]:
        raise ProPLError(path, f"was begun with {', '.join(other)}", "give another folder")
    write_atomically(path, json.dumps(now, indent=2).encode())


def main(
    data: Annotated[Path, typer.Argument(help="Folder of the images.")],
    output: Annotated[Path, typer.Argument(help="Folder for all that is made; given again, the work goes on.")],
    datalist: Annotated[Path | None, typer.Option(help="Verified, of these images; default: one is made.")] = None,
    strategies: Annotated[str, typer.Option(help="Comma-separated; random is what they are set against.")] = ",".join(
        ["random", *(name for name in STRATEGIES if name != "random")]
    ),
    seeds: Annotated[str, typer.Option(help="Comma-separated.")] = "0,1,2",
    start: Annotated[str, typer.Option(help="Labelled share at the beginning.")] = "1/16",
    step: Annotated[float, typer.Option(help="Share of the train pictures of a task that a round adds.")] = 0.05,
    rounds: Annotated[int, typer.Option(help="Number of rounds.")] = 2,
    preset: Annotated[str, typer.Option(help="Of the bundle.")] = "compact",
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Config key=value of every training, such as epochs=1.")
    ] = None,
    units: Annotated[int | None, typer.Option(help="Stop after so many pieces of work.")] = None,
) -> None:
    """Do what is not done, and print the table of what is."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s  %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("propl_monai").setLevel(logging.ERROR)  # these pictures have labels: nobody need hear of them
    names = [find_strategy(name).name for name in words(strategies)]
    numbers = [int(seed) for seed in words(seeds)]
    with lock_folder(output):
        whole = open_datalist(str(data), str(datalist) if datalist else None, str(output), NAMES)
        given = read_settings(
            packaged_bundle(), ["train", *words(preset), "supervised"], pairs("--set", settings or [])
        )
        bench = Bench(output, whole, Plan(start, step, rounds, preset, given))
        keep_plan(output, bench.plan, whole.sha256)
        left = [unit for unit in bench.units(names, numbers) if not bench.is_done(unit)]
        for unit in left[:units]:
            begun = time.monotonic()
            bench.do(unit)
            typer.echo(f"{unit}: {time.monotonic() - begun:.0f} s; {len(left) - left.index(unit) - 1} left")
        rows, text = table(bench, names, numbers)
        write_atomically(output / "ranking.json", json.dumps(rows, indent=2).encode())
        write_atomically(output / "ranking.md", f"{text}\n".encode())
    typer.echo(text)


if __name__ == "__main__":
    typer.run(main)
