"""run.json: one schema for every verb."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import propl_monai
from propl_monai.common import run_record
from propl_monai.common.run_record import JOURNAL, RunRecord, command, commit, holds_predictions, versions
from propl_monai.errors import ProPLError

Check = Callable[[Path], dict[str, Any]]


@pytest.mark.parametrize("verb", ["train", "evaluate", "predict"])
@pytest.mark.parametrize("status", ["running", "finished", "partial", "failed"])
def test_every_status_of_every_verb_fits_the_schema(
    tmp_path: Path, check_run_json: Check, verb: str, status: str
) -> None:
    record = RunRecord(tmp_path / "run.json", verb, {"epochs": 2, "tasks": ["a"], "resume": False, "decoder": None})
    record.write(status)
    content = check_run_json(tmp_path / "run.json")
    assert (content["verb"], content["status"]) == (verb, status)
    assert content["options"] == {"epochs": 2, "tasks": ["a"], "resume": False, "decoder": None}


def test_a_failure_on_a_full_disk_changes_the_status_in_place(
    tmp_path: Path, check_run_json: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = RunRecord(tmp_path / "run.json", "predict", {"note": "running"})
    record.write("running")
    before = (tmp_path / "run.json").stat().st_size

    def full(*_: Any) -> None:
        raise ProPLError("disk", "is full", "make room")

    with monkeypatch.context() as patched:
        patched.setattr(run_record, "write_atomically", full)
        record.fail(tmp_path, MemoryError("no room"))
    content = check_run_json(tmp_path / "run.json")
    assert (content["status"], content["options"]) == ("failed", {"note": "running"})
    assert (tmp_path / "run.json").stat().st_size == before
    record.fail(tmp_path, MemoryError("no room"), [tmp_path / "a.png"])
    content = check_run_json(tmp_path / "run.json")
    assert content["findings"][-1] == {"path": str(tmp_path), "message": "MemoryError: no room"}
    assert content["outputs"] == [str(tmp_path / "a.png")]


def test_folders_with_predictions(tmp_path: Path) -> None:
    for verb in ("predict", "prepare", "frames"):
        RunRecord(tmp_path / verb / "run.json", verb, {}).write("finished")
    (tmp_path / "killed").mkdir()
    (tmp_path / "killed" / JOURNAL).touch()
    (tmp_path / "parts" / "shards" / "1-of-2").mkdir(parents=True)
    (tmp_path / "parts" / "shards" / "1-of-2" / JOURNAL).touch()
    found = {folder.name for folder in tmp_path.iterdir() if holds_predictions(folder)}
    assert found == {"predict", "killed", "parts"}


@pytest.mark.parametrize(
    ("content", "says"), [('{"verb": "train"}', "`propl train`"), ('{"scripts": {}}', "another program")]
)
def test_the_record_of_another_run_is_not_replaced(tmp_path: Path, content: str, says: str) -> None:
    path = tmp_path / "run.json"
    path.write_text(content)
    with pytest.raises(ProPLError, match=f"{tmp_path}: holds the run.json of {says}"):
        RunRecord(path, "evaluate", {})
    assert path.read_text() == content
    RunRecord(tmp_path / "test" / "run.json", "evaluate", {}).write("finished")
    RunRecord(tmp_path / "test" / "run.json", "evaluate", {}).write("running")


def test_what_a_record_holds(tmp_path: Path, check_run_json: Check) -> None:
    (tmp_path / "in.json").write_bytes(b"abc")
    record = RunRecord(tmp_path / "new" / "run.json", "train", {}, [tmp_path / "in.json"])
    record.finding(tmp_path / "bad.png", "is empty; copy it again")
    record.write("partial", [tmp_path / "out.png"], {"score": 0.5})
    content = check_run_json(tmp_path / "new" / "run.json")
    assert content["inputs"] == [{"path": str(tmp_path / "in.json"), "sha256": hashlib.sha256(b"abc").hexdigest()}]
    assert content["outputs"] == [str(tmp_path / "out.png")] and content["results"] == {"score": 0.5}
    assert content["findings"] == [{"path": str(tmp_path / "bad.png"), "message": "is empty; copy it again"}]


def test_a_record_is_written_as_json_dumps_writes_it(tmp_path: Path) -> None:
    """Piece by piece, with none, one or several of what may be many."""
    (tmp_path / "in.json").write_bytes(b"abc")
    record = RunRecord(tmp_path / "run.json", "train", {"deep": {"er": [1, {"é\n": None}]}, "empty": {}})
    for number in range(3):
        record.write("running", (tmp_path / f"{one}.png" for one in range(number)), {"a": [], "b": [[1], 2]})
        text = (tmp_path / "run.json").read_text(encoding="utf-8")
        content = json.loads(text)
        assert text == json.dumps(content, indent=2) + "\n"
        assert (len(content["inputs"]), len(content["outputs"])) == (number, number)
        record.add_input(tmp_path / f"in {number}", "0" * 64)


@pytest.mark.parametrize(
    ("argv", "written"),
    [
        (["/env/monai/bundle/__main__.py", "run", "training"], ["python", "-m", "monai.bundle", "run", "training"]),
        (["/env/bin/propl", "info"], ["propl", "info"]),
    ],
)
def test_the_command_names_no_folder_of_the_installation(
    monkeypatch: pytest.MonkeyPatch, argv: list[str], written: list[str]
) -> None:
    monkeypatch.setattr(sys, "argv", argv)
    assert command() == written


def test_when_a_record_was_started(tmp_path: Path, check_run_json: Check) -> None:
    RunRecord(tmp_path / "run.json", "train", {}).write("running")
    content = check_run_json(tmp_path / "run.json")
    started = datetime.fromisoformat(content["started"])
    assert started.tzinfo is not None and abs((datetime.now(UTC) - started).total_seconds()) < 3600


def test_a_later_write_replaces_the_earlier(tmp_path: Path, check_run_json: Check) -> None:
    record = RunRecord(tmp_path / "run.json", "train", {})
    record.write("running", results={"cases": 3})
    record.write("finished", ["a"])
    content = check_run_json(tmp_path / "run.json")
    assert content["status"] == "finished" and content["outputs"] == ["a"]
    assert content["results"] == {"cases": 3}  # kept where nothing new is said
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_the_schema_refuses_what_no_verb_writes(tmp_path: Path, check_run_json: Check) -> None:
    """Or the tests above could not fail."""
    RunRecord(tmp_path / "run.json", "train", {}).write("finished")
    good = json.loads((tmp_path / "run.json").read_text())
    for change in ({"status": "done"}, {"extra": 1}, {"inputs": [{"path": "a"}]}, {"schema": 2}):
        (tmp_path / "run.json").write_text(json.dumps({**good, **change}))
        with pytest.raises(jsonschema.ValidationError):
            check_run_json(tmp_path / "run.json")


def test_a_missing_input_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProPLError, match=r"gone\.pt: does not exist"):
        RunRecord(tmp_path / "run.json", "predict", {}, [tmp_path / "gone.pt"])


def test_versions_name_what_the_run_stands_on() -> None:
    import torch

    found = versions()
    assert found["propl_monai"] == propl_monai.__version__ and found["torch"] == torch.__version__.split("+")[0]
    assert found["python"].startswith(f"{sys.version_info.major}.{sys.version_info.minor}.")
    assert {"monai", "timm", "numpy", "pytorch-ignite"} <= set(found)


def test_a_package_that_is_not_installed_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_record, "PACKAGES", ("numpy", "no-such-package"))
    assert set(versions()) == {"python", "propl_monai", "numpy"}


def test_commit_of_a_checkout_and_of_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import subprocess

    def git(*arguments: str) -> str:
        name = ["-c", "user.name=A", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
        done = subprocess.run(
            ["git", "-C", str(tmp_path), *name, *arguments], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    module = tmp_path / "run_record.py"
    module.write_text("")
    monkeypatch.setattr(run_record, "__file__", str(module))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert commit() is None
    git("init", "-q")
    assert commit() is None  # inside someone else's checkout, as an environment folder may be
    git("add", ".")
    git("commit", "-q", "-m", "first")
    assert commit() == git("rev-parse", "HEAD")
    module.write_text("# edited")
    assert commit() == git("rev-parse", "HEAD") + "+changes"


def test_without_git_there_is_no_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert commit() is None
