"""`python -m benchmarks.reliability`: a tenth of its own trials, its table, and that every test it names exists."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from factories import ROOT
from typer.testing import CliRunner

from benchmarks.reliability import data, prediction, security, training
from benchmarks.reliability.__main__ import _whole_rows, app
from benchmarks.reliability.suite import read_cases, run_tests, tally_of
from benchmarks.reliability.trials import Room, Row, Tally, table
from propl_monai.errors import ProPLError

ROWS = [row for part in (data, training, prediction, security) for row in part.ROWS]
QUICK = "D3,T1,T2,T10,P1,P2"  # the others take longer, or are tests


def test_a_tenth_of_the_trials_loses_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.reliability", "--quick", "--only", QUICK]
    done = subprocess.run([*command, "--json", str(tmp_path / "found.json")], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    found = {row["row"]: row for row in json.loads((tmp_path / "found.json").read_text())["rows"]}
    assert ",".join(found) == QUICK and all(row["faults"] == [] for row in found.values())
    assert found["D3"]["tried"] == 62 and found["T1"]["tried"] > 20 and "20 kills" in found["T1"]["notes"][0]
    assert f"| T2 | {found['T2']['fault']} | 6 | 6 | 0 |" in done.stdout


def test_every_row_of_the_design_is_there_once() -> None:
    names = [
        f"{letter}{number}"
        for letter, most in zip("DTPS", (12, 12, 10, 8), strict=True)
        for number in range(1, most + 1)
    ]
    assert [row.name for row in ROWS] == names
    assert all(row.own or row.tests or row.not_run for row in ROWS)


@pytest.mark.parametrize("test", sorted({test for row in ROWS for test in row.tests}))
def test_every_test_that_is_named_exists(test: str) -> None:
    path, _, name = test.partition("::")
    assert (ROOT / path).exists()
    if name:
        function, _, case = name.partition("[")
        content = (ROOT / path).read_text(encoding="utf-8")
        assert re.search(rf"^def {function}\(", content, re.MULTILINE) and f'"{case[:-1]}"' in content + '""'


def test_the_table_counts_what_was_lost(tmp_path: Path) -> None:
    def lose(room: Room) -> Tally:
        tally = Tally(notes=["a note"])
        for number in range(room.times(3)):
            tally.trial(number != 1, f"fault | {number}")
        return tally

    def fail(room: Room) -> Tally:
        raise OSError("out of luck")

    rows = [Row("A1", "loses", lose), Row("A2", "fails", fail), Row("A3", "is not run", not_run="no second torch")]
    results = []
    for row in rows:
        (tmp_path / row.name).mkdir()
        results.append(row.result(row.run(Room(tmp_path / row.name))))
    lines = table(results).splitlines()[2:]
    assert lines == [
        "| A1 | loses | 3 | 2 | 1 | 0 | fault / 1; a note |",
        "| A2 | fails | 1 | 0 | 1 | 0 | the trial itself failed: OSError: out of luck |",
        "| A3 | is not run | not run | – | – | – | not run: no second torch |",
        "| all | | 4 | 2 | 2 | 0 | |",
    ]


def test_failing_and_missing_tests_are_lost(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import socket, pytest\n"
        "def test_good(record_property): record_property('trials', 5)\n"
        "def test_bad(): assert False\n"
        "def test_out(): pytest.skip('not here')\n"
        "def test_net():\n"
        "    with pytest.raises(ConnectionRefusedError): socket.create_connection(('192.0.2.1', 80), 1)\n"
    )
    assert run_tests([str(tmp_path / "test_it.py")], [], tmp_path) == 1
    cases = read_cases(tmp_path)
    file = cases[0].name.partition("::")[0]
    tally = tally_of([file], cases)
    assert (tally.tried, len(tally.faults)) == (7, 1) and tally.faults[0].endswith("::test_bad")
    assert tally.notes == ["1 tests left out by their own conditions"]
    gone = tally_of([f"{file}::test_good", f"{file}::test_goo"], cases)
    assert (gone.tried, gone.faults) == (6, [f"no such test: {file}::test_goo"])
    ended = tally_of([f"{file}::test_good", f"{file}::test_later"], cases, "out of time")
    assert (ended.faults, ended.not_run) == ([], "1 of 2 tests or files of tests (out of time)")


def test_an_unknown_row_is_refused() -> None:
    error = CliRunner().invoke(app, ["--only", "D1,D99"]).exception
    assert isinstance(error, ProPLError) and "unknown row 'D99'" in str(error)


def test_a_run_that_was_ended_goes_on(tmp_path: Path) -> None:
    whole = {"fault": "f", "tried": 7, "faults": [], "notes": [], "not_run": "", "processor": 2.4}
    rows = [{"row": "D10", **whole}, {"row": "D11", **whole, "tried": 8, "faults": ["slow"]}]
    path = tmp_path / "found.json"
    path.write_text(json.dumps({"share": 0.1, "rows": rows}))
    done = CliRunner().invoke(app, ["--only", "D10,P6,S5", "--quick", "--resume", "--json", str(path)])
    assert "| D10 | f | 7 | 7 | 0 | 2 |" in done.stdout and "| P6 | another version of torch" in done.stdout
    found = {row["row"]: row for row in json.loads(path.read_text())["rows"]}
    assert found["D10"] == rows[0] and found["S5"]["tried"] == 0 and found["S5"]["commit"]
    assert [row["row"] for row in _whole_rows(path, 0.1)] == ["D10", "P6", "S5"] and _whole_rows(path, 1.0) == []
    path.write_text(json.dumps({"share": 0.1, "rows": rows}))
    assert [row["row"] for row in _whole_rows(path, 0.1)] == ["D10"]
