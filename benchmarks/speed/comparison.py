"""The plain reference and this package in pairs of processes, and the ratio of their times and memory."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from benchmarks.speed.measure import Measured, measure_apart
from benchmarks.speed.workloads import Work
from propl_monai.errors import ProPLError


@dataclass(frozen=True)
class Repeats:
    """How often to measure.

    Attributes:
        repeats: pairs of processes, reference and this package in turn, so that a change of the machine affects both.
        calls: timed calls in each process.
    """

    repeats: int = 3
    calls: int = 3

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise ProPLError(name, f"is {value}", "give 1 or more")


def compare(work: Work, plan: Repeats, log: Callable[[str], None], reference_precision: str = "fp32") -> dict[str, Any]:
    """One row: a piece of work by this package and the same work by the reference.

    Args:
        work: of any side.
        plan: repeats and calls.
        log: called with a line as each pair of processes ends.
        reference_precision: of the reference; the released code trains in fp32.

    Returns:
        The work without its side; "reference_precision"; "reference" and "propl", each with seconds, computing and
        memory_mb (medians over the repeats); "ratio", reference / propl, of seconds, computing and memory, each with
        median, min and max over the pairs.
    """
    plain = replace(work, side="reference", precision=reference_precision)
    own = replace(work, side="propl")
    pairs: list[tuple[Measured, Measured]] = []
    for number in range(plan.repeats):
        pair = measure_apart(plain, plan.calls), measure_apart(own, plan.calls)
        pairs.append(pair)
        log(f"{title(work)}, pair {number + 1}: {pair[0].seconds:.2f} s against {pair[1].seconds:.2f} s")
    row = {key: value for key, value in asdict(own).items() if key != "side"}
    row["reference_precision"] = reference_precision
    names = ("seconds", "computing", "memory_mb")
    for side, values in zip(("reference", "propl"), zip(*pairs, strict=True), strict=True):
        row[side] = {name: round(statistics.median(getattr(one, name) for one in values), 4) for name in names}
    row["ratio"] = {name: _spread([getattr(a, name) / max(getattr(b, name), 1e-9) for a, b in pairs]) for name in names}
    return row


def title(work: Work) -> str:
    """A piece of work in words."""
    light = "" if work.decoder_block == "unetr" else f", {work.decoder_block} decoder"
    size = f"{work.preset}, {work.pixels} px, {work.precision}{light}"
    if work.kind == "training":
        return f"training step, {size}, {work.batch}+{work.batch} pictures, N = {work.passes}"
    return f"prediction, {size}, {work.batch} pictures, {work.tasks} tasks"


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), 3),
        "min": round(min(values), 3),
        "max": round(max(values), 3),
    }
