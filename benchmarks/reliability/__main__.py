"""`python -m benchmarks.reliability`: plants every fault of the table, and fails if anything was lost."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Annotated

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is loaded: processes are forked here, threads are not

import typer

from propl_monai.cli import main
from propl_monai.common.options import words
from propl_monai.errors import EXIT_FAILURE, unknown

QUICK = 0.1  # of the trials
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def reliability(
    only: Annotated[str, typer.Option(help="Rows, comma-separated, such as D1,T3; default: all.")] = "",
    as_json: Annotated[
        Path | None, typer.Option("--json", help="Also write the results to this file, after each row.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="A tenth of the trials, without those that are tests.")
    ] = False,
) -> None:
    """Plant every fault and print what was tried, what survived and what was lost; exit code 1 if anything was."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))  # its pictures and small trainings
    from benchmarks.reliability import data, prediction, security, training
    from benchmarks.reliability.trials import Room, table
    from propl_monai.common.files import write_atomically
    from propl_monai.common.run_record import commit, versions

    rows = {row.name: row for part in (data, training, prediction, security) for row in part.ROWS}
    for name in words(only):
        if name not in rows:
            raise unknown("--only", "row", name, rows)
    results = []
    about = {"share": QUICK if quick else 1.0, "commit": commit(), "versions": versions()}
    wanted = list(words(only) or rows)
    try:
        for name in wanted:
            with tempfile.TemporaryDirectory(prefix=f"reliability-{name}-") as folder:
                results.append(rows[name].run(Room(Path(folder).resolve(), QUICK if quick else 1.0)))
            last = results[-1]
            typer.echo(f"{name}: {last['tried']} tried, {len(last['faults'])} lost, {last['seconds']:.0f} s", err=True)
            if as_json:
                write_atomically(as_json, (json.dumps({**about, "rows": results}, indent=1) + "\n").encode())
    finally:  # what was found is not lost where the run is ended
        results += [rows[name].left_out("the run was ended before it") for name in wanted[len(results) :]]
        typer.echo(table(results))
    if any(result["faults"] for result in results):
        raise typer.Exit(EXIT_FAILURE)


if __name__ == "__main__":
    main(app)
