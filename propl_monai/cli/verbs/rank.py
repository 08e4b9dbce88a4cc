"""The verb that says what to label next."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer


def rank(
    inputs: Annotated[list[Path], typer.Argument(help="Files and folders of pictures; or one datalist (.json).")],
    task: Annotated[str, typer.Option("--task", "-t", help="The target to label: name, code, synonym or sentence.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The table to write.")] = Path("order.csv"),
    strategy: Annotated[
        str,
        typer.Option(help="uncertainty-views, uncertainty-dropout, diversity, uncertainty-diversity or random."),
    ] = "uncertainty-views",
    labelled: Annotated[
        list[Path] | None,
        typer.Option(help="Files and folders of pictures that have their label already; repeatable."),
    ] = None,
    first: Annotated[int | None, typer.Option(help="Number of pictures that are wanted; default: all.")] = None,
    weights: Annotated[
        Path | None,
        typer.Option(
            "--weights", "--bundle", help="Weights file, training folder or bundle; default: the package's own."
        ),
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of a datalist's images; default: its own.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or cuda:1; default: CUDA if there is a GPU.")] = None,
    batch: Annotated[int, typer.Option(help="Pictures that go through the network together.")] = 8,
    seed: Annotated[int, typer.Option(help="Of the strategy random.")] = 0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Forget what is known of other weights, strategies and tasks.")
    ] = False,
) -> None:
    """Rank pictures without labels: those first whose label would help most."""
    from propl_monai.cli.progress import progress
    from propl_monai.inference.engines.choice import require_torch
    from propl_monai.inference.predictor import Predictor
    from propl_monai.inference.ranking.rank_paths import rank_paths
    from propl_monai.inference.ranking.strategies import find_strategy

    chosen = find_strategy(strategy)
    options: dict[str, Any] = {"device": device, "batch": batch}
    if chosen.uncertainty_of:
        require_torch("uncertainty")
        options |= {"engine": "torch", "uncertainty_of": chosen.uncertainty_of}
    predictor = Predictor.from_bundle(weights, **options) if weights else Predictor(**options)
    pictures, known = list(inputs), list(labelled or [])
    if len(inputs) == 1 and inputs[0].suffix == ".json":
        from propl_monai.data.datalist import Datalist
        from propl_monai.data.to_label import to_label

        (name,) = predictor.names(task)
        pictures, those = to_label(Datalist.read(inputs[0], data), name)
        known += those
    with progress("looking") as shown:
        outcome = rank_paths(
            predictor,
            pictures,
            output,
            task,
            strategy,
            labelled=known,
            first=first,
            seed=seed,
            overwrite=overwrite,
            progress=shown,
        )
    left = f", {outcome.labelled} left out, as they have labels" if outcome.labelled else ""
    counts = f"{outcome.files} files looked at, {outcome.skipped} before, {outcome.refused} refused{left}"
    typer.echo(f"{outcome.ranked} pictures ranked by {strategy} ({chosen.title}); {counts}; see {output}")
    raise typer.Exit(outcome.code)
