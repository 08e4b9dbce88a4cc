"""The runs that are kept in docs/results, and the page that sums them up: its numbers are those of the runs."""

from __future__ import annotations

import re

import pytest
from factories import ROOT

from propl_monai.evaluation.lab.comparison import Comparison, read_comparisons
from propl_monai.evaluation.lab.variants import CONTROLS_AT, variants
from propl_monai.model.networks.library import MODELS

RESULTS = ROOT / "docs" / "results"
NOT_RUN_YET = {
    "csc-pa",
    "univ-full",
    "ddfp",
    *("propl-views", "propl-views-ema", "propl-views-labels"),
    *("prompt-several", "asked-paraphrased-several", "crop-sector"),
    *("fixmatch", "unimatch", "cps", "st-pp", "bcp", "augseg", "film-supervised", "film-fixmatch"),
    *("dodnet", "dodnet-fixmatch", "clip-universal", "clip-universal-fixmatch"),
    *("versemi", "vclipseg"),
    *("uniseg", "meduniseg", "meduniseg-star"),
    *("u2pl", "unimatch-v2"),
    *(f"{name.replace('_', '-')}{kind}" for name in MODELS for kind in ("", "-a-task")),
}
ROW = re.compile(r"^\| `(?P<name>[a-z0-9.-]+)`: .*? \| (?P<seeds>\d) \| (?P<mdice>[\d.]+) \| (?P<sure>[\d.]+) \[")


@pytest.fixture(scope="module")
def kept() -> Comparison:
    return read_comparisons(RESULTS / "short", resamples=100)["short"]


def test_every_control_has_been_run_and_can_be_traced(kept: Comparison) -> None:
    assert kept.names == [name for name in variants() if name not in NOT_RUN_YET]
    assert all(run.commit and run.recipe for cell in kept.cells.values() for run in cell.runs)


def test_every_row_saw_equally_many_images(kept: Comparison) -> None:
    seen = {name: cell.images("labelled") + cell.images("unlabelled") for (name, _), cell in kept.cells.items()}
    assert seen.pop("supervised-half") == 500 * 8  # the row that says so
    assert set(seen.values()) == {500 * 16}


def test_the_page_says_what_the_runs_say(kept: Comparison) -> None:
    lines = (RESULTS / "README.md").read_text(encoding="utf-8").splitlines()
    told = {found["name"]: found for line in lines if (found := ROW.match(line))}
    assert set(told) == set(variants()) - NOT_RUN_YET
    whole = (RESULTS / "tables" / "short" / "tables.md").read_text(encoding="utf-8")
    tables = whole[whole.index("## All methods and controls") :].splitlines()
    for name, found in told.items():
        cell = kept.cell(name, CONTROLS_AT)
        assert cell is not None and cell.seeds == int(found["seeds"])
        assert float(found["mdice"]) == pytest.approx(100 * cell.scores.loc["mean", "dice"], abs=0.051)
        assert f"| {found['mdice']}" in next(line for line in tables if line.startswith(f"| {name}: "))
        assert float(found["sure"]) == pytest.approx(100 * cell.scores.iloc[-1]["dice"], abs=0.051)
