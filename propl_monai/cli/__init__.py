"""The `propl` command: its verbs, and how errors reach the user.

In: the words of a command line. Out: calls of the package, lines on the terminal, exit codes.
Must not know: how anything is done.

Tested elsewhere: `progress` by `test_frames`.
"""

from __future__ import annotations

import json
import sys
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any

import typer

from propl_monai import __version__, tasks
from propl_monai.cli.verbs import data, hearts, lab, runs, share
from propl_monai.cli.verbs.quickstart import quickstart
from propl_monai.cli.verbs.rank import rank
from propl_monai.errors import EXIT_BAD_INPUT, EXIT_FAILURE, WHOLE, ProPLError, exit_on_sigterm

# What an installation that only predicts lacks, see "Without torch" in docs/predict.md.
NOT_LIGHT = (
    "torch",
    "torchvision",
    "monai",
    "ignite",
    "timm",
    "transformers",
    "fire",
    "pandas",
    "SimpleITK",
    "tensorboard",
)
WEIGHTS_TERMS = "non-commercial research and teaching only, no medical device"

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="ProPL: one network for many ultrasound targets, selected by a text prompt. Start with `propl quickstart`.",
    epilog="Exit codes: 0 done, 1 failure, 2 bad input, 3 done but some inputs were refused or some runs failed.",
)


@app.callback()
def verbs() -> None:
    """Keep `propl VERB` the form of the command, however many verbs there are."""


@app.command()
def info(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")] = False,
    given: Annotated[
        Path | None, typer.Option("--weights", help="List the tasks of these weights: a file, or a folder.")
    ] = None,
) -> None:
    """List tasks, prompts, data sources, the package's weights with their licence, and installed versions."""
    from propl_monai.common.packaged_bundle import packaged_bundle
    from propl_monai.common.run_record import versions
    from propl_monai.datasets.sources.registry import facts

    bundle = packaged_bundle()
    path, licence = bundle / "models" / "model.safetensors", bundle / "docs" / "weights_license.txt"
    listed: list[tasks.Task] = list(tasks.TASKS)
    if given:
        from propl_monai.model.bundle_folder import find_weights
        from propl_monai.model.tensor_file import read_header

        path = find_weights(given)
        listed = tasks.find_all(read_header(path)["architecture"]["tasks"], path)
    rows = [{"name": task.name, "code": task.code, "organ": task.organ, "prompt": task.prompt} for task in listed]
    weights: dict[str, Any] = {"path": str(path), "there": path.is_file()}
    if not given:
        weights |= {"licence": str(licence), "terms": WEIGHTS_TERMS}
    if as_json:
        typer.echo(
            json.dumps({"tasks": rows, "sources": facts(), "weights": weights, "versions": versions()}, indent=2)
        )
        return
    typer.echo(f"propl_monai {__version__}\n")
    for row in rows:
        typer.echo(f"{row['code']}  {row['name']:<16} {row['organ']:<8} {row['prompt']}")
    typer.echo("")
    for source in facts():
        options = "  ".join(f"--option {name}={default}" for name, default in source["options"].items())
        typer.echo(f"{source['name']:<11} {source['title']}" + (f"\n{'':<12}{options}" if options else ""))
    terms = "" if given else f"\n{WEIGHTS_TERMS}: {licence}"
    typer.echo(f"\nweights: {path}{'' if weights['there'] else ' (not there)'}{terms}")
    typer.echo("\n" + "  ".join(f"{name} {version}" for name, version in versions().items()))


for verb in (
    quickstart,
    *(data.phantoms, data.prepare, data.split, data.verify, data.frames, data.crop),
    *(runs.train, runs.add_task, runs.evaluate, runs.predict, runs.report, hearts.ef, rank),
    *(lab.compare, lab.tables, lab.panels),
    *(share.prompts, share.export, share.ship, share.known, share.card, share.release, share.demo),
):
    app.command()(verb)


def main(command: typer.Typer | None = None) -> None:
    """Entry point: bad input ends in a message and an exit code, not in a traceback."""
    for stream in (sys.stdout, sys.stderr):  # names of files may hold what a console cannot show
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    exit_on_sigterm()
    try:
        (command or app)()
    except ProPLError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        if package not in NOT_LIGHT:
            raise
        verb = f"propl {sys.argv[1]}" if len(sys.argv) > 1 else "propl"
        print(f"error: {verb}: needs {package}, which is not installed; {WHOLE}", file=sys.stderr)
        sys.exit(EXIT_BAD_INPUT)
    except OSError as error:  # a folder without permission, a failing disk
        place = repr(error.filename) if error.filename else "the system"
        print(f"error: {place}: {error.strerror or error}; check its permissions and the disk", file=sys.stderr)
        sys.exit(EXIT_FAILURE)
