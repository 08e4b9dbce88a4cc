"""Step "device_tests": the tests of tests/test_device.py on the device."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from benchmarks.gpu.plan import Plan
from benchmarks.gpu.steps import FAILED, FINISHED

ROOT = Path(__file__).resolve().parents[2]


def run(plan: Plan) -> dict[str, Any]:
    """Run them, and count what they say."""
    report = Path(plan.work) / "device_tests.xml"
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests/test_device.py", f"--junitxml={report}"]
    command += ["-k", "dice or predictions"] if plan.tiny else []
    subprocess.run(command, cwd=ROOT, env={**os.environ, "PROPL_DEVICE": plan.device}, check=False)
    if not report.is_file():
        return {"status": FAILED, "passed": [], "failed": {"pytest": "left no report, see the log"}, "skipped": {}}
    passed, failed, skipped = [], {}, {}
    for case in ElementTree.parse(report).iter("testcase"):
        name = case.get("name", "")
        troubles = [one for one in case if one.tag in ("failure", "error")]
        left_out = case.find("skipped")
        if troubles:
            failed[name] = "\n".join((troubles[0].text or "").strip().splitlines()[-25:])
        elif left_out is not None:
            skipped[name] = left_out.get("message", "")
        else:
            passed.append(name)
    status = FINISHED if passed and not failed else FAILED
    return {"status": status, "passed": passed, "failed": failed, "skipped": skipped}


def lines(result: dict[str, Any]) -> list[str]:
    """For summary.md."""
    counts = ", ".join(f"{len(result[kind])} {kind}" for kind in ("passed", "failed", "skipped"))
    told = [f"* skipped: {name}: {reason}" for name, reason in result["skipped"].items()]
    for name, text in result["failed"].items():
        told += ["", f"`{name}`:", "", "```", text, "```"]
    return [counts + ".", "", *told]
