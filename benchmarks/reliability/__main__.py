"""`python -m benchmarks.reliability`: plants every fault of the table, and fails if anything was lost."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is loaded: processes are forked here, threads are not

import typer

from propl_monai.cli import main
from propl_monai.common.options import words
from propl_monai.errors import EXIT_FAILURE, unknown

QUICK = 0.1  # of the trials
ENDED = "the run was ended before"
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def reliability(
    only: Annotated[str, typer.Option(help="Rows, comma-separated, such as D1,T3; default: all.")] = "",
    as_json: Annotated[
        Path | None, typer.Option("--json", help="Also write the results to this file, after each row.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Keep the rows that the file of --json has in full and without a loss.")
    ] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="A tenth of the trials, without those that are tests.")
    ] = False,
) -> None:
    """Plant every fault and print what was tried, what survived and what was lost; exit code 1 if anything was."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))  # its pictures and small trainings
    from benchmarks.reliability import data, prediction, security, training
    from benchmarks.reliability.suite import read_cases, run_tests, tally_of
    from benchmarks.reliability.trials import Room, Row, Tally, table
    from propl_monai.common.files import write_atomically
    from propl_monai.common.run_record import commit, versions

    rows = {row.name: row for part in (data, training, prediction, security) for row in part.ROWS}
    for name in words(only):
        if name not in rows:
            raise unknown("--only", "row", name, rows)
    wanted = [row for row in rows.values() if not only or row.name in words(only)]
    about = {"share": QUICK if quick else 1.0, "versions": versions()}
    here = commit()
    kept = {each["row"]: each for each in _whole_rows(as_json, about["share"])} if resume else {}
    tallies: dict[str, Tally] = {}
    tested: set[str] = set()  # rows whose tests were run, or have none

    def results() -> list[dict[str, Any]]:
        found = []
        for row in wanted:
            if row.name in kept:
                found.append(kept[row.name])
                continue
            tally = Tally()
            tally.add(tallies.get(row.name, Tally()))
            if row.name not in tallies:
                tally.add(Tally(not_run=ENDED))
            elif row.name not in tested:
                tally.add(Tally(not_run=f"its tests, as {ENDED}"))
            found.append({**row.result(tally), "commit": here})
        return found

    def note(row: Row, tally: Tally) -> None:
        tallies.setdefault(row.name, Tally()).add(tally)
        found = tallies[row.name]
        typer.echo(f"{row.name}: {found.tried} tried, {len(found.faults)} lost, {found.seconds:.0f} s", err=True)
        if as_json:
            write_atomically(as_json, (json.dumps({**about, "rows": results()}, indent=1) + "\n").encode())

    def run_suite(some: Sequence[Row], options: Sequence[str] = ()) -> None:
        with tempfile.TemporaryDirectory(prefix="reliability-suite-") as folder:
            ended = ENDED
            try:
                code = run_tests(list(dict.fromkeys(test for row in some for test in row.tests)), options, Path(folder))
                ended = "" if code <= 1 else f"pytest ended with exit code {code}"
                if ended:
                    typer.echo((Path(folder) / "log.txt").read_text(errors="replace")[-2000:], err=True)
            finally:
                for row in some:
                    tested.add(row.name)
                    note(row, tally_of(row.tests, read_cases(Path(folder)), ended))

    left = [row for row in wanted if row.name not in kept]
    try:
        for row in left:  # what only this command tries comes first
            with tempfile.TemporaryDirectory(prefix=f"reliability-{row.name}-") as folder:
                tested |= {row.name} if quick or not row.tests else set()  # the suite itself runs them in quick mode
                note(row, row.run(Room(Path(folder).resolve(), QUICK if quick else 1.0)))
        if not quick:
            for row in left:
                if row.tests and row.options:
                    run_suite([row], row.options)
            if together := [row for row in left if row.tests and not row.options]:
                run_suite(together)
    finally:  # what was found is told also where the run is ended
        typer.echo(table(results()))
    if any(tally.faults or (tally.not_run and not rows[name].not_run) for name, tally in tallies.items()):
        raise typer.Exit(EXIT_FAILURE)


def _whole_rows(path: Path | None, share: float) -> list[dict[str, Any]]:
    """The rows of an earlier run that came to their end and lost nothing."""
    if path is None or not path.exists():
        return []
    earlier = json.loads(path.read_text(encoding="utf-8"))
    rows = earlier["rows"] if earlier["share"] == share else []
    return [row for row in rows if not row["faults"] and ENDED not in row["not_run"]]


if __name__ == "__main__":
    main(app)
