"""Verbs that run the bundle, or use what it trained."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from propl_monai.options import pairs, words


def train(
    data: Annotated[Path, typer.Argument(help="Folder of the images.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the run; weights go to its models/.")],
    bundle: Annotated[Path, typer.Option(help="The bundle folder.")] = Path("bundle"),
    preset: Annotated[str, typer.Option(help="Configs over train.json, comma-separated; empty for the paper's.")] = "",
    settings: Annotated[list[str] | None, typer.Option("--set", help="Any config key=value; may be repeated.")] = None,
) -> None:
    """Train; the same run as `python -m monai.bundle run training`."""
    from propl_monai.bundle_command import bundle_arguments, run_bundle

    places = {"dataset_dir": str(data), "output_dir": str(output), "model_dir": str(output / "models")}
    keys = {**places, **pairs("--set", settings or [])}
    run_bundle(bundle_arguments("training", bundle, ["train", *words(preset)], keys))


def evaluate(
    data: Annotated[Path, typer.Argument(help="Folder of the images.")],
    run: Annotated[Path, typer.Argument(help="Folder of a training; the tables go to its test/.")],
    bundle: Annotated[Path, typer.Option(help="The bundle folder.")] = Path("bundle"),
    preset: Annotated[str, typer.Option(help="The configs that it was trained with, comma-separated.")] = "",
    settings: Annotated[list[str] | None, typer.Option("--set", help="Any config key=value; may be repeated.")] = None,
) -> None:
    """Evaluate on the test split; the same run as `python -m monai.bundle run evaluating`."""
    from propl_monai.bundle_command import bundle_arguments, run_bundle

    places = {"dataset_dir": str(data), "output_dir": str(run / "test"), "model_dir": str(run / "models")}
    if (run / "datalist.json").exists():
        places["datalist_file"] = str(run / "datalist.json")
    keys = {**places, **pairs("--set", settings or [])}
    run_bundle(bundle_arguments("evaluating", bundle, ["train", *words(preset), "evaluate"], keys))
