"""Step "speed": a training step and a prediction against the plain reference, and what a step waits for its data."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from ignite.engine import Engine, Events

from benchmarks.gpu.child import leave
from benchmarks.gpu.plan import Plan
from benchmarks.gpu.steps import FAILED, FINISHED, UNFINISHED
from benchmarks.gpu.training import Setting, build, tiny
from benchmarks.speed.comparison import Repeats, compare, title
from benchmarks.speed.plans import PIXELS
from benchmarks.speed.workloads import Work
from propl_monai.errors import ProPLError

FASTER, LESS_MEMORY, WAITING = 3.0, 2.0, 0.05  # goals: times as fast, times less memory, share of a step that waits
LOADERS = (0, 4, 7)  # processes of each stream
SETTLE = 5  # steps before waiting is measured


def run(plan: Plan) -> dict[str, Any]:
    """Rows of `benchmarks.speed`, the waiting, and whether the goals are met: to miss one is no failure."""
    rows: list[dict[str, Any]] = []
    waiting: list[dict[str, Any]] = []

    def state(**more: str) -> dict[str, Any]:
        found = {"rows": rows, "waiting": waiting, "goals": goals(rows, waiting), **more}
        leave(plan, "speed", found, lines(found))
        return found

    for number, (work, reference) in enumerate(works(plan)):
        repeats = Repeats(1, 1) if plan.tiny else Repeats(1 if number else 2, 10)
        try:
            rows.append(compare(work, repeats, print, reference))
        except ProPLError as error:  # such as too little memory for the reference
            rows.append({"work": title(work), "reference_precision": reference, "error": str(error)})
        state(status=UNFINISHED)
        if number == 0:  # of what the goals are about first
            for setting in settings(plan):
                waiting.append(wait(plan, setting))
                state(status=UNFINISHED)
    return state(status=FAILED if any("error" in row for row in rows) else FINISHED)


def works(plan: Plan) -> Iterator[tuple[Work, str]]:
    """What is compared, with the precision of the reference; the row of the goals comes first."""
    same: dict[str, Any] = {"device": plan.device}
    if plan.tiny:
        yield Work("propl", "training", "compact", 2, 1, pixels=32, precision="bf16", threads=1, **same), "fp32"
        return
    paper = Work("propl", "training", "paper", 16, 2, pixels=PIXELS["paper"], precision="bf16", **same)
    yield paper, "fp32"
    yield paper, "bf16"
    yield replace(paper, precision="fp32"), "fp32"
    yield replace(paper, preset="compact", batch=8, pixels=PIXELS["compact"]), "fp32"
    alone = replace(paper, kind="prediction", batch=1, precision="fp32")
    yield replace(alone, tasks=1), "fp32"
    yield replace(alone, tasks=8), "fp32"


def settings(plan: Plan) -> Iterator[Setting]:
    """Trainings whose waiting is measured: the paper's with several numbers of loader processes."""
    paper = Setting("convnext_tiny", 224, 16, 25 + SETTLE, 256, "bf16")
    if plan.tiny:
        yield replace(paper, **tiny(paper))
        return
    for loaders in LOADERS:
        yield replace(paper, loaders=loaders)


def wait(plan: Plan, setting: Setting) -> dict[str, Any]:
    """Seconds of a step of the real trainer, of which it waits for its batch."""
    clock = _Clock()
    trainer = build(plan, setting, plan.device, [clock])
    trainer.run()
    first = min(SETTLE, len(clock.steps) - 1)
    steps, waits = clock.steps[first:], clock.waits[first:]
    gc.collect()
    return {
        "encoder": setting.encoder,
        "batch": setting.batch,
        "precision": setting.precision,
        "loaders": setting.loaders,
        "step_seconds": round(statistics.median(steps), 4),
        "waiting_seconds": round(statistics.median(waits), 4),
        "share": round(sum(waits) / sum(steps), 3),
    }


class _Clock:
    """Times of each step, and of its wait for data; the work of the device is waited for."""

    def __init__(self) -> None:
        self.steps: list[float] = []
        self.waits: list[float] = []

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.GET_BATCH_STARTED, self.ask)
        engine.add_event_handler(Events.GET_BATCH_COMPLETED, self.get)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.end)

    def ask(self, engine: Engine) -> None:
        self.asked = time.perf_counter()

    def get(self, engine: Engine) -> None:
        self.got = time.perf_counter()

    def end(self, engine: Engine) -> None:
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        self.steps.append(time.perf_counter() - self.asked)
        self.waits.append(self.got - self.asked)


def goals(rows: list[dict[str, Any]], waiting: list[dict[str, Any]]) -> dict[str, Any]:
    """The first row and the best number of loaders against the goals."""
    ratio = rows[0].get("ratio", {}) if rows else {}
    faster, memory = (ratio.get(key, {}).get("median", 0.0) for key in ("seconds", "memory_mb"))
    share = min((one["share"] for one in waiting), default=1.0)
    return {
        "times_as_fast": {"found": faster, "goal": FASTER, "met": faster >= FASTER},
        "times_less_memory": {"found": memory, "goal": LESS_MEMORY, "met": memory >= LESS_MEMORY},
        "share_waiting": {"found": share, "goal": WAITING, "met": share <= WAITING},
    }


def lines(result: dict[str, Any]) -> list[str]:
    """For summary.md."""
    told = [
        "| work | reference | reference s | ours s | times as fast | memory MB, reference / ours |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for row in result["rows"]:
        if "error" in row:
            told.append(f"| {row['work']} | {row['reference_precision']} | {row['error']} | | | |")
            continue
        work = Work("propl", **{key: value for key, value in row.items() if key in Work.__dataclass_fields__})
        plain, own, ratio = row["reference"], row["propl"], row["ratio"]
        told.append(
            f"| {title(work)} | {row['reference_precision']} | {plain['seconds']:.4f} | {own['seconds']:.4f} "
            f"| {ratio['seconds']['median']:.2f} | {plain['memory_mb']:.0f} / {own['memory_mb']:.0f} |"
        )
    told += ["", "| loader processes a stream | step s | waits s | share |", "|---:|---:|---:|---:|"]
    for one in result["waiting"]:
        told.append(f"| {one['loaders']} | {one['step_seconds']} | {one['waiting_seconds']} | {one['share']} |")
    told.append("")
    for name, goal in result["goals"].items():
        told.append(f"* {name}: {goal['found']} (goal {goal['goal']}): {'met' if goal['met'] else '**missed**'}")
    return told
