"""The command of `benchmarks/gpu.sh`: runs what is not finished yet, and gathers what is there."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from benchmarks.gpu.plan import Plan
from benchmarks.gpu.steps import FINISHED, STEPS, environment, gather, is_done, run_step
from propl_monai.common.files import lock_folder, write_atomically
from propl_monai.common.options import words
from propl_monai.errors import EXIT_OK, EXIT_PARTIAL, ProPLError, install_exit_messages, unknown

TRIAL = "trial"


def main() -> int:
    """Run the steps in order; 0 when all that were wanted are finished, 3 when one is not."""
    install_exit_messages()
    reader = argparse.ArgumentParser(prog="benchmarks/gpu.sh", description="What a GPU is needed for; see docs/gpu.md.")
    reader.add_argument("data", type=Path, help="folder in the plain layout, or an archive of benchmarks.pack")
    reader.add_argument("output", type=Path, help="folder of the result files, eight at most")
    reader.add_argument("--device", default="cuda", help="cuda, cuda:1 …, or cpu")
    reader.add_argument("--tiny", action="store_true", help="as small as it can be, to see that it runs")
    reader.add_argument(
        "--seconds", type=float, default=1e6, help="time for all steps; a step that needs more is ended"
    )
    reader.add_argument("--only", default=",".join(STEPS), help="steps, comma-separated: " + ", ".join(STEPS))
    reader.add_argument("--work", type=Path, help="folder for data, trainings and logs; default: OUT.work")
    reader.add_argument("--workers", type=int, default=0, help="trainings at once; 0: a number that fits the cores")
    reader.add_argument("--encoder-weights", default="none", help="a file for ConvNeXt-Tiny; default: random weights")
    given = reader.parse_args()
    deadline = time.monotonic() + given.seconds
    for name in words(given.only):
        if name not in STEPS:
            raise unknown("--only", "step", name, STEPS)
    if not given.data.exists():
        raise ProPLError(given.data, "does not exist", "give a folder of images, or an archive of benchmarks.pack")
    if given.workers < 0 or given.seconds <= 0:
        raise ProPLError("benchmarks/gpu.sh", "a number is below 0", "give --seconds above 0, --workers from 0")
    if given.encoder_weights != "none" and not Path(given.encoder_weights).is_file():
        raise ProPLError(given.encoder_weights, "does not exist", "give a file of weights, or leave the option out")
    device, variables = environment(given.device)
    output = given.output.resolve()
    work = (given.work or output.with_name(output.name + ".work")).resolve()
    for folder in (output, work):  # tried before the device is used
        write_atomically(folder / TRIAL, b"")
        (folder / TRIAL).unlink()
    places = (str(path) for path in (given.data.resolve(), output, work))
    plan = Plan(*places, device, given.tiny, given.workers, given.encoder_weights)
    with lock_folder(output), lock_folder(work):
        for name in words(given.only):
            left = deadline - time.monotonic()
            if is_done(plan, name):
                print(f"{name}: finished before")
            elif left > 0:
                run_step(plan, name, min(STEPS[name], left), variables, print)
            else:
                print(f"{name}: no time left")
        status = gather(plan)
    print((output / "summary.md").read_text(encoding="utf-8"))
    return EXIT_OK if all(status[name] == FINISHED for name in words(given.only)) else EXIT_PARTIAL


if __name__ == "__main__":
    sys.exit(main())
