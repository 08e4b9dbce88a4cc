"""Finished runs of a comparison, read from run.json and cases.csv and checked to belong into one table. Imports no torch.

run.json is JSON that a hand or a torn disk may have changed, and its names become folders: what fits
`compare.schema.json` needs no second look elsewhere.
"""

from __future__ import annotations

import json
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from importlib import resources
from pathlib import Path
from typing import Any

import pandas as pd

from propl_monai.common.files import file_sha256
from propl_monai.common.run_record import read_object
from propl_monai.data.splits import parse_fraction
from propl_monai.errors import ProPLError
from propl_monai.evaluation.cases import CASES, parse_cases, read_cases

RUN_AGAIN = "delete the folder of this run and run it again"
VERB = "compare"
# Options that every row of a table shares. All others are shared by the rows of one method and network alone.
SHARED = (
    *("epochs", "steps_per_epoch", "spatial_size", "encoder", "encoder_weights", "normalisation", "decoder_block"),
    *(
        "learning_rate",
        "weight_decay",
        "precision",
        "augmentation",
        "rotation_degrees",
        "scaling",
        "flip",
        "photometric",
        "cutout",
        "balance_tasks",
    ),
)
# what a row is
FREE = ("preset", "method", "network", "seed", "labelled_fraction", "tasks", "leave_out", "use_unlabelled")
EXTERNAL = "external"  # in place of the name of a split, where external data were evaluated


@dataclass(frozen=True, eq=False)
class RunResult:
    """One finished run: a variant trained with some of the labels, from one seed, for one budget, and tested.

    Attributes:
        path: of its run.json.
        variant, title, base, overrides: the row, see `lab.variants`.
        fraction: of the train pictures with labels, as "1/8" or "1".
        images_seen: "labelled" and "unlabelled" training images, counted every time they were seen.
        steps, seconds_training, peak_memory_mb, parameters, best_epoch, best_validation_mdice: of the training; None
            where a variant has no training of its own.
        decoder: that predicted: "sd", "pd" or "mean"; "main" where a network has one.
        curve: one mapping per epoch: epoch, iteration, seconds, validation mDice by decoder, losses.
        recipe: options of the training, resolved; without those that differ between the models of one row.
        commit: of the code that trained; None where it is not known.
        leave_out: the external data that were evaluated and that training did not see; empty for the test split.
        cases: one row per test case, see `evaluation.cases.parse_cases`.
    """

    path: Path
    variant: str
    title: str
    base: str
    overrides: dict[str, Any]
    fraction: str
    seed: int
    budget: str
    preset: str
    images_seen: Mapping[str, int]
    steps: int | None
    seconds_training: float | None
    seconds_evaluation: float | None
    peak_memory_mb: float | None
    parameters: int | None
    decoder: str
    best_epoch: int | None
    best_validation_mdice: float | None
    datalist_sha256: str
    split: str
    curve: Sequence[Mapping[str, Any]]
    cases: pd.DataFrame
    leave_out: tuple[str, ...] = ()
    recipe: Mapping[str, Any] = field(default_factory=dict)
    commit: str | None = None

    @property
    def variance(self) -> float | None:
        """Of UPLC's passes, mean over pixels and steps of the last epoch; None where it is not known."""
        return (self.curve[-1].get("losses") or {}).get("uncertainty") if self.curve else None


def read_runs(folder: Path | str) -> list[RunResult]:
    """Every finished run below a folder, sorted by budget, variant, fraction and seed.

    run.json files of other verbs (the training and the evaluation inside a run) and unfinished ones are passed over.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ProPLError(folder, "is not a folder", "give the folder that `propl compare` wrote to")
    runs = [run for path in sorted(folder.rglob("run.json")) if (run := read_run(path)) is not None]
    if not runs:
        raise ProPLError(folder, "holds no finished run", "run `propl compare` first")
    runs.sort(key=lambda run: (run.budget, run.leave_out, run.variant, parse_fraction(run.fraction), run.seed))
    _check_alike(runs)
    return runs


def read_run(path: Path) -> RunResult | None:
    """The run of a run.json; None if it is of another verb or not finished."""
    content = read_object(path, RUN_AGAIN)
    if content.get("verb") != VERB or content.get("status") != "finished":
        return None
    check_form(path, content)
    options, results = content["options"], content["results"]
    external = options.get("leave_out") or []
    if (results["split"] == EXTERNAL) != bool(external):
        fact = f"leave_out {external!r} in its options, but evaluated on '{results['split']}'"
        raise ProPLError(path, fact, RUN_AGAIN)
    values = {one.name: (options | results).get(one.name) for one in fields(RunResult)}
    values |= {"path": path, "cases": _cases(path, results), "leave_out": tuple(external)}
    values |= {"fraction": _fraction(path, options["labelled_fraction"]), "recipe": results.get("recipe") or {}}
    return RunResult(**values | {"commit": results.get("commit", content.get("commit"))})


def options_of(path: Path, content: Mapping[str, Any]) -> dict[str, Any]:
    """The options of any run.json; the path is its name in messages."""
    if not isinstance(options := content.get("options"), dict):
        raise ProPLError(path, "has no options", RUN_AGAIN)
    return options


def check_form(path: Path, content: Mapping[str, Any]) -> None:
    """Refuse the run.json of a finished run whose values do not fit the schema; the path is its name in messages."""
    try:
        from jsonschema import Draft202012Validator
        from jsonschema.exceptions import best_match
    except ModuleNotFoundError as error:
        raise ProPLError("jsonschema", "is not installed", "pip install 'propl-monai[lab]'") from error
    text = resources.files("propl_monai.evaluation.lab").joinpath("compare.schema.json").read_text(encoding="utf-8")
    problem = best_match(Draft202012Validator(json.loads(text)).iter_errors(content))
    if problem is None:
        return
    name = ".".join(str(key) for key in problem.absolute_path)
    if problem.validator == "required":
        absent = [key for key in problem.validator_value if key not in problem.instance]
        fact = f"{name} without {', '.join(absent)}" if name else f"has no {' and no '.join(absent)}"
    else:
        fact = f"{name} is {reprlib.repr(problem.instance)}, not {problem.schema['description']}"
    raise ProPLError(path, fact, RUN_AGAIN)


def _cases(path: Path, results: Mapping[str, Any]) -> pd.DataFrame:
    """The table beside run.json, as its hash proves. Runs of older versions hold the columns themselves."""
    if "cases" in results:
        try:
            return parse_cases(pd.DataFrame(results["cases"]).to_csv(index=False).encode(), path, RUN_AGAIN)
        except ValueError as error:
            raise ProPLError(path, f"results.cases is no table ({error})", RUN_AGAIN) from error
    table = path.with_name(CASES)
    if not table.is_file() or file_sha256(table) != results.get("cases_sha256"):
        fact = "is not the table of cases that run.json beside it was written with"
        raise ProPLError(table, fact, "copy both files of the run again, or run it again")
    return read_cases(table, RUN_AGAIN)


def _fraction(path: Path, given: str | float) -> str:
    """In its one spelling."""
    try:
        return str(parse_fraction(given))
    except ProPLError as problem:
        raise ProPLError(path, f"labelled_fraction: {problem.fact}", RUN_AGAIN) from problem


def _check_alike(runs: Sequence[RunResult]) -> None:
    """Refuse runs that may not stand in one table."""
    firsts: dict[tuple[Any, ...], RunResult] = {}
    for run in runs:
        first = firsts.setdefault(("data", run.leave_out), run)
        home = (run.budget, run.leave_out)
        row = firsts.setdefault(("row", *home, run.variant, run.fraction), run)
        alike = firsts.setdefault(("home", *home), run)
        for what, other, mine, its, cure in (
            ("datalist", runs[0], run.datalist_sha256[:12], runs[0].datalist_sha256[:12], "keep them in two folders"),
            ("split", first, run.split, first.split, "keep them in two folders"),
            ("preset", alike, run.preset, alike.preset, "keep them in two folders"),
            ("options", row, {"base": run.base} | run.overrides, {"base": row.base} | row.overrides, "run both again"),
        ):
            if mine != its:
                raise ProPLError(run.path, f"{what} {mine}, but {other.path} has {its}", cure)
        for key, value in run.recipe.items():
            if key in FREE or key in run.overrides:
                continue
            kind = () if key in SHARED else (run.base, run.recipe.get("network"))
            of = ("recipe", *home, key, *kind)
            if (other := firsts.setdefault(of, run)).recipe[key] != value:
                fact = f"was trained with {key} {value!r}, but {other.path} with {other.recipe[key]!r}"
                raise ProPLError(run.path, fact, "keep runs of two recipes in two folders")
        if _case_names(run) != _case_names(first):
            raise ProPLError(run.path, f"other test cases than {first.path}", "run again what lacks cases")
        twin = firsts.setdefault(("seed", *home, run.variant, run.fraction, run.seed), run)
        if twin is not run:
            raise ProPLError(run.path, f"the same variant, fraction, seed and budget as {twin.path}", "delete one")


def _case_names(run: RunResult) -> set[tuple[str, str, str]]:
    return set(zip(run.cases["task"], run.cases["source"], run.cases["case"], strict=True))
