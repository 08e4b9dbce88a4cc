"""A whole small grid through the bundle: run once, stopped and started again, with results that say what they are."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import apart
import pandas as pd
import pytest
from factories import ROOT

from propl_monai import tasks
from propl_monai.common.claims import Claim
from propl_monai.common.files import file_sha256
from propl_monai.data.datalist import Datalist
from propl_monai.datasets.cohort import external_cases
from propl_monai.errors import ProPLError
from propl_monai.evaluation.cases import read_cases
from propl_monai.evaluation.lab import one_run as module
from propl_monai.evaluation.lab.comparison import read_comparisons
from propl_monai.evaluation.lab.one_run import Lab, steps_of_tasks
from propl_monai.evaluation.lab.run_grid import compare, compare_all
from propl_monai.evaluation.lab.run_results import images_seen, results_of, unite
from propl_monai.evaluation.lab.variants import grid

BUNDLE = ROOT / "bundle"
SMALL = {
    "spatial_size": [64, 64],
    "epochs": 2,
    "steps_per_epoch": 2,
    "encoder_weights": "none",
    "labelled_fraction": "1/2",
}
NAMES = ["propl", "supervised", "decoder-sd", "asked-wrong"]


@pytest.fixture(scope="module", autouse=True)
def one_start_of_monai() -> Iterator[None]:
    """The runs are processes of their own, but share the import of MONAI."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "run_bundle_apart", apart.run_bundle_apart)
        yield


@pytest.fixture(scope="module")
def made(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Lab, Any]:
    lab = Lab(BUNDLE, phantoms, tmp_path_factory.mktemp("runs"), overrides=SMALL)
    runs = grid(NAMES, ["1/2"], [0], "short")
    return lab, (runs, compare(lab, runs))


def read(lab: Lab, name: str) -> dict[str, Any]:
    return json.loads((lab.runs / "short" / name / "1-2" / "seed-0" / "run.json").read_text())


def test_every_run_is_finished_and_keeps_the_schema(made: Any, check_run_json: Callable[[Path], dict]) -> None:
    lab, (runs, outcome) = made
    assert outcome.failed == () and outcome.elsewhere == ()
    assert list(outcome.done) == [run.folder for run in runs]
    for name in NAMES:
        check_run_json(lab.runs / "short" / name / "1-2" / "seed-0" / "run.json")


def test_a_run_says_what_it_saw_and_what_came_out(made: Any) -> None:
    lab, _ = made
    results = read(lab, "propl")["results"]
    assert results["steps"] == 4 and results["images_seen"] == {"labelled": 32, "unlabelled": 32}
    assert read(lab, "supervised")["results"]["images_seen"] == {"labelled": 64, "unlabelled": 0}
    assert results["peak_memory_mb"] > 200  # torch alone takes as much
    assert len(results["curve"]) == 2 and set(results["curve"][0]["validation"]) >= {"sd", "pd", "mean"}
    folder = lab.runs / "short" / "propl" / "1-2" / "seed-0"
    cases = read_cases(folder / "cases.csv")
    assert results["cases_sha256"] == file_sha256(folder / "cases.csv")
    assert len(set(cases["case"])) == len(cases) == len(read_cases(folder / "test" / "cases.csv"))
    assert {"reference_pixels", "predicted_pixels", "intersection_pixels"} < set(cases.columns)


def test_a_run_can_be_traced(made: Any) -> None:
    lab, _ = made
    results = read(lab, "propl")["results"]
    assert results["recipe"]["learning_rate"] == 0.001 and results["recipe"]["spatial_size"] == [64, 64]
    weights = lab.runs / "short" / "propl" / "1-2" / "seed-0" / "models" / "model.safetensors"
    assert results["weights_sha256"] == [file_sha256(weights)]
    assert read(lab, "decoder-sd")["results"]["weights_sha256"] == [file_sha256(weights)]


def test_a_training_of_another_recipe_is_not_taken(made: Any, tmp_path: Path) -> None:
    """Its worker was killed between training and evaluation, and then other settings were asked for."""
    lab, (runs, _) = made
    shutil.copytree(lab.runs, tmp_path / "runs")
    (tmp_path / "runs" / runs[1].folder / "run.json").unlink()
    again = replace(lab, runs=tmp_path / "runs", overrides={**SMALL, "learning_rate": 0.5})
    outcome = compare(again, [runs[1]])
    assert "learning_rate 0.001, now 0.5" in outcome.failed[0].fact


def test_a_row_without_training_uses_the_weights_of_its_base(made: Any) -> None:
    lab, _ = made
    assert read(lab, "decoder-sd")["results"]["decoder"] == "sd"
    assert not (lab.runs / "short/decoder-sd/1-2/seed-0/models").exists()
    right, wrong = (read_cases(lab.runs / f"short/{name}/1-2/seed-0/cases.csv") for name in ("propl", "asked-wrong"))
    assert list(right["case"]) == list(wrong["case"])
    assert list(right["dice"]) != list(wrong["dice"])


def test_a_training_that_outlived_its_worker_has_no_memory(made: Any, tmp_path: Path) -> None:
    lab, _ = made
    folder = lab.runs / "short" / "supervised" / "1-2" / "seed-0"
    shutil.copytree(folder / "train", tmp_path / "train")
    again = results_of(tmp_path / "train", folder / "test")
    cases = again.pop("cases").to_csv(index=False, lineterminator="\n").encode()
    assert cases == (folder / "cases.csv").read_bytes()
    kept = json.loads((folder / "run.json").read_text())["results"]
    assert kept.pop("cases_sha256") == file_sha256(folder / "cases.csv")
    assert again == kept | {"peak_memory_mb": None, "weights_sha256": []}


def test_a_second_call_repeats_nothing(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lab, (runs, outcome) = made
    monkeypatch.setattr(module, "run_bundle_apart", lambda *_: pytest.fail("a finished run was repeated"))
    assert compare(lab, runs) == outcome


def test_a_finished_run_is_not_taken_for_one_of_another_recipe(made: Any) -> None:
    lab, (runs, _) = made
    other = replace(lab, overrides={**SMALL, "epochs": 3})
    with pytest.raises(ProPLError, match="was finished with epochs 2, now 3"):
        compare(other, runs)


def test_external_data_are_not_trained_on_and_alone_evaluated(phantoms: Path, tmp_path: Path) -> None:
    lab = Lab(BUNDLE, phantoms, tmp_path, overrides={**SMALL, "epochs": 1, "steps_per_epoch": 1})
    (run,) = runs = grid(["supervised"], ["1/2"], [0], "short", ["PHANTOM/heart0000"])
    assert compare(lab, runs).done == (run.folder,)
    content = json.loads((lab.folder(run) / "run.json").read_text())
    assert content["options"]["leave_out"] == ["PHANTOM/heart0000"] and content["results"]["split"] == "external"
    cases = read_cases(lab.folder(run) / "cases.csv")
    assert len(cases) and all(group == "heart0000" for group in cases["group"])
    assert set(cases["task"]) == {"left atrium", "left ventricle", "myocardium"}
    datalist = Datalist.read(tmp_path / "datalist.json", phantoms)
    left = {case.case_id for case in external_cases(datalist, "PHANTOM/heart0000")}
    assert set(cases["case"]) == left
    counts = json.loads((lab.folder(run) / "train" / "run.json").read_text())["results"]["cases"]
    seen = [case for case in datalist.cases if case.split != "test" and case.case_id not in left]
    assert counts["validation"] == sum(case.split == "validation" for case in seen)
    ((comparison),) = read_comparisons(tmp_path, resamples=100).values()
    assert comparison.leave_out == ("PHANTOM/heart0000",)


def test_external_data_that_leave_nothing_to_learn_from_are_refused(phantoms: Path, tmp_path: Path) -> None:
    lab = Lab(BUNDLE, phantoms, tmp_path, overrides=SMALL)
    with pytest.raises(ProPLError, match="leaves no labelled picture of left atrium, left ventricle, myocardium to"):
        compare(lab, grid(["propl"], ["1/2"], [0], "short", ["PHANTOM/heart*"]))
    with pytest.raises(ProPLError, match="fits no case"):
        compare(lab, grid(["propl"], ["1/2"], [0], "short", ["PHANTUM"]))


def test_a_run_that_another_worker_has_is_left_to_it(phantoms: Path, tmp_path: Path) -> None:
    lab = Lab(BUNDLE, phantoms, tmp_path, overrides=SMALL)
    runs = grid(["propl"], ["1/2"], [0], "short")
    with Claim(lab.folder(runs[0])):
        assert compare(lab, runs).elsewhere == (runs[0].folder,)


def test_a_failed_run_is_told_and_the_next_one_goes_on(phantoms: Path, tmp_path: Path) -> None:
    lab = Lab(BUNDLE, phantoms, tmp_path, overrides={**SMALL, "labelled_fraction": "2"})
    outcome = compare(lab, grid(["propl", "supervised"], ["1/2"], [0], "short"))
    assert outcome.done == () and len(outcome.failed) == 2
    assert "exit code 2" in outcome.failed[0].fact and "labelled fraction" in outcome.failed[0].fact


def test_what_stands_on_a_failed_run_is_told_without_a_second_try(
    phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def fail(*_: Any) -> float:
        tried.append(1)
        raise ProPLError("train.log", "the run stopped", "read this log")

    monkeypatch.setattr(module, "run_bundle_apart", fail)
    names = ["decoder-sd", "asked-wrong", "propl"]
    outcome = compare(Lab(BUNDLE, phantoms, tmp_path, overrides=SMALL), grid(names, ["1/2"], [0], "short"))
    assert len(tried) == 1
    assert [problem.fact for problem in outcome.failed] == ["the run stopped"] * 3


def test_a_run_that_was_taken_over_has_not_failed_for_good(
    phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = Lab(BUNDLE, phantoms, tmp_path, overrides=SMALL)
    first, second = runs = grid(["decoder-sd", "decoder-mean"], ["1/2"], [0], "short")

    def sleep(*arguments: Any) -> None:
        (lab.folder(first.base) / "claim-2").write_text("{}")
        arguments[-1]()

    monkeypatch.setattr(module, "run_bundle_apart", sleep)
    outcome = compare(lab, runs)
    assert len(outcome.failed) == 1 and "taken over by another worker" in outcome.failed[0].fact
    assert outcome.elsewhere == (second.folder,)


@pytest.mark.parametrize("text", ["", '{"options": {', "[]", "{}", '{"options": []}', '{"options": {}}'])
def test_a_broken_paper_of_a_finished_run_is_named(tmp_path: Path, text: str) -> None:
    lab = Lab(BUNDLE, tmp_path, tmp_path)
    (run,) = runs = grid(["propl"], ["1/2"], [0], "short")
    lab.folder(run).mkdir(parents=True)
    (lab.folder(run) / "run.json").write_text(text)
    with pytest.raises(ProPLError) as error:
        compare(lab, runs)
    assert error.value.where == str(lab.folder(run) / "run.json")


@pytest.mark.parametrize(
    ("methods", "seed", "message"),
    [
        (["propl"], "²", "'²' is not a seed"),
        (["propl"], "٣", "'٣' is not a seed"),
        (["propl"], "-1", "'-1' is not a seed"),
        (["all", "propl"], "0", "--methods: 'all' is every method and control.*give it alone"),
    ],
)
def test_words_that_are_no_grid(tmp_path: Path, methods: list[str], seed: str, message: str) -> None:
    with pytest.raises(ProPLError, match=message):
        compare_all(Lab(BUNDLE, tmp_path, tmp_path), methods, ["1/2"], [seed], "short")


def test_one_model_a_task_is_one_row_of_all_cases() -> None:
    def part(task: str, dice: float) -> dict[str, Any]:
        numbers = {"steps": 10, "seconds_training": 1.0, "seconds_evaluation": 0.5, "parameters": 100}
        about = {"peak_memory_mb": 300.0 + dice, "decoder": "sd", "best_epoch": 1, "best_validation_mdice": dice}
        place = {
            **{"recipe": {"tasks": [task], "learning_rate": 0.001}, "commit": None, "weights_sha256": [task]},
            "datalist_sha256": "a" * 64,
            "split": "test",
            "curve": [],
            "images_seen": {"labelled": 80, "unlabelled": 0},
        }
        return {**numbers, **about, **place, "cases": pd.DataFrame({"case": [task], "task": [task], "dice": [dice]})}

    whole = unite([part("left atrium", 0.5), part("fetal head", 1.0)])
    assert whole["steps"] == 20 and whole["parameters"] == 200 and whole["images_seen"]["labelled"] == 160
    assert whole["recipe"] == {"learning_rate": 0.001} and whole["weights_sha256"] == ["left atrium", "fetal head"]
    assert whole["cases"].to_dict("list") == {
        "case": ["left atrium", "fetal head"],
        "task": ["left atrium", "fetal head"],
        "dice": [0.5, 1.0],
    }
    assert math.isclose(whole["best_validation_mdice"], 0.75) and whole["peak_memory_mb"] == 301.0
    killed = part("left atrium", 0.5) | {"peak_memory_mb": None}  # before the worker could note it
    assert unite([killed, part("fetal head", 1.0)])["peak_memory_mb"] is None


def test_models_of_one_task_see_together_what_one_for_all_sees() -> None:
    pictures = dict(zip(tasks.NAMES, (100, 125, 172, 172, 172, 140, 192, 182), strict=True))
    shares = steps_of_tasks(100, pictures)
    assert sum(shares.values()) == 100 and list(shares.values()) == [8, 10, 14, 13, 14, 11, 15, 15]
    assert steps_of_tasks(3, pictures)["breast cancer"] == 1  # a model of no step is none


def test_an_unknown_preset_is_refused_before_anything_runs(phantoms: Path, tmp_path: Path) -> None:
    with pytest.raises(ProPLError, match=r"small.json: does not exist.*compact"):
        compare(Lab(BUNDLE, phantoms, tmp_path, preset="small"), [])


def test_images_seen_in_cycles() -> None:
    """Of five epochs in two cycles, the first two see labelled images alone, as many as later both kinds."""
    options = {"labelled_batch_size": 8, "unlabelled_batch_size": 4}
    results = {"steps": 500, "epochs": 5, "cases": {"unlabelled": 9}}
    assert images_seen(options, results) == {"labelled": 4000, "unlabelled": 2000}
    assert images_seen({**options, "rounds": 1}, results) == {"labelled": 4800, "unlabelled": 1200}
    alone = {**results, "cases": {"unlabelled": 0}}
    assert images_seen({**options, "rounds": 1}, alone) == {"labelled": 4000, "unlabelled": 0}
