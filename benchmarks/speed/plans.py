"""Which pieces of work `python -m benchmarks.speed` measures, and the table it prints."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.speed.comparison import Plan, Tell, compare, title
from benchmarks.speed.data_path import data_path
from benchmarks.speed.floor import floor
from benchmarks.speed.serving import serving
from benchmarks.speed.workloads import Work
from propl_monai.common.run_record import commit, versions
from propl_monai.errors import unknown

PARTS = ("training", "prediction", "data", "serving")
PIXELS = {"paper": 224, "compact": 160}
TASKS = (1, 8)  # asked of one picture


@dataclass(frozen=True)
class Asked:
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

    def works(self) -> Iterator[Work]:
        """Training steps of every combination."""
        same: dict[str, Any] = {"decoder_block": self.decoder_block, "device": self.device, "threads": self.threads}
        for preset in self.presets:
            base = Work("propl", preset=preset, pixels=PIXELS[preset], **same)
            for batch in self.batches:
                for count in self.passes:
                    for precision in self.precisions:
                        yield replace(base, batch=batch, passes=count, precision=precision)


def bench(parts: Sequence[str], asked: Asked, plan: Plan, tell: Tell) -> dict[str, Any]:
    """Measure and return all figures, with the machine that they hold for.

    Args:
        parts: of "training" (a step against the plain reference, and its floor), "prediction" (one picture, one task and
            all eight, against the reference), "data" (the loader against the step), "serving" (files, loading, frames a
            second).
        asked, plan: what and how carefully.
        tell: gets a line for each thing that is done.
    """
    for part in parts:
        if part not in PARTS:
            raise unknown("bench", "part", part, PARTS)
    for preset in asked.presets:
        if preset not in PIXELS:
            raise unknown("bench", "preset", preset, PIXELS)
    measure = {"training": _training, "prediction": _prediction, "data": _data, "serving": _serving}
    rows = {part: measure[part](asked, plan, tell) for part in parts}
    return {"machine": machine(asked), "versions": versions(), "commit": commit(), "plan": vars(plan), **rows}


def machine(asked: Asked) -> dict[str, Any]:
    """What the figures hold for."""
    name = platform.processor() or platform.machine()
    about = Path("/proc/cpuinfo")
    if about.is_file():
        lines = [line.partition(":")[2].strip() for line in about.read_text().splitlines() if line[:10] == "model name"]
        name = lines[0] if lines else name
    if asked.device.startswith("cuda"):
        name = torch.cuda.get_device_name(asked.device)
    busy = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {"processor": name, "device": asked.device, "threads": asked.threads, "load_average": busy}


def _training(asked: Asked, plan: Plan, tell: Tell) -> list[dict[str, Any]]:
    rows = []
    for work in asked.works():
        row = compare(work, plan, tell)
        row["floor"] = floor(work)
        rows.append(row)
    return rows


def _prediction(asked: Asked, plan: Plan, tell: Tell) -> list[dict[str, Any]]:
    works = replace(asked, passes=(1,), batches=(1,)).works()
    return [compare(replace(work, kind="prediction", tasks=count), plan, tell) for work in works for count in TASKS]


def _data(asked: Asked, plan: Plan, tell: Tell) -> list[dict[str, Any]]:
    rows = []
    for work in replace(asked, passes=(2,), precisions=("fp32",)).works():
        rows.append(data_path(work, plan.calls))
        tell(f"loader of {title(work)}: {rows[-1]['ratio']:.1f} times as fast as the step")
    return rows


def _serving(asked: Asked, plan: Plan, tell: Tell) -> list[dict[str, Any]]:
    rows = []
    for preset in asked.presets:
        rows.append(serving(preset, PIXELS[preset], asked.threads, plan.repeats, asked.device))
        tell(f"serving {preset}: {rows[-1]['folder_fps']:.1f} frames a second from file to file")
    return rows


def table(found: dict[str, Any]) -> str:
    """The figures as Markdown, the machine first."""
    about, plan = found["machine"], found["plan"]
    lines = [
        f"{about['processor']}, {about['device']}, {about['threads']} threads, load {about['load_average']}; "
        f"medians of {plan['repeats']} processes of {plan['calls']} calls; torch {found['versions']['torch']}"
    ]
    for part in PARTS:
        if part in found:
            lines += ["", f"**{part}**", "", *_LINES[part](found[part])]
    return "\n".join(lines)


def _compared(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    yield "| work | reference s | ours s | ratio [min, max] | of computing | memory MB, reference / ours | floor s |"
    yield "|---|---:|---:|---:|---:|---:|---:|"
    for row in rows:
        plain, own, ratio = row["reference"], row["propl"], row["ratio"]
        least = f"{row['floor']['seconds']:.2f}" if "floor" in row else "–"
        clock = f"{ratio['seconds']['median']:.2f} [{ratio['seconds']['min']:.2f}, {ratio['seconds']['max']:.2f}]"
        yield (
            f"| {_words(row)} | {plain['seconds']:.3f} | {own['seconds']:.3f} | {clock} "
            f"| {ratio['computing']['median']:.2f} | {plain['memory_mb']:.0f} / {own['memory_mb']:.0f} | {least} |"
        )


def _plain(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    names = list(dict.fromkeys(name for row in rows for name in row))
    yield "| " + " | ".join(name.replace("_", " ") for name in names) + " |"
    yield "|" + "---|" * len(names)
    for row in rows:
        yield "| " + " | ".join(str(row.get(name, "–")) for name in names) + " |"


def _words(row: dict[str, Any]) -> str:
    kept = {key: value for key, value in row.items() if key in Work.__dataclass_fields__}
    return title(Work("propl", **kept))


_LINES = {"training": _compared, "prediction": _compared, "data": _plain, "serving": _plain}
