"""Tests of the suite as trials, in one process for all rows, which can reach no machine but this one.

A test that tries a fault many times says so by `record_property("trials", n)`.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.reliability.trials import Tally, processor_seconds

ROOT = Path(__file__).resolve().parents[2]
RESULTS = "RELIABILITY_RESULTS"  # the variable that names the file of results to the process of pytest
_LOCAL = ("127.", "::1", "localhost")
_USED = [0.0]  # seconds of a core when the last test had ended
_OF_TEST: dict[str, list[tuple[str, float]]] = {}


@dataclass(frozen=True)
class Case:
    """A test that ran: its name for pytest, "passed", "failed" or "skipped", how often it tried its fault, what it took."""

    name: str
    outcome: str
    trials: int
    seconds: float = 0.0
    processor: float = 0.0


def run_tests(tests: Sequence[str], options: Sequence[str], folder: Path) -> int:
    """Run tests of the suite; `read_cases` gives what they found, also where the process is ended before them all.

    Args:
        tests: files, folders or `file::test`, below the project.
        options: more words for pytest; `NAME=value` sets a variable of the environment.
        folder: for results and log.

    Returns:
        The exit code of pytest: 0, 1 if tests failed, or more.
    """
    settings = dict(word.split("=", 1) for word in options if re.match(r"[A-Z_]+=", word))
    words = [word for word in options if word.partition("=")[0] not in settings]
    command = [sys.executable, "-m", "pytest", "-q", "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(ROOT)]
    command += ["-p", "no:cacheprovider", "-p", "benchmarks.reliability.suite"]
    command += [f"--basetemp={folder / 'tmp'}", "-o", "addopts=--strict-markers", *words]
    command += [] if "-m" in words else ["-m", "not exhaustive"]
    paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    settings |= {"PYTHONPATH": paths, RESULTS: str(folder / "results.jsonl")}
    with (folder / "log.txt").open("wb") as log:
        environment = {**os.environ, **settings}
        return subprocess.run([*command, *tests], cwd=ROOT, env=environment, stdout=log, stderr=log).returncode


def read_cases(folder: Path) -> list[Case]:
    """The tests that ran so far."""
    path = folder / "results.jsonl"
    return [Case(*json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []


def tally_of(tests: Sequence[str], cases: Sequence[Case], ended: str = "") -> Tally:
    """The trials of a row.

    Args:
        tests: of the row, as for `run_tests`.
        cases: that ran.
        ended: why not all of them did; empty where the process came to its end.
    """
    tally, skipped, missing = Tally(), 0, []
    for test in tests:
        own = [
            case for case in cases if case.name == test or case.name.startswith((f"{test}[", f"{test}::", f"{test}/"))
        ]
        missing += [] if own else [test]
        for case in own:
            tally.seconds += case.seconds
            tally.processor += case.processor
            skipped += case.outcome == "skipped"
            if case.outcome != "skipped":
                tally.tried += case.trials - 1
                tally.trial(case.outcome == "passed", case.name)
    if skipped:
        tally.notes.append(f"{skipped} tests left out by their own conditions")
    if missing and ended:
        tally.not_run = f"{len(missing)} of {len(tests)} tests or files of tests ({ended})"
    elif missing:
        tally.trial(False, f"no such test: {', '.join(missing)}")
    return tally


def pytest_runtest_logreport(report: Any) -> None:
    """As a plugin of pytest: note each test as it ends."""
    _OF_TEST.setdefault(report.nodeid, []).append((report.outcome, report.duration))
    if report.when == "teardown":
        outcomes, durations = zip(*_OF_TEST.pop(report.nodeid), strict=True)
        outcome = next(each for each in ("failed", "skipped", "passed") if each in outcomes)
        trials = int(dict(report.user_properties).get("trials", 1))
        used, _USED[0] = processor_seconds() - _USED[0], processor_seconds()
        with open(os.environ[RESULTS], "a") as stream:
            stream.write(json.dumps([report.nodeid, outcome, trials, sum(durations), used]) + "\n")


def pytest_configure(config: Any) -> None:
    """As a plugin of pytest: refuse every connection to another machine."""
    connect = socket.socket.connect

    def refuse(self: socket.socket, address: Any) -> None:
        if self.family != getattr(socket, "AF_UNIX", None) and not str(address[0]).startswith(_LOCAL):
            raise ConnectionRefusedError(f"this trial may not reach {address[0]}")
        connect(self, address)

    socket.socket.connect = refuse  # type: ignore[method-assign, assignment]
