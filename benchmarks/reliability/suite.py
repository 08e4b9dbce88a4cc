"""Tests of the suite as trials, each row in a process of its own, which can reach no machine but this one.

A test that tries a fault many times says so by `record_property("trials", n)`.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from benchmarks.reliability.trials import Tally

ROOT = Path(__file__).resolve().parents[2]
_LOCAL = ("127.", "::1", "localhost")


def run_tests(tests: Sequence[str], options: Sequence[str], folder: Path, **environment: str) -> Tally:
    """Run tests of the suite.

    Args:
        tests: files, or `file::test`, below the project.
        options: more words for pytest; `NAME=value` sets a variable of the environment.
        folder: for the report.
    """
    settings = dict(word.split("=", 1) for word in options if re.match(r"[A-Z_]+=", word))
    words = [word for word in options if word.partition("=")[0] not in settings]
    report = folder / "report.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(ROOT)]
    command += ["-p", "no:cacheprovider", "-p", "benchmarks.reliability.suite"]
    command += [f"--junitxml={report}", f"--basetemp={folder / 'tmp'}", "-o", "addopts=--strict-markers", *words]
    command += [] if "-m" in words else ["-m", "not exhaustive"]
    paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    with (folder / "log.txt").open("wb") as log:
        code = subprocess.run(
            [*command, *tests],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": paths, **settings},
            stdout=log,
            stderr=subprocess.STDOUT,
        ).returncode
    tally = Tally()
    if code > 1:  # an interruption, a wrong option, or no such test
        last = (folder / "log.txt").read_text(errors="replace").strip().splitlines()[-1:]
        tally.trial(False, f"pytest ended with code {code}: {''.join(last)}")
        return tally
    skipped = 0
    for case in ElementTree.parse(report).iter("testcase"):
        if case.find("skipped") is not None:
            skipped += 1
            continue
        properties = {each.get("name"): each.get("value") for each in case.iter("property")}
        harm = [case.find(kind) for kind in ("failure", "error")]
        tally.tried += int(properties.get("trials") or 1) - 1
        tally.trial(harm == [None, None], f"{case.get('classname')}::{case.get('name')}")
    if skipped:
        tally.notes.append(f"{skipped} tests left out by their own conditions")
    return tally


def pytest_configure(config: Any) -> None:
    """As a plugin of pytest: refuse every connection to another machine."""
    connect = socket.socket.connect

    def refuse(self: socket.socket, address: Any) -> None:
        if self.family != getattr(socket, "AF_UNIX", None) and not str(address[0]).startswith(_LOCAL):
            raise ConnectionRefusedError(f"this trial may not reach {address[0]}")
        connect(self, address)

    socket.socket.connect = refuse  # type: ignore[method-assign, assignment]
