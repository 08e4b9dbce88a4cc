"""Verbs of the comparison lab."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from propl_monai.cli.verbs.runs import Bundle, Trust
from propl_monai.common.options import words
from propl_monai.common.packaged_bundle import trusted_bundle
from propl_monai.errors import EXIT_OK, EXIT_PARTIAL


def compare(
    data: Annotated[Path, typer.Argument(help="Folder of the images.")],
    runs: Annotated[Path, typer.Argument(help="Folder of all runs; workers on several machines may share it.")],
    bundle: Bundle = None,
    methods: Annotated[str, typer.Option(help="Methods and controls, comma-separated, or all.")] = "propl,supervised",
    labelled: Annotated[str, typer.Option(help="Labelled fractions, comma-separated.")] = "1/8",
    seeds: Annotated[str, typer.Option(help="Seeds, comma-separated.")] = "0",
    budget: Annotated[str, typer.Option(help="short (500 steps), medium (2,000) or long (4,000).")] = "short",
    preset: Annotated[str, typer.Option(help="Preset of the bundle, or several, comma-separated.")] = "compact",
    datalist: Annotated[
        Path | None, typer.Option(help="A verified datalist; default: one is made and verified.")
    ] = None,
    record: Annotated[Path | None, typer.Option(help="Copy run.json and cases.csv of each finished run here.")] = None,
    leave_out: Annotated[
        str,
        typer.Option(
            help="External data: SOURCE or SOURCE/GROUP, comma-separated; neither trained nor validated on, alone evaluated."
        ),
    ] = "",
    trust: Trust = "",
) -> None:
    """Train and evaluate a grid of methods, labels and seeds; call it again to resume."""
    from propl_monai.evaluation.lab.one_run import Lab
    from propl_monai.evaluation.lab.run_grid import compare_all

    logging.basicConfig(level=logging.INFO, format="%(asctime)s  %(message)s", datefmt="%H:%M:%S")
    lab = Lab(trusted_bundle(bundle, trust), data, runs, datalist, preset, record=record)
    outcome = compare_all(lab, words(methods), words(labelled), words(seeds), budget, words(leave_out))
    typer.echo(
        f"finished {len(outcome.done)}, with other workers {len(outcome.elsewhere)}, failed {len(outcome.failed)}"
    )
    raise typer.Exit(EXIT_PARTIAL if outcome.failed else EXIT_OK)


def panels(
    runs: Annotated[
        list[Path], typer.Argument(help="Folders of runs, e.g. RUNS/short/propl/1-8/seed-0; one row per run.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Output folder.")],
    data: Annotated[Path, typer.Option(help="Folder of the images.")],
    task: Annotated[
        list[str] | None, typer.Option("--task", "-t", help="Name or code of a task; default: all.")
    ] = None,
    datalist: Annotated[Path | None, typer.Option(help="Datalist of the runs; default: the one beside them.")] = None,
) -> None:
    """Draw the best, median and worst test case of each task with the outlines of runs of a comparison (extra `lab`)."""
    from propl_monai.evaluation.lab.panel_cases import make_panels

    for path in make_panels(runs, output, data, task, datalist):
        typer.echo(str(path))


def tables(
    runs: Annotated[Path, typer.Argument(help="Folder that `propl compare` wrote to, or its --record.")],
    output: Annotated[Path, typer.Argument(help="Output folder of tables and figures.")],
    against: Annotated[str, typer.Option(help="The row that the others are compared with.")] = "supervised",
) -> None:
    """Make tables (Markdown, CSV, HTML) and figures of a comparison (extra `lab`)."""
    from propl_monai.evaluation.lab.comparison import read_comparisons
    from propl_monai.evaluation.lab.figures import make_figures
    from propl_monai.evaluation.lab.tables import make_tables

    comparisons = read_comparisons(runs, against)
    made = make_tables(comparisons, output)
    figures, gaps = make_figures(comparisons, output)
    for line in [*made, *figures, *gaps]:
        typer.echo(str(line))
