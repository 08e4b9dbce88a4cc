"""The process of a run: measured, ended when the run is not ours any more, and quoted when it fails."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from factories import ROOT

from propl_monai.common import bundle_process
from propl_monai.common.bundle_process import run_bundle_apart
from propl_monai.errors import ProPLError

BUNDLE = ROOT / "bundle"


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a line of Python in place of the bundle; gives the processes that were started."""
    real, started = subprocess.Popen, []

    def use(code: str) -> list[subprocess.Popen[bytes]]:
        def start(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
            started.append(real([sys.executable, "-c", code], **options))
            return started[-1]

        monkeypatch.setattr(bundle_process.subprocess, "Popen", start)
        return started

    return use


def run(folder: Path, check: Any = lambda: None) -> float:
    return run_bundle_apart(BUNDLE, "training", ["train"], {"seed": 0}, folder / "train.log", check)


def test_memory_is_that_of_the_process(stand_in: Any, tmp_path: Path) -> None:
    stand_in("pass")
    small = run(tmp_path)  # Linux counts what this process has, so that the next must have more
    stand_in(f"x = b'1' * {int((small + 400) * 2**20)}")
    assert run(tmp_path) > small + 300
    assert (tmp_path / "train.config.json").read_text() == '{\n  "seed": 0\n}'


def test_it_is_ended_when_another_worker_has_the_run(stand_in: Any, tmp_path: Path) -> None:
    started = stand_in("import time; time.sleep(60)")
    looks = iter(range(10))

    def check() -> None:
        if next(looks) == 2:
            raise ProPLError("run", "was taken over", "leave it")

    with pytest.raises(ProPLError, match="was taken over"):
        run(tmp_path, check)
    assert started[0].returncode is not None  # waited for: it writes nothing any more


def test_the_error_that_it_ended_with_is_told(stand_in: Any, tmp_path: Path) -> None:
    stand_in("raise ValueError('no such thing')")
    with pytest.raises(ProPLError, match="exit code 1: ValueError: no such thing; read this log"):
        run(tmp_path)
