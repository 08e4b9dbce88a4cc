"""A finished training and its evaluation on phantoms, made of random weights, with names that try to break a page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from monai.data import DataLoader, Dataset
from monai.engines import PrepareBatchExtraInput, SupervisedEvaluator

from propl_monai.common.run_record import RunRecord
from propl_monai.data import transforms
from propl_monai.data.datalist import Datalist
from propl_monai.datasets.cohort import evaluation_items
from propl_monai.datasets.sources.registry import read_source
from propl_monai.evaluation.case_table import CaseTable, describe
from propl_monai.inference import postprocess
from propl_monai.inference.inferer import PromptInferer
from propl_monai.model.network import ProPL
from propl_monai.model.prompts import PromptBank
from propl_monai.model.weights import WEIGHTS, read_header, save_weights
from propl_monai.tasks import NAMES

SIZE = (32, 32)
TASKS = ("left atrium", "thyroid nodule")
NASTY_CASE = "LA/<script>document.title='owned'</script>"
NASTY_PROMPT = "Segment <script>document.title='asked'</script> & \"the\" <b>left atrium</b>."
NASTY_SOURCE = "<img src=x onerror=\"document.title='seen'\">"


def make_run(folder: Path, data: Path, split: str = "test") -> Path:
    """A training folder with its evaluation in `test`.

    Args:
        folder: of the training; made.
        data: a folder of phantoms, eight a task.
        split: that is evaluated.

    Returns:
        `folder`.
    """
    datalist = make_datalist(data)
    datalist.write(folder / "datalist.json")
    network = make_network(folder)
    about = {"spatial_size": SIZE, "normalisation": "half", "epoch": 2, "seed": 3, "datalist_sha256": datalist.sha256}
    save_weights(network, folder / "models", about)
    _write_training(folder, datalist)
    _evaluate(folder, network, datalist, split)
    return folder


def make_datalist(data: Path) -> Datalist:
    """Three train, two validation and three test cases a task; the worst names that the rules of a datalist let through."""
    cases = []
    for task in TASKS:
        found = sorted((c for c in read_source("folder", str(data)).cases if c.task == task), key=lambda c: c.case_id)
        splits = ("train",) * 3 + ("validation",) * 2 + ("test",) * 3
        cases += [replace(c, split=s, group=c.case_id) for c, s in zip(found, splits, strict=True)]
    last = max(number for number, case in enumerate(cases) if case.task == TASKS[0])
    cases[last] = replace(cases[last], case_id=NASTY_CASE, source=NASTY_SOURCE)
    return Datalist(data, tuple(cases), "phantoms & <b>others</b>")


def make_network(folder: Path) -> ProPL:
    """A small network with random weights that was asked with a nasty sentence."""
    packaged = PromptBank.load()
    facts = packaged.describe()
    sentences = [
        NASTY_PROMPT if name == TASKS[0] else said for name, said in zip(NAMES, facts["sentences"], strict=True)
    ]
    bank = PromptBank(facts["tasks"], sentences, packaged.embeddings, packaged.mask, "none", "0" * 64)
    bank.save(folder / "bank.safetensors")
    torch.manual_seed(0)
    return ProPL("test_efficientnet", prompts=str(folder / "bank.safetensors")).eval()


def _write_training(folder: Path, datalist: Datalist) -> None:
    lines: list[dict[str, Any]] = []
    for epoch in (1, 2, 3):
        scores = {"sd": 0.5 + 0.1 * epoch, "pd": 0.45 + 0.1 * epoch, "mean": 0.5 + 0.08 * epoch}
        lines.append(
            {
                **{"epoch": epoch, "iteration": 10 * epoch, "learning_rate": 0.001 / epoch, "skipped_steps": 0},
                **{"supervised": 0.9 / epoch, "pseudo": 0.8 / epoch, "loss": 1.7 / epoch},
                **{"validation": {**scores, "best_decoder": "sd"}, "seconds": 12.5},
                "validation_tasks": dict.fromkeys(TASKS, 0.5 + 0.1 * epoch),
            }
        )
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    options = {"seed": 3, "labelled_fraction": "1/8", "preset": "</td><script>document.title='set'</script>"}
    record = RunRecord(folder / "run.json", "train", options, [folder / "datalist.json"])
    counts = {"labelled": 1, "unlabelled": 5, "validation": 4}
    results = {"cases": counts, "datalist_sha256": datalist.sha256, "epochs": 3, "best_epoch": 2}
    record.write("finished", [folder / "models" / WEIGHTS], results)


def _evaluate(folder: Path, network: ProPL, datalist: Datalist, split: str) -> None:
    """As `bundle/configs/evaluate.json` wires it."""
    inputs: Sequence[str] = [str(folder / "models" / WEIGHTS), str(folder / "datalist.json")]
    about = describe(read_header(inputs[0]), datalist, split, network.chosen_decoder)
    options = {"split": split, "tasks": list(TASKS), "metric_convention": "standard", "device": "cpu"}
    items = evaluation_items(datalist, split, TASKS)
    SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(items, transforms.evaluation(SIZE, "half")), batch_size=1),
        network=network,
        inferer=PromptInferer(),
        prepare_batch=PrepareBatchExtraInput(extra_keys={"task": "task"}),
        postprocessing=postprocess.RestoreSized("pred"),
        val_handlers=[CaseTable(str(folder / "test"), options, inputs, about=about)],
    ).run()
