"""Reading runs: what is taken, what is passed over, and that every broken or foreign run is refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_runs import cases, write_run

from propl_monai.errors import ProPLError
from propl_monai.lab.results import cases_frame, read_run, read_runs


def alter(path: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return path


def test_a_run_is_read_whole(tmp_path: Path) -> None:
    path = write_run(tmp_path, "propl", "1/8", seed=2)
    (run,) = read_runs(tmp_path)
    assert (run.path, run.variant, run.fraction, run.seed, run.budget) == (path, "propl", "1/8", 2, "short")
    assert run.images_seen == {"labelled": 4000, "unlabelled": 4000} and run.steps == 500
    assert len(run.cases) == 8 * 12 * 2 and len(run.curve) == 5
    missed = run.cases[run.cases["status"] == "missed"]
    assert len(missed) and missed["hd95_grid"].isna().all() and run.cases["dice"].dtype == np.float64


def test_other_verbs_and_unfinished_runs_are_passed_over(tmp_path: Path) -> None:
    write_run(tmp_path, "propl")
    write_run(tmp_path, "supervised", verb="train")
    write_run(tmp_path, "prompt-none", status="running")
    assert [run.variant for run in read_runs(tmp_path)] == ["propl"]


def test_runs_come_sorted_by_number_not_by_text(tmp_path: Path) -> None:
    for fraction in ("1/4", "1/16", "1/8"):
        write_run(tmp_path, "propl", fraction)
    write_run(tmp_path, "propl", "1/8", seed=1)
    assert [(run.fraction, run.seed) for run in read_runs(tmp_path)] == [
        ("1/16", 0),
        ("1/8", 0),
        ("1/8", 1),
        ("1/4", 0),
    ]


def test_fractions_have_one_spelling(tmp_path: Path) -> None:
    path = alter(write_run(tmp_path, "propl"), lambda c: c["options"].update(labelled_fraction="0.125"))
    run = read_run(path)
    assert run is not None and run.fraction == "1/8"


def test_cases_frame_has_a_line_a_case_and_run(tmp_path: Path) -> None:
    write_run(tmp_path, "propl")
    write_run(tmp_path, "supervised")
    frame = cases_frame(read_runs(tmp_path))
    assert list(frame.columns[:5]) == ["budget", "variant", "fraction", "seed", "case"]
    assert frame.groupby("variant").size().to_dict() == {"propl": 192, "supervised": 192}


def test_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(ProPLError, match="is not a folder"):
        read_runs(tmp_path / "absent")
    with pytest.raises(ProPLError, match="no finished run"):
        read_runs(tmp_path)


def without_a_column(content: dict[str, Any]) -> None:
    del content["results"]["cases"]["iou"]


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        (lambda c: c.update(options=None), "has no options"),
        (lambda c: c["options"].pop("budget"), "options without budget"),
        (lambda c: c["results"].pop("split"), "results without split"),
        (lambda c: c["results"].update(steps="many"), "steps of another form"),
        (lambda c: c["results"].update(images_seen=5), "images_seen of another form"),
        (lambda c: c["options"].update(seed=None), "seed of another form"),
        (lambda c: c["options"].update(labelled_fraction="all"), "is not a number"),
        (lambda c: c["results"].update(cases=None), "cases without columns"),
        (without_a_column, "cases without columns iou"),
        (lambda c: c["results"]["cases"]["case"].pop(), "columns of cases of 191 to 192 rows"),
        (lambda c: c["results"]["cases"]["task"].__setitem__(0, "breast"), "unknown task 'breast'"),
        (lambda c: c["results"]["cases"]["status"].__setitem__(0, "lost"), "unknown status 'lost'"),
        (lambda c: c["results"]["cases"]["dice"].__setitem__(0, None), "Dice or IoU that is missing"),
        (lambda c: c["results"]["cases"]["dice"].__setitem__(0, 71.0), "not from 0 to 1"),
        (lambda c: c["results"]["cases"]["dice"].__setitem__(0, "high"), "a score is not a number"),
        (lambda c: c["results"]["cases"]["dice"].__setitem__(0, float("nan")), "NaN is not a JSON number"),
    ],
)
def test_a_broken_run_is_refused(tmp_path: Path, change: Callable[[dict[str, Any]], Any], fact: str) -> None:
    alter(write_run(tmp_path, "propl"), change)
    with pytest.raises(ProPLError, match=fact):
        read_runs(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[1]"])
def test_a_broken_file_is_named(tmp_path: Path, text: str) -> None:
    path = write_run(tmp_path, "propl")
    path.write_text(text)
    with pytest.raises(ProPLError) as error:
        read_runs(tmp_path)
    assert error.value.where == str(path)


@pytest.mark.parametrize(
    ("changes", "fact"),
    [
        ({"datalist_sha256": "b" * 64}, "datalist"),
        ({"split": "validation"}, "split"),
        ({"split": "external"}, "but evaluated on 'external'"),
        ({"options": {"leave_out": ["busi"]}}, "but evaluated on 'test'"),
        ({"cases": cases(0.0, groups=11)}, "other test cases"),
        ({"options": {"preset": "default"}}, "preset default"),
    ],
)
def test_runs_that_do_not_belong_into_one_table(tmp_path: Path, changes: dict[str, Any], fact: str) -> None:
    write_run(tmp_path, "propl")
    write_run(tmp_path, "supervised", **changes)
    with pytest.raises(ProPLError, match=fact):
        read_runs(tmp_path)


def test_two_runs_of_one_cell(tmp_path: Path) -> None:
    write_run(tmp_path / "here", "propl")
    write_run(tmp_path / "there", "propl")
    with pytest.raises(ProPLError, match="the same variant, fraction, seed and budget"):
        read_runs(tmp_path)


def test_seeds_of_one_row_share_their_options(tmp_path: Path) -> None:
    write_run(tmp_path, "propl", seed=0)
    write_run(tmp_path, "propl", seed=1, options={"overrides": {"passes": 3}})
    with pytest.raises(ProPLError, match="other options than"):
        read_runs(tmp_path)
