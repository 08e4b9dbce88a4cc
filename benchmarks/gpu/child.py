"""The process of one step: `python -m benchmarks.gpu.child STEP PLAN`."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.gpu.plan import Plan
from propl_monai.common.files import write_atomically
from propl_monai.errors import install_exit_messages


def result_file(plan: Plan, name: str) -> Path:
    """What the process leaves for the one that started it."""
    return Path(plan.work) / f"{name}.result.json"


def leave(plan: Plan, name: str, found: dict[str, Any], lines: list[str]) -> None:
    """Write the result of a step and its lines for summary.md, also before it has ended: then that much is kept."""
    write_atomically(result_file(plan, name), json.dumps({"result": found, "lines": lines}).encode())


def main(arguments: list[str]) -> None:
    """Run `run(plan)` of the module of a step, and leave what it returns."""
    install_exit_messages()
    name, text = arguments
    plan = Plan(**json.loads(text))
    step = import_module(f"benchmarks.gpu.{name}")
    found = step.run(plan)
    leave(plan, name, found, step.lines(found))


if __name__ == "__main__":
    main(sys.argv[1:])
