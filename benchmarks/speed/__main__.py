"""`python -m benchmarks.speed`: seconds and memory of this package beside a plain rebuild of the released code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from propl_monai.cli import main
from propl_monai.common.options import words
from propl_monai.errors import ProPLError

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def bench(
    parts: Annotated[str, typer.Argument(help="training, prediction, or both, comma-separated.")] = "training",
    presets: Annotated[str, typer.Option(help="paper (ConvNeXt-Tiny, 224 px), compact (160 px).")] = "paper,compact",
    passes: Annotated[str, typer.Option(help="Values of N, comma-separated.")] = "2",
    batches: Annotated[str, typer.Option(help="Pictures of each stream, comma-separated.")] = "4",
    precisions: Annotated[str, typer.Option(help="fp32, bf16.")] = "fp32",
    decoder_block: Annotated[str, typer.Option(help="Of our decoders: unetr or light.")] = "unetr",
    device: Annotated[str, typer.Option(help="cpu, or cuda, cuda:1 …")] = "cpu",
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 2,
    repeats: Annotated[int, typer.Option(help="Pairs of processes.")] = 3,
    calls: Annotated[int, typer.Option(help="Timed calls in each process.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Also write the JSON to this file.")] = None,
) -> None:
    """Time this package and a plain rebuild of the released code, each in its own process, in turn."""
    from benchmarks.speed.comparison import Repeats
    from benchmarks.speed.plans import Options, measure_parts, table
    from propl_monai.common.files import write_atomically

    combined = words(presets), numbers("passes", passes), numbers("batches", batches), words(precisions)
    options = Options(*combined, decoder_block, device, threads)
    found = measure_parts(words(parts), options, Repeats(repeats, calls), lambda line: typer.echo(line, err=True))
    text = json.dumps(found, indent=1)
    if output:
        write_atomically(output, (text + "\n").encode())
    typer.echo(text if as_json else table(found))


def numbers(name: str, text: str) -> list[int]:
    """Positive integers, comma-separated."""
    try:
        found = [int(word) for word in words(text)]
    except ValueError:
        found = []
    if not found or min(found) < 1:
        raise ProPLError(f"--{name}", f"'{text}' is no list of positive integers", "give a list such as 1,2,4")
    return found


if __name__ == "__main__":
    main(app)
