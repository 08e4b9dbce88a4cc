"""Which rows stand in which table and figure: the one place to change it. Names are those of `lab.variants`."""

from __future__ import annotations

from collections.abc import Iterable

from propl_monai.lab.variants import variants

FRACTIONS = ("1/16", "1/8", "1/4")  # Tables 1-3 and 4-6 of the paper, in this order
CONTROLS_AT = "1/8"
UPPER_BOUND = "supervised-all"

METHOD_ROWS = (
    *("supervised", "propl", "propl-paper", "propl-released", "mean-teacher", "mean-teacher-cutmix"),
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


def fraction_of(variant: str, fraction: str) -> str:
    """The labelled fraction of a variant in a table of that fraction: its own where it fixes one, as all labels does."""
    return fixed_fraction(variant) or fraction


def fixed_fraction(variant: str) -> str | None:
    """The labelled fraction that a variant fixes itself."""
    known = variants().get(variant)
    return known.train.get("labelled_fraction") if known else None


def in_order(names: Iterable[str]) -> list[str]:
    """Variants in the order of `lab.variants`, then those it does not know by name."""
    listed = list(variants())
    return sorted(set(names), key=lambda name: (listed.index(name) if name in listed else len(listed), name))
