"""The rows of the comparison: each a name, and what it changes in the preset; and which of them stand in which table and
figure. The rows themselves are data, in `variants.json`."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cache
from importlib import resources
from typing import Any

from propl_monai.data.splits import parse_fraction
from propl_monai.errors import unknown

FRACTIONS = ("1/16", "1/8", "1/4")  # Tables 1-3 and 4-6 of the paper, in this order
CONTROLS_AT = "1/8"
UPPER_BOUND = "supervised-all"

METHOD_ROWS = (
    *("supervised", "propl", "propl-views", "propl-paper", "propl-released", "mean-teacher", "mean-teacher-cutmix"),
    UPPER_BOUND,
)
# Tables 4-6 and their paper rows: (prompting, UPLC) -> variant.
ABLATION = {
    (False, False): "prompt-none-uplc-off",
    (False, True): "prompt-none",
    (True, False): "uplc-off",
    (True, True): "propl",
}
# Figures: variant -> what it is called on the axis.
PROMPTING = {"propl": "text", "prompt-learned": "learned", "prompt-onehot": "one-hot", "prompt-none": "none"}
PASSES = {"passes-1": 1, "propl": 2, "passes-4": 4, "passes-8": 8}
PERTURBATIONS = {
    "propl": "dropout,\nelements",
    "dropout-token": "dropout,\ntokens",
    "dropout-channel": "dropout,\nchannels",
    "noise-gaussian": "Gaussian\nnoise",
    "uplc-off": "no UPLC",
}
TEXT_AGAINST_ONEHOT = {"propl": "text", "prompt-onehot": "one-hot"}
CURVES = ("propl", "supervised", "mean-teacher", "mean-teacher-cutmix", UPPER_BOUND)
MEMORY = (*METHOD_ROWS, "one-model-a-task")
LABELS = ("propl", "supervised", "mean-teacher")


@dataclass(frozen=True)
class Variant:
    """One row.

    Attributes:
        name: as on the command line and in tables.
        title: one line.
        method: a name of `propl_monai.training.methods.METHODS`.
        network: a name of `propl_monai.model.networks.registry.NETWORKS`.
        train: config keys of the bundle's training, and their values.
        of: another variant whose trained weights this one evaluates in another way; it then has no training of its own.
        evaluate: config keys of the bundle's evaluation, and their values.
        one_model_a_task: train one model for each task, each with the share of the steps that its pictures have.
    """

    name: str
    title: str
    method: str
    train: Mapping[str, Any] = field(default_factory=dict)
    of: str | None = None
    evaluate: Mapping[str, Any] = field(default_factory=dict)
    one_model_a_task: bool = False
    network: str = "propl"


@dataclass(frozen=True)
class Run:
    """One cell of the grid: a variant trained with some of the labels, from one seed, for one budget.

    Attributes:
        labelled: fraction of the train pictures whose masks are used.
        leave_out: external data, which training does not see and which alone are evaluated; see `cohort.external_cases`.
    """

    variant: Variant
    labelled: Fraction
    seed: int
    budget: str
    leave_out: tuple[str, ...] = ()

    @property
    def folder(self) -> str:
        """Where it goes, relative to the folder of all runs."""
        home = table_folder(self.budget, self.leave_out)
        return f"{home}/{self.variant.name}/{str(self.labelled).replace('/', '-')}/seed-{self.seed}"

    @property
    def base(self) -> Run:
        """The run whose weights this one evaluates; itself where it trains."""
        return self if self.variant.of is None else replace(self, variant=variant(self.variant.of))


def table_folder(budget_name: str, leave_out: Sequence[str]) -> str:
    """The folder of all that may stand in one table: one budget, and either the test split or the same external data."""
    if not leave_out:
        return budget_name
    words = [re.sub(r"\W+", "-", pattern, flags=re.ASCII).strip("-") for pattern in leave_out]
    if not all(re.fullmatch(r"\w+", pattern, re.ASCII) for pattern in leave_out):  # others may make the same words
        words.append(hashlib.sha256("\n".join(leave_out).encode()).hexdigest()[:6])
    return f"{budget_name}-without-{'-'.join(words)}"


@cache
def _data() -> dict[str, Any]:
    return json.loads(
        resources.files("propl_monai.evaluation.lab").joinpath("variants.json").read_text(encoding="utf-8")
    )


@cache
def variants() -> dict[str, Variant]:
    """Every variant by name, in the order of the tables."""
    return {name: Variant(name, **facts) for name, facts in _data()["variants"].items()}


def variant(name: str) -> Variant:
    """The variant of a name."""
    if name not in variants():
        raise unknown("--methods", "method or control", name, variants())
    return variants()[name]


def trained_as(name: str) -> str:
    """The row whose training a row stands on: itself, or the one it evaluates in another way."""
    row = variants().get(name)
    return row.of if row and row.of else name


def budget(name: str) -> dict[str, Any]:
    """Config keys that fix how long every run of a table trains: steps, pictures a step, size."""
    budgets = _data()["budgets"]
    if name not in budgets:
        raise unknown("--budget", "budget", name, budgets)
    return dict(budgets[name])


def grid(
    names: list[str], labelled: list[str], seeds: list[int], budget_name: str, leave_out: Sequence[str] = ()
) -> list[Run]:
    """All runs of a comparison, without doubles; the first seed of every row comes before the second of any.

    A variant that fixes its own labelled fraction (all labels) has one run per seed.
    """
    budget(budget_name)
    runs = []
    for seed in seeds:
        for name in names:
            row = variant(name)
            for text in [row.train["labelled_fraction"]] if "labelled_fraction" in row.train else labelled:
                runs.append(Run(row, parse_fraction(text), seed, budget_name, tuple(leave_out)))
    return list({run.folder: run for run in runs}.values())


def fraction_of(variant: str, fraction: str) -> str:
    """The labelled fraction of a variant in a table of that fraction: its own where it fixes one, as all labels does."""
    known = variants().get(variant)
    return known.train.get("labelled_fraction", fraction) if known else fraction


def in_order(names: Iterable[str]) -> list[str]:
    """Variants in the order of `lab.variants`, then those it does not know by name."""
    listed = list(variants())
    return sorted(set(names), key=lambda name: (listed.index(name) if name in listed else len(listed), name))
