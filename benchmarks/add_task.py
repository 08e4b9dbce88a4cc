"""One task is left out of a training and added back from 5, 10 and 20 labels: what it reaches, and what the others lose.

    python -m benchmarks.add_task DATA OUT --datalist DATALIST              # goes on where it was stopped
    python -m benchmarks.add_task DATA OUT --datalist DATALIST --minutes 60 # begins nothing new after an hour
    python -m benchmarks.add_task DATA OUT --datalist DATALIST --tiny       # does it run? figures mean nothing

For each task: a short training without it (its name is not in the prompt bank either), then for each way, number of labels
and seed an addition by `propl add-task`. The seed draws the labelled pictures, of as many patients as there are, and the
views. A fifth of the labels choose the epoch; the validation split of the other tasks guards these where pictures are
replayed; the test split is only measured on. OUT holds a folder for each unit of work and `table.md`.

Ways: `sentence` learns the new sentence's embedding alone, from the new pictures alone; `replay` trains the decoders and
replays pictures of the other tasks; `decoders` does so with the new pictures alone.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Annotated, Any, cast

import pandas as pd
import torch
import typer

from propl_monai import Predictor
from propl_monai.common.bundle_process import run_bundle_apart
from propl_monai.common.config_values import as_config
from propl_monai.common.files import write_atomically
from propl_monai.common.options import words
from propl_monai.common.packaged_bundle import packaged_bundle
from propl_monai.data.cases import Case
from propl_monai.data.datalist import Datalist, as_items
from propl_monai.data.splits import unit_interval
from propl_monai.deploy.add_task import Sources, Teaching, add_task
from propl_monai.errors import ProPLError
from propl_monai.evaluation.cases import CASES, read_cases
from propl_monai.evaluation.lab.finished_runs import RunResult
from propl_monai.evaluation.lab.statistics import SURE, difference, score
from propl_monai.evaluation.metrics import case_row
from propl_monai.images import read_image, read_mask
from propl_monai.model.prompts import PromptBank
from propl_monai.model.weights import STATE
from propl_monai.tasks import NAMES, find_all

WAYS = ("sentence", "replay", "decoders")
UNLABELLED = 32  # pictures of the new task without a mask


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        data, datalist, output: places.
        base: config keys of the trainings without the task.
        teaching: settings of the additions.
        cases: most test cases of a task that are measured, of different groups first.
    """

    data: Path
    datalist: Datalist
    file: Path
    output: Path
    base: dict[str, Any]
    teaching: Teaching
    cases: int


@dataclass(frozen=True)
class Scored:
    """As much of a `RunResult` as its statistics ask for."""

    path: Path
    seed: int
    cases: pd.DataFrame


def spread(cases: list[Case], salt: str) -> list[Case]:
    """Cases in a random order that is the same everywhere: one of each group, then a second one of each, and so on."""
    rank: dict[str, list[tuple[int, float, Case]]] = {}
    for case in sorted(cases, key=lambda case: unit_interval(salt, case.case_id)):
        rank.setdefault(case.group, []).append((len(rank.get(case.group, [])), unit_interval(salt, case.group), case))
    return [case for _, _, case in sorted((row for rows in rank.values() for row in rows), key=lambda row: row[:2])]


def few_labels(plan: Plan, task: str, labels: int, seed: int) -> Datalist:
    """The task's train split with so many masks, a fifth of them in its validation split, and some pictures without."""
    train = [case for case in plan.datalist.cases if case.task == task and case.split == "train"]
    drawn = spread([case for case in train if case.mask], f"labels {seed}")
    held_out = {case.group for case in drawn[: max(1, labels // 5)]}
    chosen = [case for case in drawn if case.group in held_out][: max(1, labels // 5)]
    chosen += [case for case in drawn if case.group not in held_out][: labels - len(chosen)]
    names = {case.case_id for case in chosen}
    rest = [
        case for case in spread(train, f"others {seed}") if case.case_id not in names and case.group not in held_out
    ]
    bare = [replace(case, mask=None, mask_sha256=None) for case in rest[:UNLABELLED]]
    moved = [replace(case, split="validation" if case.group in held_out else "train") for case in chosen]
    return replace(plan.datalist, cases=(*moved, *bare))


def base_of(plan: Plan, task: str) -> Path:
    """The training without a task; one that was stopped goes on from its last epoch."""
    folder = plan.output / "base" / find_all(task)[0].slug
    done = folder / CASES
    if done.is_file():
        return folder
    bank = PromptBank.load()
    about, kept = bank.describe(), [row for row, name in enumerate(bank.task_names) if name != task]
    names, sentences = ([about[key][row] for row in kept] for key in ("tasks", "sentences"))
    own = PromptBank(
        names, sentences, bank.embeddings[kept], bank.mask[kept], about["encoder"], about["encoder_sha256"]
    )
    own.save(folder / "prompts.safetensors")
    places = {
        "dataset_dir": plan.data,
        "datalist_file": plan.file,
        "output_dir": folder,
        "model_dir": folder / "models",
    }
    keys = {name: as_config(path) for name, path in places.items()}
    keys |= {"prompts": as_config(folder / "prompts.safetensors"), "tasks": names, "resume": (folder / STATE).exists()}
    run_bundle_apart(
        packaged_bundle(), "training", ["train", "compact"], keys | plan.base, folder / "log", lambda: None
    )
    measure(plan, folder, names)
    return folder


def measure(plan: Plan, folder: Path, names: list[str] | tuple[str, ...]) -> None:
    """The scores of a model on test cases of some tasks, into its cases.csv."""
    predictor = Predictor.from_bundle(folder, engine="torch")
    rows = []
    for name in names:
        test = [case for case in plan.datalist.cases if case.task == name and case.split == "test" and case.mask]
        for item in as_items(spread(test, "test")[: plan.cases], plan.datalist.root):
            mask = torch.from_numpy(predictor(read_image(item["image"]), name).mask)
            found = case_row(mask, torch.from_numpy(read_mask(item["label"])), None, where=item["case_id"])
            rows.append({"case": item["case_id"], **{key: item[key] for key in ("task", "source", "group")}, **found})
    write_atomically(folder / CASES, pd.DataFrame(rows).to_csv(index=False, lineterminator="\n").encode())


def add(plan: Plan, task: str, way: str, labels: int, seed: int) -> None:
    """One addition, and its scores on all tasks."""
    folder = place(plan, task, way, labels, seed)
    base = base_of(plan, task)
    listed = folder / "few.json"
    few_labels(plan, task, labels, seed).write(listed)
    part = "sentence" if way == "sentence" else "decoders"
    others = (plan.data, plan.file) if way == "replay" else (None, None)
    sources = Sources(plan.data, listed, *others)
    try:
        add_task(task, folder, sources, base, settings=replace(plan.teaching, seed=seed, part=part))
    except ProPLError as error:
        if "was not learnt" not in error.fact:
            raise
        without_gain(plan, task, base, folder)
    else:
        measure(plan, folder, NAMES)


def place(plan: Plan, task: str, way: str, labels: int, seed: int) -> Path:
    """The folder of an addition."""
    return plan.output / "added" / find_all(task)[0].slug / f"{way}-{labels}-{seed}"


def without_gain(plan: Plan, task: str, base: Path, folder: Path) -> None:
    """Scores where `propl add-task` wrote no model: the new task has none, a Dice of 0, and the others are as they were."""
    test = [case for case in plan.datalist.cases if case.task == task and case.split == "test" and case.mask]
    rows = read_cases(base / CASES)
    nothing = []
    for item in as_items(spread(test, "test")[: plan.cases], plan.datalist.root):
        mask = torch.from_numpy(read_mask(item["label"]))
        found = case_row(torch.zeros_like(mask), mask, None, where=item["case_id"])
        nothing.append({"case": item["case_id"], **{key: item[key] for key in ("task", "source", "group")}, **found})
    frame = pd.concat([rows, pd.DataFrame(nothing)])
    write_atomically(folder / CASES, frame.to_csv(index=False, lineterminator="\n").encode())


def rows_of(plan: Plan, units: list[tuple[str, str, int, int]]) -> list[dict[str, Any]]:
    """One line per task, way and number of labels: Dice of the new task, and what the others gained or lost."""
    lines = []
    for task, way, labels in dict.fromkeys((task, way, labels) for task, way, labels, _ in units):
        folders = {
            seed: place(plan, task, way, labels, seed) for t, w, n, seed in units if (t, w, n) == (task, way, labels)
        }
        there = {seed: folder for seed, folder in folders.items() if (folder / CASES).is_file()}
        if not there:
            continue
        frames = {seed: read_cases(folder / CASES) for seed, folder in there.items()}
        before = read_cases(plan.output / "base" / find_all(task)[0].slug / CASES)
        new = score(_runs({seed: frame[frame["task"] == task] for seed, frame in frames.items()})).loc[task]
        old = {seed: frame[frame["task"] != task] for seed, frame in frames.items()}
        change = difference(_runs(old), _runs(dict.fromkeys(old, before)))
        assert change is not None, "they share their seeds"
        of_tasks = change.table.drop(["mean", SURE])["dice"].astype(float)
        learnt = sum(json.loads((folder / "run.json").read_text())["status"] == "finished" for folder in there.values())
        line: dict[str, Any] = {"task": task, "way": way, "labels": labels, "seeds": len(there), "learnt": learnt}
        line |= {"n": int(new["n"]), "groups": int(new["groups"])}
        line |= {"dice": new["dice"], "low": new["dice_low"], "high": new["dice_high"]}
        mean = change.table.loc[SURE]
        line |= {"others_n": int(mean["n"]), "others": mean["dice"], "others_low": mean["dice_low"]}
        line |= {"others_high": mean["dice_high"], "worst": of_tasks.min(), "worst_task": str(of_tasks.idxmin())}
        lines.append(line)
    return lines


def _runs(frames: dict[int, pd.DataFrame]) -> list[RunResult]:
    return [cast(RunResult, Scored(Path(f"seed {seed}"), seed, frame)) for seed, frame in frames.items()]


def to_markdown(lines: list[dict[str, Any]]) -> str:
    """The table for readers, in percent."""

    def cell(line: dict[str, Any], key: str, sign: str = "") -> str:
        low, high = ("low", "high") if key == "dice" else (f"{key}_low", f"{key}_high")
        ends = "" if pd.isna(line[low]) else f" [{100 * line[low]:{sign}.1f}, {100 * line[high]:{sign}.1f}]"
        return f"{100 * line[key]:{sign}.1f}{ends}"

    head = "| new task | way | labels | seeds (learnt) | n | groups | Dice % [95 % CI] | others: n | change [95 % CI] "
    text = [head + "| worst |", "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|"]
    for line in lines:
        seeds = f"{line['seeds']} ({line['learnt']})"
        worst = f"{100 * line['worst']:+.1f} {line['worst_task']}"
        text.append(
            f"| {line['task']} | {line['way']} | {line['labels']} | {seeds} | {line['n']} | {line['groups']} | "
            f"{cell(line, 'dice')} | {line['others_n']} | {cell(line, 'others', '+')} | {worst} |"
        )
    return "\n".join(text) + "\n"


def main(
    data: Annotated[Path, typer.Argument(help="Folder of the images.")],
    output: Annotated[Path, typer.Argument(help="Folder of all units of work and of the table.")],
    datalist: Annotated[Path, typer.Option(help="Of the images, verified.")],
    tasks: Annotated[str, typer.Option(help="To leave out, one after the other.")] = "FH,TN,OT",
    ways: Annotated[str, typer.Option(help=f"Some of {', '.join(WAYS)}.")] = "sentence,replay",
    labels: Annotated[str, typer.Option(help="Numbers of labelled pictures.")] = "5,10,20",
    seeds: Annotated[int, typer.Option(help="Draws of the labelled pictures.")] = 3,
    pixels: Annotated[int, typer.Option(help="Side of the network's grid.")] = 128,
    steps: Annotated[int, typer.Option(help="Of a training without the task, in rounds of 100.")] = 500,
    epochs: Annotated[int, typer.Option(help="Of an addition, 20 steps each.")] = 3,
    cases: Annotated[int, typer.Option(help="Most test cases of a task.")] = 40,
    minutes: Annotated[float, typer.Option(help="Begin no unit after so long.")] = float("inf"),
    tiny: Annotated[bool, typer.Option("--tiny", help="As small as it can be.")] = False,
) -> None:
    """Do what is missing, and write the table of what is there."""
    each = min(100, steps)
    base: dict[str, Any] = {"labelled_fraction": "1/8", "use_unlabelled": False, "balance_tasks": True}
    base |= {"spatial_size": [pixels, pixels], "steps_per_epoch": each, "epochs": steps // each, "val_interval": steps}
    teaching = Teaching(max_epochs=epochs)
    if tiny:
        base |= {
            "encoder": "test_efficientnet",
            "encoder_weights": "none",
            "spatial_size": [32, 32],
            "decoder_block": "light",
        }
        base |= {"steps_per_epoch": 2, "epochs": 1}
        teaching, cases = replace(teaching, max_epochs=1, steps_per_epoch=2, batch_size=2, tolerance=1.0), min(cases, 2)
    listed = Datalist.read(datalist, data)
    plan = Plan(data, listed, datalist, output, base, teaching, cases)
    names = [task.name for task in find_all(words(tasks), "--tasks")]
    units = list(product(names, words(ways), map(int, words(labels)), range(seeds)))
    units.sort(key=lambda unit: (unit[3], names.index(unit[0])))  # one seed of all, then the next
    begun = time.monotonic()
    for number, unit in enumerate(units, start=1):
        if time.monotonic() - begun > 60 * minutes:
            break
        if not (place(plan, *unit) / CASES).is_file():
            add(plan, *unit)
        typer.echo(f"{number}/{len(units)} {' '.join(map(str, unit))}  {time.monotonic() - begun:.0f} s")
    lines = rows_of(plan, sorted(units, key=units.index))
    write_atomically(output / "table.json", json.dumps(lines, indent=2).encode())
    write_atomically(output / "table.md", to_markdown(lines).encode())
    typer.echo(to_markdown(lines))


if __name__ == "__main__":
    typer.run(main)
