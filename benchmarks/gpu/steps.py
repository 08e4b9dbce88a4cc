"""The steps in order of value, and how one is run: in its own process group, with a time limit, leaving one JSON file."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.gpu.child import result_file
from benchmarks.gpu.plan import Plan
from propl_monai.common.files import write_atomically
from propl_monai.common.run_record import read_object
from propl_monai.errors import ProPLError

# Module of `benchmarks.gpu` -> seconds that it may take.
STEPS = {"machine": 300, "device_tests": 300, "agreement": 300, "speed": 420, "runs": 36_000}
FINISHED, FAILED, UNFINISHED = "finished", "failed", "unfinished"
GRACE = 20  # seconds between asking a process to end and ending it
LINES = 30  # of a log that are kept


def environment(device: str) -> tuple[str, dict[str, str]]:
    """The device as its processes see it, and their variables: a process sees one GPU, or none."""
    kind, _, number = device.partition(":")
    if kind not in ("cpu", "cuda") or (number and not number.isdecimal()) or (kind == "cpu" and number):
        raise ProPLError("--device", f"'{device}' is not known", "give cpu, cuda, or cuda:1 …")
    if kind == "cpu":
        return kind, {"CUDA_VISIBLE_DEVICES": ""}
    if not number:
        return kind, {}
    seen = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    if seen and int(number) >= len(seen):
        fact = f"'{device}', where CUDA_VISIBLE_DEVICES lists {len(seen)}"
        raise ProPLError("--device", fact, "give a lower number, or change that variable")
    return kind, {"CUDA_VISIBLE_DEVICES": seen[int(number)] if seen else number}


def is_done(plan: Plan, name: str) -> bool:
    """Whether a step was finished by an earlier call; refused if that had other settings."""
    path = Path(plan.output) / f"{name}.json"
    if not path.is_file():
        return False
    found = read_object(path, "delete it")
    if found.get("settings") != plan.settings:
        fact = f"was made with {found.get('settings')}, now {plan.settings}"
        raise ProPLError(path, fact, "choose another output folder, or delete this one")
    return found.get("status") == FINISHED


def run_step(plan: Plan, name: str, seconds: float, variables: Mapping[str, str], log: Callable[[str], None]) -> str:
    """Run a step, write `<name>.json` into the output folder, and return its status.

    Args:
        plan: of the call.
        name: one of `STEPS`.
        seconds: until it is ended.
        variables: of the environment, see `environment`.
        log: called with a line.
    """
    plan = replace(plan, seconds=seconds)
    result_file(plan, name).unlink(missing_ok=True)
    written, begun = Path(plan.work) / f"{name}.log", time.monotonic()
    log(f"{name}: at most {seconds:.0f} s, log {written}")
    command = [sys.executable, "-m", "benchmarks.gpu.child", name, plan.text()]
    with written.open("wb") as stream:
        group = {"start_new_session": True, "env": {**os.environ, **variables}}
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, **group)  # type: ignore[call-overload]
        try:
            code: int | None = process.wait(seconds)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            _end(process)
    lines = written.read_text(errors="replace").strip().splitlines()
    status = collect(plan, name, code, round(time.monotonic() - begun, 1), lines)
    log(f"{name}: {status} after {time.monotonic() - begun:.0f} s")
    return status


def collect(plan: Plan, name: str, code: int | None, seconds: float, lines: Sequence[str]) -> str:
    """Write `<name>.json` from what the process of a step has left, and return its status.

    Args:
        plan, name: see `run_step`.
        code: its exit code; None where it was ended.
        seconds: that it took.
        lines: of its log.
    """
    found: dict[str, Any] = {"step": name, "settings": plan.settings, "seconds": seconds}
    file = result_file(plan, name)
    left = read_object(file, "call again") if file.is_file() else {}
    if left:
        found["status"] = left["result"].pop("status", FINISHED)
    if not left or code:
        said = lines[-1] if lines else "nothing was said"
        found["error"] = "the time was up" if code is None else f"exit code {code}: {said}"
        found |= {"status": FAILED if code else UNFINISHED, "log": list(lines[-LINES:])}
    write_atomically(Path(plan.output) / f"{name}.json", (json.dumps({**found, **left}, indent=1) + "\n").encode())
    return found["status"]


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and all that it started, first by asking."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)


def gather(plan: Plan) -> dict[str, Any]:
    """All results in summary.json, and what a reader wants first in summary.md; returns the status of each step."""
    output = Path(plan.output)
    files = {name: output / f"{name}.json" for name in STEPS}
    found = {name: read_object(file, "delete it") for name, file in files.items() if file.is_file()}
    status = {name: found.get(name, {}).get("status", "not begun") for name in STEPS}
    lines = ["# GPU script", "", "| step | status | seconds |", "|---|---|---:|"]
    lines += [f"| {name} | {status[name]} | {found.get(name, {}).get('seconds', '')} |" for name in STEPS]
    for name, one in found.items():
        lines += ["", f"## {name}", ""]
        lines += [f"{one['error']}", "", "```", *one["log"], "```"] if "error" in one else []
        lines += one.get("lines", [])
    summary = {"settings": plan.settings, "status": status, "steps": found}
    write_atomically(output / "summary.json", (json.dumps(summary, indent=1) + "\n").encode())
    write_atomically(output / "summary.md", ("\n".join(lines) + "\n").encode())
    return status
