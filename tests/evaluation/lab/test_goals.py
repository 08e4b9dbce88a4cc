"""The table of goals on made-up runs: each goal is judged by its own number, and what is not run is not reached."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from fake_runs import cases, write_run

from propl_monai.evaluation.lab.comparison import read_comparisons
from propl_monai.evaluation.lab.goals import goals_table
from propl_monai.evaluation.lab.tables import make_tables
from propl_monai.evaluation.lab.variants import FRACTIONS

LEVELS = {"supervised": 0.0, "propl-paper": -0.01, "propl": 0.03, "mean-teacher": 0.005, "supervised-all": 0.032}


def write(folder: Path, levels: dict[str, float], seeds: int = 3, **changes: Any) -> None:
    for name, gain in levels.items():
        for fraction in ["1"] if name == "supervised-all" else FRACTIONS:
            for seed in range(seeds):
                write_run(folder, name, fraction, seed, cases=cases(gain, seed), **changes)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("goals")
    write(folder, LEVELS)
    write_run(folder, "prompt-none", cases=cases(-0.25))
    return folder


def rows_of(folder: Path) -> pd.DataFrame:
    table = goals_table(read_comparisons(folder, resamples=100)["short"])
    assert table is not None
    return pd.DataFrame(table.rows).set_index(["variant", "labelled_fraction"])


def test_each_method_is_judged_at_each_fraction(runs: Path) -> None:
    rows = rows_of(runs)
    assert sorted(set(rows.index.get_level_values(0))) == ["mean-teacher", "propl"]
    winner = rows.loc["propl", "1/8"]
    mean = {name: pd.concat([pd.DataFrame(cases(LEVELS[name], seed)) for seed in range(3)]) for name in LEVELS}
    mdice = {name: frame.groupby("task")["dice"].mean().mean() for name, frame in mean.items()}
    assert winner["baseline_mdice_gain"] == pytest.approx(mdice["propl"] - mdice["supervised"])
    assert winner["paper_mdice_gain"] == pytest.approx(mdice["propl"] - mdice["propl-paper"])
    assert winner["share_of_all_labels"] == pytest.approx(mdice["propl"] / mdice["supervised-all"])
    gains = (
        mean["propl"].groupby("task")["dice"].mean() - mean["supervised"].groupby("task")["dice"].mean()
    ).sort_values()
    assert (winner["worst_task"], winner["worst_gain"]) == (gains.index[0], pytest.approx(gains.iloc[0]))
    assert winner["baseline_gain_low"] < winner["baseline_gain"] < winner["baseline_gain_high"]
    assert winner["missed"] == "" and rows.loc["propl", "1/16"]["missed"] == ""
    assert "mDice +2 over supervised" in rows.loc["mean-teacher", "1/8"]["missed"]
    assert "mDice +2" not in rows.loc["mean-teacher", "1/4"]["missed"]  # there any gain will do
    assert "99.5 % of all labels" in rows.loc["mean-teacher", "1/4"]["missed"]


def test_the_table_says_the_goals_and_the_control(runs: Path, tmp_path: Path) -> None:
    written = make_tables(read_comparisons(runs, resamples=100), tmp_path)
    assert tmp_path / "short" / "goals.csv" in written
    text = (tmp_path / "short" / "tables.md").read_text()
    assert text.index("## Goals") < text.index("## Table 1")
    assert "| propl, 1/16 | +" in text and "96 % at 1/16, 98.5 % at 1/8, 99.5 % at 1/4" in text
    assert "without a prompt the heart loses 28." in text and "as it should" in text
    assert (tmp_path / "short" / "tables.html").read_text().count("Goals: do unlabelled images pay?") >= 2


def test_what_is_missing_or_unequal_is_a_missed_goal(tmp_path: Path) -> None:
    write(tmp_path, {"supervised": 0.0, "mean-teacher": 0.04}, seeds=1)
    write(tmp_path, {"propl": 0.04}, seeds=1, images_seen={"labelled": 4000, "unlabelled": 8000})
    rows = rows_of(tmp_path)
    missed = rows.loc["mean-teacher", "1/8"]["missed"]
    for goal in ("98.5 % of all labels", "above propl-paper", "3 seeds with supervised", "3 seeds with propl-paper"):
        assert goal in missed
    assert "equally many images" not in missed and "equally many images" in rows.loc["propl", "1/8"]["missed"]
    assert "above supervised" not in missed and rows.loc["propl", "1/8"]["paper_seeds"] == 0


def test_a_task_behind_is_named(tmp_path: Path) -> None:
    write(tmp_path, {"supervised": 0.0}, seeds=1)
    fallen = cases(0.04)
    fallen["dice"] = [
        max(0.0, dice - 0.08) if task == "ovarian tumor" and dice else dice
        for dice, task in zip(fallen["dice"], fallen["task"], strict=True)
    ]
    for fraction in FRACTIONS:
        write_run(tmp_path, "propl", fraction, cases=fallen)
    row = rows_of(tmp_path).loc["propl", "1/8"]
    assert row["worst_task"] == "ovarian tumor" and row["worst_gain"] < -0.03
    assert "no task over 1 point behind" in row["missed"] and "above supervised" not in row["missed"]


def test_without_three_fractions_there_is_no_table(tmp_path: Path) -> None:
    for name in ("supervised", "propl"):
        write_run(tmp_path, name)
    assert goals_table(read_comparisons(tmp_path, resamples=100)["short"]) is None
