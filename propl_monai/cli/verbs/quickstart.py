"""The quick start: everything from phantom images to masks on a page of screen, stage by stage."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from propl_monai import tasks
from propl_monai.cli.verbs.runs import Bundle, Trust
from propl_monai.common.packaged_bundle import trusted_bundle

PRESETS = ["compact", "quickstart"]
SHOWN = (
    "left atrium",
    "left ventricle",
    "myocardium",
)  # they share their images, so that one overlay shows three masks


def quickstart(
    folder: Annotated[
        Path, typer.Argument(help="Phantoms go to its phantoms/, results to its runs/quickstart/.")
    ] = Path(),
    bundle: Bundle = None,
    trust: Trust = "",
) -> None:
    """Try everything in a few minutes: make phantom images, train, evaluate, predict.

    Nothing is downloaded. The training uses 1/8 of the labels and takes 3 to 6 minutes on two CPU cores. Call it again after
    an interruption: finished stages are skipped, and a training continues from its last epoch. The commands of the MONAI
    bundle that it runs are printed.
    """
    from propl_monai.datasets.phantoms.write_phantoms import DATASET, write_phantoms

    bundle = trusted_bundle(bundle, trust)
    data, runs = folder / "phantoms", folder / "runs" / "quickstart"
    train, models, test, masks = (runs / name for name in ("train", "models", "test", "masks"))
    weights = models / "model.safetensors"
    typer.echo(f"1/4 phantom images\npropl phantoms {_quoted(str(data))}")
    if not all((data / task.code / DATASET / "manifest.csv").is_file() for task in tasks.TASKS):  # written last
        write_phantoms(data)
    places = {"dataset_dir": data, "model_dir": models}
    _stage("2/4 training", "training", bundle, ["train", *PRESETS], {**places, "output_dir": train}, weights)
    _stage(
        "3/4 evaluation", "evaluating", bundle, ["train", *PRESETS, "evaluate"], {**places, "output_dir": test}, weights
    )
    pictures = data / tasks.find(SHOWN[0]).code / DATASET / "images"
    keys = {"dataset_dir": pictures, "tasks": list(SHOWN), "overlay": True, "weights": weights, "output_dir": masks}
    _stage("4/4 prediction", "inference", bundle, ["inference", *PRESETS], keys, weights)
    mean = json.loads((test / "run.json").read_text(encoding="utf-8"))["results"]["table"][-1]
    typer.echo(
        f"\nTest mDice {100 * mean['dice']:.1f} % over {mean['n']} cases; the table by task: {test / 'table.md'}"
    )
    typer.echo(f"Masks over their images: {masks}/*_overlay.png")
    typer.echo("The same on your images: propl train DATA -o runs/mine --preset compact")


def _stage(
    title: str, run_id: str, bundle: Path, configs: Sequence[str], keys: Mapping[str, object], weights: Path
) -> None:
    """Print a command of the bundle, and run it unless its run.json says that it was finished with these weights."""
    from propl_monai.common.bundle_command import bundle_arguments
    from propl_monai.common.files import file_sha256

    arguments = bundle_arguments(run_id, bundle, configs, keys)
    typer.echo(f"\n{title}\npython -m monai.bundle {' '.join(map(_quoted, arguments))}")
    path = Path(str(keys["output_dir"])) / "run.json"
    content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if content.get("status") == "finished" and weights.is_file():
        used = {entry["sha256"] for entry in content["inputs"]}
        if run_id == "training" or file_sha256(weights) in used:
            typer.echo(f"done before, see {path.parent}")
            return
    resume = ["--resume", "true"] if run_id == "training" else []
    code = subprocess.run([sys.executable, "-m", "monai.bundle", *arguments, *resume], check=False).returncode
    if code:
        raise typer.Exit(code)


def _quoted(argument: str) -> str:
    """An argument as one types it: a list of file names, which holds single quotes, between double ones."""
    return f'"{argument}"' if "'" in argument and not set('"$`\\!') & set(argument) else shlex.quote(argument)
