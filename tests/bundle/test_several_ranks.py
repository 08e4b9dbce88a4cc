"""Processes that work together do what one does, and agree with each other; gloo on a CPU."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import apart
import numpy as np
import pandas
import pytest
import torch
from bundle_tools import BUNDLE, SMALL, configs
from factories import TINY_ENCODER, write_small_bundle

from propl_monai.model.weights import STATE, load_state
from propl_monai.training.pseudo_labels import path_of, read

pytestmark = pytest.mark.slow
HERE = Path(__file__).parent
SGD = {"_target_": "torch.optim.SGD", "params": "$@method.parameters()", "lr": 0.05, "momentum": 0.9}
# BatchNorm cannot take a 1 × 1 deepest map of one image alone, the share of a rank at the end: 64 px, not 32.
COMMON: dict[str, Any] = {**SMALL, "spatial_size": "[64,64]", "encoder": TINY_ENCODER, "labelled_fraction": "1/4"}
EVALUATED = {"tasks": "['left atrium','left ventricle','thyroid nodule','fetal head']", "spatial_size": "[32,32]"}


def launch(ranks: int, run_id: str, names: tuple[str, ...], extra: Path, **options: object) -> tuple[int, list[str]]:
    """One entry of the list that `rank_tools` takes; `extra` is the last config."""
    files = configs(*names)[:-1] + f", '{extra}']"
    given = [part for key, value in {**COMMON, **options}.items() for part in (f"--{key}", str(value))]
    return ranks, ["run", run_id, "--bundle_root", str(BUNDLE), "--config_file", files, *given]


def run(launches: list[tuple[int, list[str]]]) -> subprocess.CompletedProcess:
    return apart.run(
        HERE / "rank_tools.py", [json.dumps(launches)], timeout=1800
    )  # nine runs, on a machine that may be busy


def with_diary(folder: Path, name: str, **config: object) -> Path:
    """A config file that adds a `Diary` of a training, which writes into `<folder>/<name>-diary`."""
    diary = folder / f"{name}-diary"
    diary.mkdir()
    handler = {"_target_": "rank_tools.Diary", "folder": str(diary), "places": ["@output_dir", "@model_dir"]}
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"+train#handlers": [{**handler, "method": "@method_def"}], **config}))
    return path


@pytest.fixture(scope="module")
def runs(phantom_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All runs of this file, each in a sub-folder of its name: what one process imports serves them all."""
    folder = tmp_path_factory.mktemp("ranks")
    same = {"method_def#_target_": "rank_tools.SameOnAnyRanks", "optimizer": SGD}
    bad = {"method_def#_target_": "rank_tools.BadOnOneRank"}
    multi = (*("train", "compact"), "multi_gpu_train")
    teacher = (*multi[:2], "mean_teacher", multi[2])
    views = (*multi[:2], "propl_views", multi[2])
    same_views = {
        "method_def#_target_": "rank_tools.SameViewsOnAnyRanks",
        "optimizer": SGD,
        "views": ["as-is", "mirror"],
    }
    same_views["cutmix"] = 0.0  # drawn for the images of a rank
    write_small_bundle(folder / "small")

    def places(name: str, models: str = "") -> dict[str, Any]:
        model_dir = folder / (models or name) / "models"
        return {"dataset_dir": phantom_folder, "output_dir": folder / name, "model_dir": model_dir}

    def evaluating(ranks: int, name: str, *more: str) -> tuple[int, list[str]]:
        extra = folder / f"{name}.json"
        handler = {"_target_": "rank_tools.Diary", "folder": str(folder / f"{name}-diary"), "places": ["@output_dir"]}
        (folder / f"{name}-diary").mkdir()
        extra.write_text(json.dumps({"+evaluate#handlers": [handler]}))
        names = ("train", "compact", "evaluate", *more)
        return launch(ranks, "evaluating", names, extra, **EVALUATED, **places(name, "small"))

    fixed = {"epochs": 2, "steps_per_epoch": 3}
    launches = [
        launch(1, "training", multi[:2], with_diary(folder, "one", **same), **fixed, **places("one")),
        launch(2, "training", multi, with_diary(folder, "two", **same), **fixed, **places("two")),
        launch(1, "training", views[:3], with_diary(folder, "views-one", **same_views), **fixed, **places("views-one")),
        launch(2, "training", views, with_diary(folder, "views-two", **same_views), **fixed, **places("views-two")),
        launch(2, "training", views, with_diary(folder, "views"), **fixed, **places("views")),
        launch(2, "training", multi, with_diary(folder, "bad", **bad), epochs=2, **places("bad")),
        launch(2, "training", teacher, with_diary(folder, "teacher"), **fixed, **places("teacher")),
        evaluating(1, "table-one"),
        evaluating(3, "table-three", "multi_gpu_evaluate"),
    ]
    done = run(launches)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return folder


def diary(folder: Path, name: str, rank: int) -> dict[str, list]:
    return json.loads((folder / f"{name}-diary" / f"{rank}.json").read_text())


def record(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run.json").read_text())


def test_two_ranks_do_the_steps_of_one(runs: Path) -> None:
    """Where nothing depends on who shares a batch with whom: losses, averaged over ranks, and weights to 1e-5."""
    one = diary(runs, "one", 0)["losses"]
    ranks = [diary(runs, "two", rank)["losses"] for rank in (0, 1)]
    assert len(one) == 6 and max(one) - min(one) > 0.01
    assert np.mean(ranks, axis=0) == pytest.approx(one, abs=1e-5)
    assert ranks[0] != pytest.approx(one, abs=1e-3)  # each has images of its own
    first, second = (load_state(runs / name / STATE)["method"] for name in ("one", "two"))
    assert first.keys() == second.keys()
    for key, values in first.items():
        torch.testing.assert_close(second[key], values, rtol=0, atol=1e-5, msg=key)


def test_two_ranks_share_a_round_of_one(runs: Path) -> None:
    """Pseudo-labels of the same pictures in the same order, and steps that learn the same from them, up to rounding."""
    (about, one), (other, two) = (read(path_of(runs / name, 1)) for name in ("views-one", "views-two"))
    assert about["case_ids"] == other["case_ids"] and len(about["case_ids"]) % 2  # unequal shares
    assert one.pseudo_label.unique().numel() > 5
    assert (one.pseudo_label.int() - two.pseudo_label.int()).abs().max() <= 1
    torch.testing.assert_close(two.picture_weight, one.picture_weight, rtol=0, atol=0.02)
    losses = diary(runs, "views-one", 0)["losses"]
    ranks = [diary(runs, "views-two", rank)["losses"] for rank in (0, 1)]
    assert len(losses) == 6
    assert np.mean(ranks, axis=0) == pytest.approx(losses, abs=1e-5)
    assert ranks[0] != pytest.approx(losses, rel=1e-3)


@pytest.mark.parametrize("name", ["two", "bad", "teacher", "views", "views-two"])
def test_ranks_agree_after_every_epoch(runs: Path, name: str) -> None:
    """To the bit, running statistics and the teacher's average included."""
    first, second = (diary(runs, name, rank)["states"] for rank in (0, 1))
    assert len(first) == len(set(first)) == 2
    assert first == second


def test_a_short_last_batch_and_a_step_that_is_bad_on_one_rank(runs: Path) -> None:
    first, second = (diary(runs, "bad", rank)["losses"] for rank in (0, 1))
    results = record(runs / "bad")["results"]
    unlabelled = results["cases"]["unlabelled"]
    assert unlabelled % 4 and unlabelled > results["cases"]["labelled"]
    assert len(first) == len(second) == results["steps"] == 2 * -(-unlabelled // 4)
    assert np.isinf(second[1]) and np.isfinite(first).all()
    assert results["skipped_steps"] == 1


@pytest.mark.parametrize(("name", "ranks"), [("two", 2), ("bad", 2), ("views", 2), ("table-three", 3)])
def test_one_rank_writes(runs: Path, name: str, ranks: int) -> None:
    first, *others = [diary(runs, name, rank)["written"] for rank in range(ranks)]
    assert any("run.json" in file for file in first)
    assert others == [[]] * (ranks - 1)


def test_three_ranks_make_the_table_of_one(runs: Path) -> None:
    """To the last byte: each case goes through the network alone, on any number of ranks."""
    one, three = runs / "table-one", runs / "table-three"
    cases = pandas.read_csv(one / "cases.csv")
    assert len(cases) % 3 == 2 and cases["dice"].nunique() > 5  # shares of different size, rows that differ
    for name in ("cases.csv", "table.csv", "table.md"):
        assert (three / name).read_bytes() == (one / name).read_bytes()
    assert record(three)["status"] == "finished" and record(three)["results"] == record(one)["results"]
