"""The quick start without its work: which commands it runs and prints, and what it skips."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from factories import ROOT
from typer.testing import CliRunner

from propl_monai import cli
from propl_monai.cli.verbs import quickstart
from propl_monai.common.bundle_start import check_keys
from propl_monai.common.files import file_sha256
from propl_monai.datasets.phantoms import write_phantoms as phantoms

PROGRAM = "/somewhere/monai/bundle/__main__.py"


class StandIn:
    """Writes what each command of the bundle would leave; the command with the number `stop` ends with code 2."""

    def __init__(self, stop: int = 99) -> None:
        self.commands: list[list[str]] = []
        self.stop = stop

    def __call__(self, command: list[str], **_: Any) -> SimpleNamespace:
        self.commands.append(command)
        if len(self.commands) == self.stop:
            return SimpleNamespace(returncode=2)
        given = {key: command[command.index(key) + 1] for key in ("--output_dir", "--model_dir") if key in command}
        output = Path(given["--output_dir"])
        output.mkdir(parents=True, exist_ok=True)
        weights = output.parent / "models" / "model.safetensors"
        if "training" in command:
            weights.parent.mkdir(exist_ok=True)
            weights.write_bytes(b"weights")
        record = {"status": "finished", "inputs": [{"path": str(weights), "sha256": file_sha256(weights)}]}
        table = [{"task": "mean", "dice": 0.927, "n": 220}]
        (output / "run.json").write_text(json.dumps(record | {"results": {"table": table}}))
        return SimpleNamespace(returncode=0)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Runs the quick start in a folder with phantoms that are quick to make."""
    made: list[Path] = []

    def write(folder: Path) -> None:
        made.append(folder)
        for code in ("BC", "FH", "LA", "LV", "MD", "OT", "TG", "TN"):
            (folder / code / "PHANTOM").mkdir(parents=True)
            (folder / code / "PHANTOM" / "manifest.csv").touch()

    monkeypatch.setattr(phantoms, "write_phantoms", write)

    def call(stand_in: StandIn) -> Any:
        monkeypatch.setattr(subprocess, "run", stand_in)
        return CliRunner().invoke(cli.app, ["quickstart", str(tmp_path), "--bundle", str(ROOT / "bundle")]), made

    return call


def test_every_stage_runs_once(run: Callable[..., Any], tmp_path: Path) -> None:
    first = StandIn()
    result, made = run(first)
    assert result.exit_code == 0, result.output
    assert made == [tmp_path / "phantoms"]
    assert [command[4] for command in first.commands] == ["training", "evaluating", "inference"]
    assert first.commands[0][-2:] == ["--resume", "true"]  # after an interruption it continues
    assert "92.7 %" in result.output and "table.md" in result.output and "_overlay.png" in result.output
    again = StandIn()
    result, made = run(again)
    assert again.commands == [] and len(made) == 1
    assert result.output.count("done before") == 3 and "92.7 %" in result.output


def test_an_interruption_continues_and_other_weights_are_evaluated_anew(
    run: Callable[..., Any], tmp_path: Path
) -> None:
    result, _ = run(StandIn(stop=2))
    assert result.exit_code == 2
    second = StandIn()
    run(second)
    assert [command[4] for command in second.commands] == ["evaluating", "inference"]
    (tmp_path / "runs" / "quickstart" / "models" / "model.safetensors").write_bytes(b"other weights")
    third = StandIn()
    run(third)
    assert [command[4] for command in third.commands] == ["evaluating", "inference"]


def test_the_printed_lines_are_those_that_run(run: Callable[..., Any]) -> None:
    stand_in = StandIn()
    result, _ = run(stand_in)
    printed = [line for line in result.output.splitlines() if line.startswith("python -m monai.bundle")]
    ran = [command[3:] for command in stand_in.commands]
    ran[0] = ran[0][:-2]  # without --resume, which changes nothing in a new folder
    assert [shlex.split(line)[3:] for line in printed] == ran
    for line in printed:
        check_keys([PROGRAM, *shlex.split(line)[3:]])
    assert printed[0].count('"[') == 1  # lists of files between double quotes


@pytest.mark.parametrize("text", ["plain", "two words", "['a','b']", "it's", "a\"b'c", "$HOME's", "-x", ""])
def test_a_shell_reads_back_what_is_printed(text: str) -> None:
    assert shlex.split(quickstart._quoted(text)) == [text]
