"""Reading runs: what is taken, what is passed over, and that every broken or foreign run is refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fake_runs import cases, write_cases, write_run

from propl_monai.errors import ProPLError
from propl_monai.evaluation.lab.finished_runs import read_run, read_runs


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


def test_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(ProPLError, match="is not a folder"):
        read_runs(tmp_path / "absent")
    with pytest.raises(ProPLError, match="no finished run"):
        read_runs(tmp_path)


def option(**values: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda content: content["options"].update(values)


def result(**values: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda content: content["results"].update(values)


def alter_cases(path: Path, change: Callable[[dict[str, list[Any]]], Any]) -> Path:
    """Change the columns of the table beside a run.json, and the hash in it."""
    columns = pd.read_csv(path.with_name("cases.csv"), dtype=object).to_dict("list")
    change(columns)
    return alter(path, result(cases_sha256=write_cases(path, columns)))


def column(**values: Any) -> Callable[[dict[str, Any]], Any]:
    """Whole columns of the cases."""
    return lambda columns: columns.update(values)


def first_case(**values: Any) -> Callable[[dict[str, Any]], Any]:
    """The first case, which is a hit."""

    def change(columns: dict[str, Any]) -> None:
        assert columns["status"][0] == "ok"
        for name, value in values.items():
            columns[name][0] = value

    return change


def point(**values: Any) -> Callable[[dict[str, Any]], Any]:
    """The only epoch of the curve."""
    sound = {"epoch": 1, "iteration": 100, "seconds": 9.5, "validation": {"sd": 0.5}, "losses": {}}
    return result(curve=[sound | values])


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        (lambda c: c.update(options=None), "options is None, not an object"),
        (lambda c: c.update(options=["variant"]), r"options is \['variant'\], not an object"),
        (lambda c: c.pop("options"), "has no options"),
        (lambda c: c.update(commit=["a"]), r"commit is \['a'\], not a line of text, or null"),
        (lambda c: c["options"].pop("budget"), "options without budget"),
        (option(variant=3), "variant is 3, not a name"),
        (option(title=None), "title is None, not a line of text"),
        (option(title="\ud800"), "title is .*, not a line of text"),  # no file and no terminal would take it
        (option(budget=None), "budget is None, not a name"),
        (option(budget="../../evil"), "budget is '../../evil', not a name"),
        (option(budget=".."), r"budget is '\.\.', not a name"),
        (option(overrides=[]), r"overrides is \[\], not an object"),
        (option(seed=None), "seed is None, not a whole number"),
        (option(seed=0.5), "seed is 0.5, not a whole number"),
        (option(seed=True), "seed is True, not a whole number"),
        (option(seed=-1), "seed is -1, not a whole number"),
        (option(labelled_fraction="all"), "labelled_fraction: 'all' is not a number"),
        (option(labelled_fraction="7"), "labelled_fraction: 7 is not above 0 and at most 1"),
        (option(labelled_fraction=None), "labelled_fraction is None, not a fraction"),
        (option(leave_out="TG3K"), "leave_out is 'TG3K', not a list, or null"),
        (option(leave_out=[1]), "leave_out.0 is 1, not a line of text"),
        (lambda c: c["results"].pop("split"), "results without split"),
        (result(steps="many"), "steps is 'many', not a whole number from 0 to 2.53, or null"),
        (result(steps=0.5), "steps is 0.5, not a whole number"),
        (result(seconds_training=-1), "seconds_training is -1, not a number from 0"),
        (result(peak_memory_mb=10**400), "peak_memory_mb is 1000.*, not a number from 0"),
        (result(images_seen=5), "images_seen is 5, not an object with labelled and unlabelled"),
        (result(images_seen={"labelled": 5}), "images_seen without unlabelled"),
        (result(images_seen={"labelled": "5", "unlabelled": 0}), "images_seen.labelled is '5', not a whole number"),
        (result(datalist_sha256=None), "datalist_sha256 is None, not 64 hexadecimal digits"),
        (result(decoder=None), "decoder is None, not sd, pd, mean or main"),
        (result(best_validation_mdice=71.0), "best_validation_mdice is 71.0, not a number from 0 to 1, or null"),
        (result(recipe=[1]), r"recipe is \[1\], not an object"),
        (result(curve=[1]), "curve.0 is 1, not an epoch"),
        (point(seconds=None), "curve.0.seconds is None, not a number from 0"),
        (point(validation={"mean": "x"}), "curve.0.validation.mean is 'x', not a number from 0 to 1, or null"),
        (point(losses=None), "curve.0.losses is None, not an object"),
        (option(budget="short\n"), "budget is .*, not a name"),
        (result(cases=None), "cases is None, not columns of cases"),
        (result(cases={"dice": 3}), "cases.dice is 3, not a list"),
        (result(seconds_training=float("nan")), "NaN is not a JSON number"),
    ],
)
def test_a_broken_run_is_refused(tmp_path: Path, change: Callable[[dict[str, Any]], Any], fact: str) -> None:
    path = alter(write_run(tmp_path, "propl"), change)
    with pytest.raises(ProPLError, match=fact) as error:
        read_runs(tmp_path)
    assert error.value.where == str(path)


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        (lambda columns: columns.pop("iou"), "has no column iou"),
        (lambda columns: [values.clear() for values in columns.values()], "no cases in the table"),
        (first_case(case=None), "a case without a name"),
        (first_case(task="breast"), "unknown task 'breast'"),
        (first_case(status="lost"), "unknown status 'lost'"),
        (first_case(dice=None), "case BC-0-0: no finite dice"),
        (first_case(dice="inf"), "case BC-0-0: no finite dice"),
        (first_case(dice="much"), "no table of cases .*'much'"),
        (first_case(dice=71.0), "dice of 71, not from 0 to 1"),
        (first_case(iou=True), "no table of cases .*'True'"),
        (first_case(hd95_grid=-5), "hd95_grid of -5, not from 0"),
        (first_case(diagonal_grid=None), "case BC-0-0: no finite diagonal_grid"),
        (first_case(hd95_px=None), "case BC-0-0: no finite hd95_px"),
        (first_case(status="missed"), "case BC-0-0 is 'missed' with a Dice of 0.7"),
        (first_case(status="missed", dice=1.0, hd95_px=None, hd95_grid=None), "'missed' with a Dice of 1, HD95 nan px"),
        (first_case(status="false alarm", dice=0.0, hd95_grid=None), "'false alarm' with a Dice of 0, HD95"),
        (first_case(status="both empty", dice=0.0, hd95_px=None, hd95_grid=None), "'both empty' with a Dice of 0"),
        (first_case(status="missed", dice=0.0, hd95_px=None), "'missed' with a Dice of 0, HD95 nan px"),
        (first_case(case="BC-0-1"), "case BC-0-1, breast cancer: scored more than once"),
    ],
)
def test_a_broken_table_of_cases_is_refused(tmp_path: Path, change: Callable[[dict[str, Any]], Any], fact: str) -> None:
    path = alter_cases(write_run(tmp_path, "propl"), change)
    with pytest.raises(ProPLError, match=fact) as error:
        read_runs(tmp_path)
    assert error.value.where.split(", case ")[0] == str(path.with_name("cases.csv"))


def test_a_table_of_another_run_is_refused(tmp_path: Path) -> None:
    path = write_run(tmp_path, "propl")
    write_cases(path, cases(0.5))
    with pytest.raises(ProPLError, match=r"is not the table of cases that run\.json beside it was written with"):
        read_runs(tmp_path)
    path.with_name("cases.csv").unlink()
    with pytest.raises(ProPLError, match="is not the table of cases"):
        read_runs(tmp_path)


def test_runs_of_older_versions_hold_their_cases(tmp_path: Path) -> None:
    path = write_run(tmp_path, "propl")
    before = read_run(path)
    alter(path, result(cases=cases(0.012)))
    path.with_name("cases.csv").unlink()
    after = read_run(path)
    assert before is not None and after is not None
    pd.testing.assert_frame_equal(after.cases, before.cases)
    alter(path, lambda content: content["results"]["cases"]["case"].pop())
    with pytest.raises(ProPLError, match="cases is no table") as error:
        read_run(path)
    assert error.value.where == str(path)


def test_what_a_run_may_lack(tmp_path: Path) -> None:
    """No training of its own, no spacing, no patients, no validation; and a thin mask that vanishes on the grid."""
    nothing = dict.fromkeys(("steps", "seconds_training", "peak_memory_mb", "parameters", "best_epoch"))
    path = alter(write_run(tmp_path, "propl"), result(**nothing))
    alter_cases(path, column(group=[None] * 192, hd95_mm=[None] * 192, diagonal_mm=[None] * 192))
    alter_cases(path, first_case(hd95_grid=None))
    alter(path, point(validation=None))
    run = read_run(path)
    assert run is not None and run.steps is None and run.cases["diagonal_mm"].dtype == np.float64


@pytest.mark.parametrize("text", ["", "{", "[1]", "[" * 100_000])
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
    with pytest.raises(ProPLError, match=r"options .*passes.*, but .* has "):
        read_runs(tmp_path)


@pytest.mark.parametrize(
    ("name", "changes", "refused"),
    [
        ("propl", {"learning_rate": 0.1}, True),  # what every row shares
        ("supervised", {"learning_rate": 0.1}, True),
        ("supervised", {"cutmix": 0.5}, False),  # of another method
        ("prompt-none", {"cutmix": 0.5}, True),
        ("cutmix", {"cutmix": 0.5}, False),  # what the row is for
        ("film-supervised", {"network": "film", "method": "supervised"}, False),
        ("supervised", {"seed": 3, "method": "supervised", "labelled_fraction": "1/4"}, False),
    ],
)
def test_rows_of_other_recipes_are_refused(tmp_path: Path, name: str, changes: dict[str, Any], refused: bool) -> None:
    recipe = {"learning_rate": 0.001, "cutmix": 0.0, "seed": 0, "method": "propl", "labelled_fraction": "1/8"}
    write_run(tmp_path, "propl", seed=0, recipe=recipe)
    write_run(tmp_path, name, seed=1, recipe=recipe | changes)
    if not refused:
        assert len(read_runs(tmp_path)) == 2
        return
    (key, value), *_ = changes.items()
    with pytest.raises(ProPLError, match=f"was trained with {key} .*{value}"):
        read_runs(tmp_path)


def test_rows_of_one_method_may_have_networks_of_their_own(tmp_path: Path) -> None:
    """Whose options have one name, and whose only decoder is called main; two rows of one network may not differ."""
    for name, channels in (("uniseg", None), ("meduniseg", 100)):
        curve = [{"epoch": 1, "iteration": 100, "seconds": 9.5, "validation": {"main": 0.5}, "losses": {}}]
        recipe = {"prompt_channels": channels, "network": name}
        write_run(tmp_path, name, recipe=recipe, decoder="main", curve=curve)
    assert [run.decoder for run in read_runs(tmp_path)] == ["main", "main"]
    write_run(tmp_path, "uniseg", seed=1, recipe={"prompt_channels": 50, "network": "uniseg"}, decoder="main")
    with pytest.raises(ProPLError, match="was trained with prompt_channels 50"):
        read_runs(tmp_path)


def test_a_recipe_may_differ_in_another_budget(tmp_path: Path) -> None:
    write_run(tmp_path, "propl", recipe={"epochs": 5})
    write_run(tmp_path, "propl", budget="long", recipe={"epochs": 60})
    assert len(read_runs(tmp_path)) == 2
