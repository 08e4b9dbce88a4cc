"""`propl train` and `propl evaluate` are the bundle's own runs: same weights, same tables, same refusals."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import apart
import pandas
import pytest
import torch
from factories import ROOT
from safetensors.torch import load_file

from propl_monai.common.bundle_command import bundle_arguments, read_settings
from propl_monai.common.files import lock_folder

BUNDLE = ROOT / "bundle"
SMALL = {
    "epochs": "1",
    "steps_per_epoch": "2",
    "spatial_size": "[64, 64]",
    "encoder_weights": "none",
    "labelled_fraction": "1/2",
}


def propl(*arguments: str) -> subprocess.CompletedProcess[str]:
    return apart.run("propl_monai.cli", arguments)


def settings(**more: str) -> list[str]:
    return [part for key, value in {**SMALL, **more}.items() for part in ("--set", f"{key}={value}")]


def test_train_and_evaluate_equal_the_bundle(phantoms: Path, tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    common = ("--bundle", str(BUNDLE), "--preset", "compact")
    trained = propl("train", str(phantoms), "-o", str(ours), *common, *settings())
    assert trained.returncode == 0, trained.stderr
    places = {"dataset_dir": str(phantoms), "output_dir": str(theirs), "model_dir": str(theirs / "models")}
    configs = ["train", "compact"]
    arguments = bundle_arguments("training", BUNDLE, configs, {**places, **read_settings(BUNDLE, configs, SMALL)})
    run = apart.run("monai.bundle", arguments)
    assert run.returncode == 0, run.stderr
    one, other = (load_file(folder / "models" / "model.safetensors") for folder in (ours, theirs))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    evaluated = propl("evaluate", str(phantoms), str(ours), "--bundle", str(BUNDLE))
    assert evaluated.returncode == 0, evaluated.stderr
    table = pandas.read_csv(ours / "test" / "table.csv")
    with_preset = propl("evaluate", str(phantoms), str(ours), *common, "--set", f"output_dir={tmp_path / 'again'}")
    assert with_preset.returncode == 0, with_preset.stderr
    assert pandas.read_csv(tmp_path / "again" / "table.csv").equals(table)
    assert len(table) == 9 and table["n"].iloc[-1] == table["n"].iloc[:-1].sum()


@pytest.mark.parametrize(
    ("arguments", "fact"),
    [
        (("--set", "epoch=3"), "did you mean 'epochs'"),
        (("--set", "epochs=three"), "--set epochs: 'three' is not a whole number"),
        (("--set", "epochs"), "is not name=value"),
        (("--preset", "compct"), "compct.json: does not exist; name one of its configs: augseg, bcp"),
        (("--bundle", "nowhere"), "does not exist; name the folder of a bundle"),
    ],
)
def test_what_is_wrong_is_named_before_anything_runs(
    arguments: tuple[str, ...], fact: str, phantoms: Path, tmp_path: Path
) -> None:
    run = propl("train", str(phantoms), "-o", str(tmp_path / "run"), "--bundle", str(BUNDLE), *arguments)
    assert run.returncode == 2 and fact in run.stderr and "Traceback" not in run.stderr
    assert not (tmp_path / "run" / "run.json").exists()


@pytest.mark.parametrize(("data", "run"), [("data#2,$x", "@run [1]"), ("2024", "%run'{x}\"")])
def test_folders_are_taken_literally_whatever_is_in_their_names(
    data: str, run: str, phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(data).symlink_to(phantoms)
    common = ("--bundle", str(BUNDLE), "--preset", "compact")
    tiny = [part for key in ("encoder=test_efficientnet", "tasks=[LA, LV]") for part in ("--set", key)]
    trained = propl("train", data, "-o", run, *common, *settings(steps_per_epoch="1"), *tiny)
    assert trained.returncode == 0, trained.stderr
    record = json.loads(Path(run, "run.json").read_text())
    assert record["options"]["dataset_dir"] == data and record["options"]["tasks"] == ["LA", "LV"]
    assert sorted(os.listdir(".")) == sorted([data, run])
    assert {"run.json", "models", "metrics.jsonl"} <= set(os.listdir(run))
    assert record["outputs"][0] == f"{run}/models/model.safetensors"


def test_a_folder_that_another_run_writes_is_refused(phantoms: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    common = ("--bundle", str(BUNDLE), "--preset", "compact")
    for locked in (run, run / "models"):
        with lock_folder(locked):
            trained = propl("train", str(phantoms), "-o", str(run), *common, *settings())
        assert trained.returncode == 2 and "is being written to by another process" in trained.stderr
        assert f"error: {locked}: " in trained.stderr
    with lock_folder(run / "test"):
        evaluated = propl(
            "evaluate", str(phantoms), str(run), "--bundle", str(BUNDLE), "--set", "encoder=test_efficientnet"
        )
    assert evaluated.returncode == 2 and "is being written to by another process" in evaluated.stderr
    assert not list(tmp_path.rglob("run.json"))
