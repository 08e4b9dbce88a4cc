"""`propl train` and `propl evaluate` are the bundle's own runs: same weights, same tables, same refusals."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pandas
import pytest
import torch
from factories import ROOT
from safetensors.torch import load_file

from propl_monai.common.bundle_command import bundle_arguments

BUNDLE = ROOT / "bundle"
SMALL = {
    "epochs": "1",
    "steps_per_epoch": "2",
    "spatial_size": "[64, 64]",
    "encoder_weights": "none",
    "labelled_fraction": "1/2",
}


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    # One thread for all: sums in another order would be another training, to the last bit.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, "-W", "ignore", *arguments], capture_output=True, text=True, env=environment)


def propl(*arguments: str) -> subprocess.CompletedProcess[str]:
    return python("-m", "propl_monai.cli", *arguments)


def settings(**more: str) -> list[str]:
    return [part for key, value in {**SMALL, **more}.items() for part in ("--set", f"{key}={value}")]


def test_train_and_evaluate_equal_the_bundle(phantoms: Path, tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    common = ("--bundle", str(BUNDLE), "--preset", "compact")
    trained = propl("train", str(phantoms), "-o", str(ours), *common, *settings())
    assert trained.returncode == 0, trained.stderr
    places = {"dataset_dir": str(phantoms), "output_dir": str(theirs), "model_dir": str(theirs / "models")}
    arguments = bundle_arguments("training", BUNDLE, ["train", "compact"], {**places, **SMALL})
    run = python("-m", "monai.bundle", *arguments)
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
        (("--set", "epochs"), "is not name=value"),
        (("--preset", "compct"), "name one of its configs: compact"),
        (("--bundle", "nowhere"), "does not exist; name the folder of a bundle"),
    ],
)
def test_what_is_wrong_is_named_before_anything_runs(
    arguments: tuple[str, ...], fact: str, phantoms: Path, tmp_path: Path
) -> None:
    run = propl("train", str(phantoms), "-o", str(tmp_path / "run"), "--bundle", str(BUNDLE), *arguments)
    assert run.returncode == 2 and fact in run.stderr and "Traceback" not in run.stderr
    assert not (tmp_path / "run" / "run.json").exists()
