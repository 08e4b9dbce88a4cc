"""Every row of the comparison is a method that exists and config keys that exist; the grid has no doubles."""

from __future__ import annotations

import json

import pytest
from factories import ROOT

from propl_monai.errors import ProPLError
from propl_monai.evaluation.lab.variants import budget, grid, table_folder, variant, variants
from propl_monai.training.methods import METHODS

CONFIGS = ROOT / "bundle" / "configs"


@pytest.mark.parametrize("name", variants())
def test_a_row_changes_only_what_exists(name: str) -> None:
    row = variant(name)
    assert row.method in METHODS
    train = json.loads((CONFIGS / "train.json").read_text())
    evaluate = json.loads((CONFIGS / "evaluate.json").read_text())
    presets = [CONFIGS / f"{name}.json" for name in (row.network, row.method)]  # as a run lays them over train.json
    own = {key for preset in presets if preset.is_file() for key in json.loads(preset.read_text())}
    assert set(row.train) <= set(train) | own
    assert {key.lstrip("+") for key in row.evaluate} <= set(train) | set(evaluate)
    assert row.of is None or (variant(row.of).of is None and not row.train)


def test_rows_differ() -> None:
    made = [
        json.dumps([row.method, row.network, row.of, dict(row.train), dict(row.evaluate), row.one_model_a_task])
        for row in variants().values()
    ]
    assert len(set(made)) == len(made)


@pytest.mark.parametrize("name", ["short", "medium", "long"])
def test_a_budget_fixes_the_pictures_seen(name: str) -> None:
    keys = budget(name)
    assert {"epochs", "steps_per_epoch", "labelled_batch_size", "unlabelled_batch_size", "spatial_size"} <= set(keys)


@pytest.mark.parametrize("name", [name for name, row in variants().items() if row.of is None])
def test_every_row_sees_equally_many_pictures_a_step(name: str) -> None:
    keys = {**budget("short"), **variant(name).train}
    unlabelled = keys["unlabelled_batch_size"] if keys.get("use_unlabelled", True) else 0
    assert keys["labelled_batch_size"] + unlabelled == (8 if name == "supervised-half" else 16)


def test_the_grid_has_each_run_once_and_whole_seeds_first() -> None:
    runs = grid(["propl", "supervised", "propl", "supervised-all"], ["1/16", "1/8"], [0, 1], "short")
    folders = [run.folder for run in runs]
    assert len(set(folders)) == len(folders) == 2 * (2 + 2 + 1)
    assert [run.seed for run in runs] == [0] * 5 + [1] * 5
    assert "short/supervised-all/1/seed-0" in folders and "short/propl/1-16/seed-1" in folders


def test_a_row_that_trains_nothing_stands_on_one_that_does() -> None:
    (run,) = grid(["decoder-sd"], ["1/8"], [3], "short")
    assert run.base.folder == "short/propl/1-8/seed-3" and run.base.base == run.base


def test_external_runs_have_a_folder_of_their_own() -> None:
    (run,) = grid(["decoder-sd"], ["1/8"], [0], "short", ["DDTI"])
    assert run.folder == "short-without-DDTI/decoder-sd/1-8/seed-0"
    assert run.base.folder == "short-without-DDTI/propl/1-8/seed-0"
    alike = [["A/b*"], ["A/b?"], ["A", "b"], ["A/b"], ["A-b"], []]
    assert len({table_folder("short", patterns) for patterns in alike}) == len(alike)


@pytest.mark.parametrize(
    ("names", "budget_name", "fact"),
    [(["prompt-onehut"], "short", "did you mean 'prompt-onehot'"), (["propl"], "shrt", "did you mean 'short'")],
)
def test_unknown_names(names: list[str], budget_name: str, fact: str) -> None:
    with pytest.raises(ProPLError, match=fact):
        grid(names, ["1/8"], [0], budget_name)
