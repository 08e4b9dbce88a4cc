"""Whatever a verb makes of DICOM files, nothing about the patient is in it: files, messages, logs."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
from planted_identifiers import MARKS, SPOILS, private
from typer.testing import CliRunner

from propl_monai.cli import app


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """A sound cine, one cut short, and one for each element that holds text where a number is expected."""
    folder = tmp_path / "scans"
    folder.mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number, spoil in enumerate(SPOILS.values()):
            private(folder / f"{number}.dcm", spoil)
    cut = folder / "cut.dcm"
    cut.write_bytes((folder / "0.dcm").read_bytes()[:-100])
    content = (folder / "0.dcm").read_bytes()
    assert all(mark.encode() in content for mark in MARKS)
    return folder


def leaks(folder: Path, said: str) -> list[str]:
    contents = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    assert contents, "nothing was written, so nothing was tested"
    marks = [mark for mark in (*MARKS, "SECRET") if mark in said]
    return marks + [mark for mark in (*MARKS, "SECRET") if any(mark.encode() in content for content in contents)]


def test_prepare_and_verify_keep_identifiers_in(scans: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    out = tmp_path / "out" / "list.json"
    run = CliRunner().invoke(app, ["prepare", "unlabelled", str(scans), "-o", str(out), "--option", "task=LV"])
    assert run.exit_code in (0, 3) and out.exists(), run.output
    checked = CliRunner().invoke(app, ["verify", str(out), "--json"])
    assert checked.exit_code in (0, 2)
    assert leaks(out.parent, run.output + checked.output + caplog.text) == []


def test_frames_keep_identifiers_in(scans: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    said = ""
    for scan in sorted(scans.iterdir()):
        run = CliRunner().invoke(app, ["frames", str(scan), str(tmp_path / "frames" / scan.stem)])
        said += run.output + str(run.exception)
    assert len(list((tmp_path / "frames" / "0").glob("frame_*.png"))) == 3
    assert leaks(tmp_path / "frames", said + caplog.text) == []
