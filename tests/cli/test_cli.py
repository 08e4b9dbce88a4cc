"""What the verbs say, where the functions behind them have nothing to do with it."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from factories import ROOT, write_small_bundle
from PIL import Image
from typer.testing import CliRunner

from propl_monai import cli
from propl_monai.errors import EXIT_FAILURE
from propl_monai.inference.ranking.strategies import STRATEGIES


def test_a_fault_of_the_disk_ends_in_a_message(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise PermissionError(13, "Permission denied", "closed/folder")

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == EXIT_FAILURE
    assert capsys.readouterr().err == "error: 'closed/folder': Permission denied; check its permissions and the disk\n"


def test_a_datalist_that_is_not_there_gets_no_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["propl", "verify", str(tmp_path / "typo.json")])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2 and "typo.json: does not exist" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_report_comes_before_a_record_that_cannot_be_written(phantoms: Path, tmp_path: Path) -> None:
    CliRunner().invoke(cli.app, ["prepare", "folder", str(phantoms), "-o", str(tmp_path / "d.json")])
    (tmp_path / "d.verified.json").mkdir()  # in the way of the record
    run = CliRunner().invoke(cli.app, ["verify", str(tmp_path / "d.json"), "--root", str(phantoms)])
    assert "64 cases, 128 files" in run.output and "cannot be written" in str(run.exception)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_any_console_shows_the_report_and_keeps_the_record(phantoms: Path, tmp_path: Path, encoding: str) -> None:
    shutil.copytree(phantoms, tmp_path / "data")
    Image.new("L", (64, 64)).save(tmp_path / "data" / "BC" / "PHANTOM" / "images" / "ü_名.png")
    verb = [sys.executable, "-m", "propl_monai.cli"]
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONPATH": str(ROOT)}
    for arguments in (["prepare", "folder", "data", "-o", "ü_名.json"], ["verify", "ü_名.json", "--root", "data"]):
        done = subprocess.run([*verb, *arguments], capture_output=True, cwd=tmp_path, env=environment)
        assert done.returncode == 0, done.stderr
    assert b"W-CONSTANT  1" in done.stdout and (tmp_path / "ü_名.verified.json").is_file()


def test_the_next_step_names_the_folder_that_paths_start_from(phantoms: Path, tmp_path: Path) -> None:
    run = CliRunner().invoke(cli.app, ["prepare", "folder", str(phantoms), "-o", str(tmp_path / "d.json")])
    next_step = run.output.splitlines()[-1].removeprefix("Next: propl ").split(" ")
    assert CliRunner().invoke(cli.app, next_step).exit_code == 0


def test_every_source_has_the_same_facts() -> None:
    facts = json.loads(CliRunner().invoke(cli.app, ["info", "--json"]).stdout)["sources"]
    assert facts[0]["name"] == "folder" and len({tuple(sorted(each)) for each in facts}) == 1


def test_what_an_installation_that_only_predicts_lacks_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def lack(name: str) -> None:
        raise ModuleNotFoundError(f"No module named '{name}'", name=name)

    monkeypatch.setattr(sys, "argv", ["propl", "train"])
    monkeypatch.setattr(cli, "app", lambda: lack("monai.bundle"))
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert said.startswith("error: propl train: needs monai, which is not installed; this installation only predicts")
    monkeypatch.setattr(cli, "app", lambda: lack("propl_monai.lost"))
    with pytest.raises(ModuleNotFoundError):  # a fault of ours
        cli.main()


def test_what_to_label_next_of_a_datalist(phantoms: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(phantoms / "TN", data / "TN")
    masks = sorted((data / "TN" / "PHANTOM" / "masks").iterdir())
    for mask in masks[1:]:
        mask.unlink()
    runner, table = CliRunner(), tmp_path / "order.csv"
    runner.invoke(cli.app, ["prepare", "folder", str(data), "-o", str(tmp_path / "d.json")])
    bundle = write_small_bundle(tmp_path / "small", spatial_size=[32, 32])
    verb = [
        "rank",
        str(tmp_path / "d.json"),
        "--data",
        str(data),
        "-t",
        "TN",
        "-o",
        str(table),
        "--weights",
        str(bundle),
    ]
    for strategy in STRATEGIES:
        run = runner.invoke(cli.app, [*verb, "--strategy", strategy, "--first", "3", "--overwrite"])
        assert run.exit_code == 0, run.output
        assert f"3 pictures ranked by {strategy} ({STRATEGIES[strategy].title}); 8 files looked at" in run.output
        with table.open(newline="") as stream:
            assert masks[0].name not in [Path(row["file"]).name for row in csv.DictReader(stream)]
    shown = " ".join(runner.invoke(cli.app, ["rank", "--help"], terminal_width=200).output.split())
    assert all(name in shown for name in STRATEGIES)
