"""Verbs that make, convert and check data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from propl_monai import tasks
from propl_monai.common.options import pairs
from propl_monai.errors import EXIT_BAD_INPUT, EXIT_OK, EXIT_PARTIAL


def phantoms(
    folder: Annotated[Path, typer.Argument(help="Where to write; new, empty, or made by this command.")],
    cases: Annotated[int, typer.Option(help="Images of each task.")] = 96,
    size: Annotated[int, typer.Option(help="Height and width in pixels.")] = 192,
    seed: Annotated[int, typer.Option(help="Random seed of anatomy and speckle.")] = 0,
) -> None:
    """Make ultrasound-like images and masks of all eight tasks, to try things on."""
    from propl_monai.datasets.phantoms.write_phantoms import write_phantoms

    write_phantoms(folder, cases, size, seed)
    typer.echo(f"{cases} images of each of {len(tasks.TASKS)} tasks in {folder}")


def prepare(
    source: Annotated[str, typer.Argument(help="The data set; `propl info` lists them.")],
    folder: Annotated[Path, typer.Argument(help="The unpacked download; it is only read.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Datalist to write or add to; pictures go beside it.")],
    option: Annotated[list[str] | None, typer.Option(help="Option of the source, name=value; may be repeated.")] = None,
    splits: Annotated[
        str,
        typer.Option(help="hash (by group), or official (the publishers' own, if any)."),
    ] = "hash",
) -> None:
    """Turn a data set in its original layout into pictures, masks and a datalist."""
    from propl_monai.cli.progress import progress
    from propl_monai.datasets.prepare import prepare as run

    with progress(f"preparing {source}") as shown:
        prepared = run(source, folder, output, pairs("--option", option or []), splits, shown)
    typer.echo(prepared.report())
    root = prepared.datalist.root
    typer.echo(f"\nNext: propl verify {output}" + ("" if root == output.parent else f" --root {root}"))
    raise typer.Exit(EXIT_PARTIAL if prepared.refused else EXIT_OK)


def split(
    datalist: Annotated[Path, typer.Argument(help="A datalist.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The datalist to write.")],
    protocol: Annotated[
        str, typer.Option(help="all, universal-8x800, universal-8x800-image-level, or a JSON file.")
    ] = "all",
) -> None:
    """Choose cases and splits by a protocol; the same originals give the same lists everywhere."""
    from propl_monai.datasets.apply_protocol import split_datalist

    typer.echo(split_datalist(datalist, protocol, output))


def verify(
    datalist: Annotated[Path, typer.Argument(help="A datalist.")],
    root: Annotated[Path | None, typer.Option(help="Folder that its paths start from; default: its own.")] = None,
    processes: Annotated[int | None, typer.Option(help="Decoding processes; default one per core.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")] = False,
) -> None:
    """Decode every file of a datalist once, report all faults, and write the record that training requires."""
    from propl_monai.cli.progress import progress
    from propl_monai.common.files import require_file
    from propl_monai.datasets.verification.record import write_record
    from propl_monai.datasets.verification.verify import verify_datalist

    require_file(datalist)  # else a record would be written beside what is not there
    with progress("verifying") as shown:
        verification = verify_datalist(datalist, root, processes, shown)
    text = json.dumps(verification.to_json(), indent=2) if as_json else verification.to_text()
    try:
        typer.echo(text.encode("utf-8", "backslashreplace").decode())  # paths may hold what is not UTF-8
    finally:  # a console or pipe that fails must not lose the record
        write_record(datalist, verification)
    raise typer.Exit(EXIT_BAD_INPUT if verification.errors else EXIT_OK)


def frames(
    cine: Annotated[Path, typer.Argument(help="DICOM, video, NIfTI, MHA, multi-page TIFF, or a still.")],
    folder: Annotated[Path, typer.Argument(help="Where to write; new or empty.")],
    every: Annotated[int, typer.Option(help="Keep every n-th frame.")] = 1,
    crop: Annotated[bool, typer.Option("--crop", help="Cut the border around the scan.")] = False,
    blank: Annotated[bool, typer.Option("--blank", help="Blacken text and all else outside the scan.")] = False,
) -> None:
    """Write the frames of a cine as PNG, without metadata. Text burned into the picture stays, but for --blank: look."""
    from propl_monai.cli.progress import progress
    from propl_monai.images.frames import write_frames

    with progress("writing frames") as shown:
        written = write_frames(cine, folder, every, shown, crop, blank)
    typer.echo(f"{len(written)} frames in {folder}")


def crop(
    inputs: Annotated[list[Path], typer.Argument(help="Files and folders, however deep; stills and cines.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write to; new or empty.")],
    blank: Annotated[bool, typer.Option("--blank", help="Blacken text and all else outside the scan.")] = False,
    keep_size: Annotated[bool, typer.Option("--keep-size", help="Cut nothing; for --blank alone.")] = False,
) -> None:
    """Cut the border around the scan from pictures and cines, and write them as PNG, with a table of what was cut."""
    from propl_monai.cli.progress import progress
    from propl_monai.deploy.crop_folder import crop_paths

    with progress("cropping") as shown:
        files, found, refused, code = crop_paths(inputs, output, blank, keep_size, shown)
    typer.echo(f"{files} files written, a sector found in {found}, {refused} refused; see {output}")
    raise typer.Exit(code)
