"""The pieces of work that `python -m benchmarks.speed` measures, and the table that it prints."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.speed.comparison import Repeats, compare, title
from benchmarks.speed.workloads import KINDS, Work
from propl_monai.common.run_record import commit, versions
from propl_monai.errors import unknown

PIXELS = {"paper": 224, "compact": 160}
TASKS = (1, 8)  # tasks predicted on one picture


@dataclass(frozen=True)
class Options:
    """What to measure.

    Attributes:
        presets: "paper", "compact".
        passes: values of N for part "training".
        batches: pictures of each stream of a training step.
        precisions: "fp32", "bf16".
        decoder_block, device, threads: see `Work`.
    """

    presets: Sequence[str] = ("paper", "compact")
    passes: Sequence[int] = (2,)
    batches: Sequence[int] = (4,)
    precisions: Sequence[str] = ("fp32",)
    decoder_block: str = "unetr"
    device: str = "cpu"
    threads: int = 2

    def works(self, part: str) -> Iterator[Work]:
        """Training steps of every combination, or predictions of one picture."""
        same: dict[str, Any] = {"decoder_block": self.decoder_block, "device": self.device, "threads": self.threads}
        for preset in self.presets:
            base = Work("propl", part, preset, pixels=PIXELS[preset], **same)
            for precision in self.precisions:
                if part == "prediction":
                    yield from (replace(base, batch=1, precision=precision, tasks=count) for count in TASKS)
                else:
                    for batch in self.batches:
                        yield from (replace(base, batch=batch, passes=n, precision=precision) for n in self.passes)


def measure_parts(
    parts: Sequence[str], options: Options, repeats: Repeats, log: Callable[[str], None]
) -> dict[str, Any]:
    """All figures, with a description of the machine.

    Args:
        parts: of "training" (a step) and "prediction" (one picture, one task and all eight).
        options, repeats: what to measure, and how often.
        log: called with a line as each pair of processes ends.
    """
    for kind, names, known in (("part", parts, KINDS), ("preset", options.presets, PIXELS)):
        for name in names:
            if name not in known:
                raise unknown("bench", kind, name, known)
    rows = {part: [compare(work, repeats, log) for work in options.works(part)] for part in parts}
    return {"machine": machine(options), "versions": versions(), "commit": commit(), "plan": vars(repeats), **rows}


def machine(options: Options) -> dict[str, Any]:
    """Processor, device, threads, and the load of the machine."""
    name = platform.processor() or platform.machine()
    about = Path("/proc/cpuinfo")
    if about.is_file():
        lines = [line.partition(":")[2].strip() for line in about.read_text().splitlines() if line[:10] == "model name"]
        name = lines[0] if lines else name
    if options.device.startswith("cuda"):
        name = torch.cuda.get_device_name(options.device)
    busy = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {"processor": name, "device": options.device, "threads": options.threads, "load_average": busy}


def table(found: dict[str, Any]) -> str:
    """The figures as Markdown, below a line on the machine."""
    about, plan = found["machine"], found["plan"]
    lines = [
        f"{about['processor']}, {about['device']}, {about['threads']} threads, load {about['load_average']}; "
        f"medians of {plan['repeats']} processes of {plan['calls']} calls; torch {found['versions']['torch']}"
    ]
    for part in KINDS:
        if part in found:
            lines += ["", f"**{part}**", "", *_rows(found[part])]
    return "\n".join(lines)


def _rows(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    yield "| work | reference s | ours s | ratio [min, max] | ratio of CPU time | memory MB, reference / ours |"
    yield "|---|---:|---:|---:|---:|---:|"
    for row in rows:
        plain, own, ratio = row["reference"], row["propl"], row["ratio"]
        work = Work("propl", **{key: value for key, value in row.items() if key in Work.__dataclass_fields__})
        clock = f"{ratio['seconds']['median']:.2f} [{ratio['seconds']['min']:.2f}, {ratio['seconds']['max']:.2f}]"
        yield (
            f"| {title(work)} | {plain['seconds']:.3f} | {own['seconds']:.3f} | {clock} "
            f"| {ratio['computing']['median']:.2f} | {plain['memory_mb']:.0f} / {own['memory_mb']:.0f} |"
        )
