"""Step "runs": the comparison lab on the device, several workers at once; then the paper's own setting, cut short.

What is finished is packed into `runs.tar.gz` as it comes: run.json and cases.csv of each run, in the folders that
`propl tables` reads. An archive that is there is taken up, so its runs are not repeated.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.gpu.data import list_of, root_of
from benchmarks.gpu.plan import Plan
from benchmarks.gpu.steps import FAILED, FINISHED, UNFINISHED
from propl_monai.common.claims import PREFIX
from propl_monai.common.files import write_atomically
from propl_monai.common.packaged_bundle import packaged_bundle
from propl_monai.datasets.cohort import DATALIST
from propl_monai.errors import ProPLError, install_exit_messages
from propl_monai.evaluation.cases import CASES, read_cases
from propl_monai.evaluation.lab.one_run import Lab
from propl_monai.evaluation.lab.run_grid import compare
from propl_monai.evaluation.lab.run_results import RUN
from propl_monai.evaluation.lab.variants import Run, grid

ARCHIVE = "runs.tar.gz"
LOOK = 2.0  # seconds between two looks at the workers
PACKING = 40  # seconds kept for the start, and for the archive at the end
CORES_OF_A_WORKER = 2  # its training augments in one loader process of each stream and waits for the GPU in another


@dataclass(frozen=True)
class Block:
    """Runs that may stand in one folder.

    Attributes:
        name: of the folder.
        preset, overrides: see `Lab`.
        rows, fractions, seeds, budget: see `variants.grid`; all seeds of a fraction come before the next fraction.
    """

    name: str
    preset: str
    rows: Sequence[str]
    fractions: Sequence[str] = ("1/8", "1/16", "1/4")
    seeds: Sequence[int] = (0, 1, 2)
    budget: str = "medium"
    overrides: Mapping[str, Any] = field(default_factory=dict)

    def runs(self) -> list[Run]:
        """In order of value, without doubles."""
        all_of_them = [grid(list(self.rows), [one], list(self.seeds), self.budget) for one in self.fractions]
        return list({run.folder: run for runs in all_of_them for run in runs}.values())

    def lab(self, plan: Plan) -> Lab:
        """Where they take place."""
        home = Path(plan.work) / "runs" / self.name
        return Lab(packaged_bundle(), root_of(plan), home, Path(plan.work) / DATALIST, self.preset, self.overrides)


def blocks(plan: Plan) -> list[Block]:
    """The lab, then Table 2 of the paper as near as public data and the time allow."""
    if plan.tiny:
        small = {"epochs": 1, "steps_per_epoch": 2, "spatial_size": [32, 32], "labelled_batch_size": 2}
        small |= {"encoder": "test_efficientnet", "encoder_weights": "none"}
        return [Block("lab", "compact", ["supervised"], ["1/8"], [0], "short", small)]
    rows = ("supervised", "supervised-half", "propl-paper", "propl", "propl-views", "supervised-all")
    # One process of each stream: a run ends sooner, so fewer are cut off where the time is up. It changes no result.
    lab = Block("lab", "compact,strong", rows, overrides={"num_workers": 1})
    cut = {"epochs": 20, "steps_per_epoch": 200, "spatial_size": [224, 224], "precision": "bf16", "num_workers": 4}
    cut["encoder_weights"] = plan.encoder_weights
    paper = Block("paper", "released", ("propl", "supervised"), ["1/8"], [0], "medium", cut)
    return [lab, paper]


def run(plan: Plan) -> dict[str, Any]:
    """Let workers do the blocks, one block after the other, until all is done or the time is up."""
    deadline = time.monotonic() + plan.seconds - PACKING
    list_of(plan)
    restore(plan)
    for claim in Path(plan.work).glob(f"runs/**/{PREFIX}*"):  # of an earlier call; this one has the folder alone
        claim.unlink()
    failed: dict[str, str] = {}
    for block in blocks(plan):
        failed |= _do(plan, block, deadline)
    archive(plan)
    found: dict[str, dict[str, Any]] = {block.name: _state(plan, block) for block in blocks(plan)}
    for block in blocks(plan):
        homes = {folder: block.lab(plan).runs / folder / CASES for folder in found[block.name]["finished"]}
        found[block.name]["mdice"] = {folder: _mdice(path) for folder, path in homes.items()}
    missing = sum(len(one["missing"]) for one in found.values())
    status = FAILED if failed else UNFINISHED if missing else FINISHED
    return {"status": status, "failed": failed, **found}


def workers_for(plan: Plan) -> int:
    """As many as were asked for; else what the cores allow."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return plan.workers or (1 if plan.tiny else max(1, cores // CORES_OF_A_WORKER))


def _do(plan: Plan, block: Block, deadline: float) -> dict[str, str]:
    """One block by several workers; the errors of runs that failed, by worker."""
    count = min(workers_for(plan), len(_state(plan, block)["missing"]))
    logs = [Path(plan.work) / f"{block.name}-worker-{number}.log" for number in range(count)]
    command = [sys.executable, "-m", "benchmarks.gpu.runs", block.name, plan.text()]
    variables = {**os.environ, "OMP_NUM_THREADS": "1"}
    processes = []
    finished = 0
    try:
        for log in logs if time.monotonic() < deadline else []:
            with log.open("wb") as stream:
                processes.append(subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, env=variables))
        while any(process.poll() is None for process in processes) and time.monotonic() < deadline:
            time.sleep(LOOK)
            done = len(_state(plan, block)["finished"])
            if done > finished:
                finished = done
                print(f"{block.name}: {finished} runs", flush=True)
                archive(plan)
    finally:
        for process in processes:
            process.terminate()  # which ends what it started, too
        for process in processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(PACKING / 2)
    said = {log.stem: log.read_text(errors="replace").strip().splitlines()[-1:] for log in logs if log.is_file()}
    codes = dict(zip((log.stem for log in logs), (process.returncode for process in processes), strict=False))
    return {name: " ".join(said[name])[:500] for name, code in codes.items() if code in (1, 2, 3)}


def _state(plan: Plan, block: Block) -> dict[str, list[str]]:
    lab = block.lab(plan)
    finished = [run.folder for run in block.runs() if lab.is_finished(run)]
    return {"finished": finished, "missing": [run.folder for run in block.runs() if run.folder not in finished]}


def _mdice(path: Path) -> float:
    """Mean over tasks of the mean Dice of their cases, for a first look."""
    return round(float(read_cases(path).groupby("task")["dice"].mean().mean()), 4)


def archive(plan: Plan) -> None:
    """Pack what the tables need of all finished runs, as a whole or not at all."""
    home, content = Path(plan.work) / "runs", io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as stream:
        for block in blocks(plan):
            for folder in _state(plan, block)["finished"]:
                for name in (RUN, CASES):
                    path = home / block.name / folder / name
                    stream.add(path, path.relative_to(home).as_posix())
    write_atomically(Path(plan.output) / ARCHIVE, content.getvalue())


def restore(plan: Plan) -> None:
    """Take up the runs of an archive in the output folder."""
    path = Path(plan.output) / ARCHIVE
    if not path.is_file():
        return
    try:
        with tarfile.open(path) as stream:
            stream.extractall(Path(plan.work) / "runs", filter="data")
    except (OSError, EOFError, tarfile.TarError) as error:
        raise ProPLError(path, f"cannot be unpacked ({error})", "delete it; its runs are then done again") from error


def lines(result: dict[str, Any]) -> list[str]:
    """For summary.md: the numbers of runs. `propl tables` makes tables of the archive."""
    told = []
    for name, one in result.items():
        if isinstance(one, dict) and "finished" in one:
            told.append(f"* {name}: {len(one['finished'])} runs finished, {len(one['missing'])} missing")
            told += [f"  * {folder}: mDice {100 * mdice:.1f} %" for folder, mdice in one["mdice"].items()]
    told += [f"* {worker} failed: {text}" for worker, text in result["failed"].items()]
    return [*told, "", f"`tar xf {ARCHIVE}`, then `propl tables lab tables`."]


def main(arguments: list[str]) -> None:
    """A worker: what is missing of a block, beside other workers."""
    install_exit_messages()
    name, text = arguments
    plan = Plan(**json.loads(text))
    block = next(one for one in blocks(plan) if one.name == name)
    outcome = compare(block.lab(plan), block.runs())
    for problem in outcome.failed:
        print(problem)
    sys.exit(3 if outcome.failed else 0)


if __name__ == "__main__":
    main(sys.argv[1:])
