"""The bundle in its own process, so that its memory is measured alone and its crash ends nothing else."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from propl_monai.common.bundle_command import bundle_arguments
from propl_monai.common.files import write_atomically
from propl_monai.errors import ProPLError

LOOK = 0.3  # seconds between two calls of `check`


def run_bundle_apart(
    bundle: Path, run_id: str, configs: Sequence[str], keys: Mapping[str, Any], log: Path, check: Callable[[], None]
) -> float:
    """Run the bundle and wait for it.

    Args:
        bundle: its folder.
        run_id: "training" or "evaluating".
        configs: names of configs; later ones override earlier ones.
        keys: override all configs; written to a file beside the log.
        log: gets the output of the process.
        check: called again and again; an exception that it raises ends the process.

    Returns:
        Its peak resident memory in MB of 2**20 bytes, on Linux at least that of this process at its start.
    """
    overrides = log.with_suffix(".config.json")
    write_atomically(overrides, json.dumps(keys, indent=2).encode())
    command = [sys.executable, "-m", "monai.bundle", *bundle_arguments(run_id, bundle, [*configs, overrides], {})]
    with log.open("ab") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT)
        try:
            while not (ended := os.wait4(process.pid, os.WNOHANG))[0]:
                check()
                time.sleep(LOOK)
        except BaseException:
            process.terminate()
            process.wait()  # else it could still write when the next owner of the folder starts
            raise
    _, status, usage = ended
    process.returncode = os.waitstatus_to_exitcode(status)
    check()
    raise_failure(log, process.returncode)
    # Linux counts in units of 1024 bytes, macOS in bytes.
    return usage.ru_maxrss / (1024**2 if sys.platform == "darwin" else 1024)


def raise_failure(log: Path, exit_code: int) -> None:
    """Raise what a log says last, unless the exit code is 0."""
    if exit_code:
        raise ProPLError(log, f"the run stopped with exit code {exit_code}: {_last_error(log)}", "read this log")


def _last_error(log: Path) -> str:
    """The last error of the last traceback in a log; its last line where it has none."""
    lines = log.read_text(errors="replace").strip().splitlines() or ["the log is empty"]
    start = max((number for number, line in enumerate(lines) if line.startswith("Traceback")), default=0)
    errors = [line for line in lines[start:] if re.match(r"(error|[\w.]+Error|[\w.]+Exception): ", line)]
    return (errors or lines)[-1].removeprefix("error: ")
