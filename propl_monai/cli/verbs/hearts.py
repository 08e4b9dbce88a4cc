"""Verbs about hearts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from propl_monai.errors import ProPLError

Files = list[Path] | None
Frames = tuple[int, int] | None


def ef(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for tables and pictures; new or empty.")],
    four_chamber: Annotated[
        Files, typer.Option("--4ch", help="Apical four-chamber view: a cine; or twice, stills of ED and ES.")
    ] = None,
    two_chamber: Annotated[
        Files, typer.Option("--2ch", help="Apical two-chamber view: a cine; or twice, stills of ED and ES.")
    ] = None,
    four_chamber_frames: Annotated[
        Frames, typer.Option("--4ch-frames", help="Frames of ED and ES in the cine, from 1; default: they are found.")
    ] = None,
    two_chamber_frames: Annotated[
        Frames, typer.Option("--2ch-frames", help="Frames of ED and ES in the cine, from 1; default: they are found.")
    ] = None,
    masks: Annotated[bool, typer.Option("--masks", help="The files are masks of the left ventricle.")] = False,
    weights: Annotated[
        Path | None,
        typer.Option(
            "--weights", "--bundle", help="Weights file, training folder or bundle; default: the package's own."
        ),
    ] = None,
    spacing: Annotated[
        tuple[float, float] | None, typer.Option(help="Height and width of a pixel in mm, whatever the files hold.")
    ] = None,
    steady: Annotated[
        float, typer.Option(help="Steadies cines: standard deviation of a filter over time, in frames; 0: off.")
    ] = 0.0,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or cuda:1; default: CUDA if there is a GPU.")] = None,
) -> None:
    """Measure the ejection fraction of the left ventricle by Simpson's rule, from one apical view or two."""
    from propl_monai.inference.cines.heart import View, measure_ejection
    from propl_monai.inference.predictor import Predictor

    given = (("4CH", four_chamber, four_chamber_frames), ("2CH", two_chamber, two_chamber_frames))
    views = [View(name, tuple(files), frames) for name, files, frames in given if files]
    if not views:
        raise ProPLError("propl ef", "no view was given", "give --4ch, --2ch, or both")
    predictor = None
    if not masks:
        predictor = Predictor.from_bundle(weights, device=device) if weights else Predictor(device=device)
    found = measure_ejection(predictor, views, output, spacing, steady)
    volumes = f"EDV {found.end_diastolic:.4g} {found.unit}, ESV {found.end_systolic:.4g} {found.unit}"
    planes = "two planes" if found.planes == 2 else "one plane"
    typer.echo(f"EF {found.fraction:.1f} % ({planes}; {volumes}); see {output}")
    for note in found.notes:
        typer.echo(f"note: {note}", err=True)
