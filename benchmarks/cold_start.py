"""How long one picture takes from the shell, and where the time goes.

`python -m benchmarks.cold_start` predicts a phantom with the shipped weights, ten times with each engine, in processes of
their own: the median is from the start of the process to its end, after a first run that fills the file cache. The stages are
measured inside one more process of the same kind.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

from propl_monai.datasets.phantoms.phantom import make_phantom

RUNS = 10
TASK = "thyroid nodule"
STAGES = """
import sys, time
begun = time.perf_counter()
laps = []
def lap(name):
    global begun
    laps.append((name, time.perf_counter() - begun))
    begun = time.perf_counter()
import propl_monai.cli
lap("command line")
from propl_monai.inference.predict_folder import predict_paths
from propl_monai.inference.predictor import Predictor
lap("rooms of inference, NumPy and Pillow")
engine = sys.argv[1]
if engine == "onnx":
    import onnxruntime
else:
    import torch
lap("import of the engine's library")
if engine == "torch":
    import propl_monai.model.weights
    lap("network and timm")
predictor = Predictor(engine=engine, device="cpu")
lap("weights and graph" if engine == "onnx" else "weights")
predict_paths(predictor, [sys.argv[2]], sys.argv[3], sys.argv[4])
lap("picture in, mask and run.json out")
for name, seconds in laps:
    print(f"{seconds:.6f} {name}")
"""


def main() -> None:
    """Print the medians and the shares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", default="onnx,torch", help="separated by commas")
    parser.add_argument("--runs", type=int, default=RUNS)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "picture.png"
        Image.fromarray(make_phantom("small parts", 0, 0).image).save(picture)
        for engine in given.engines.split(","):
            measure(engine, picture, given.runs)


def measure(engine: str, picture: Path, runs: int) -> None:
    """Print the figures of one engine."""
    command = [sys.executable, "-m", "propl_monai.cli", "predict", str(picture), "-t", TASK, "--engine", engine]
    output = picture.with_name("out")
    taken = [_run([*command, "--device", "cpu", "-o", f"{output}-{engine}-{number}"]) for number in range(runs + 1)][1:]
    wall, processor = (statistics.median(each) for each in zip(*taken, strict=True))
    shortest, longest = min(one for one, _ in taken), max(one for one, _ in taken)
    print(
        f"{engine}: {wall:.2f} s, median of {runs} ({shortest:.2f} to {longest:.2f}); processor time {processor:.2f} s"
    )
    words = [sys.executable, "-c", STAGES, engine, str(picture), f"{output}-{engine}", TASK]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    rows = [line.split(" ", 1) for line in done.stdout.splitlines()]
    total = sum(float(seconds) for seconds, _ in rows)
    for seconds, name in rows:
        print(f"  {float(seconds):6.2f} s  {100 * float(seconds) / total:3.0f} %  {name}")


def _run(command: list[str]) -> tuple[float, float]:
    """Seconds on the clock, and of the processor, of one call."""
    before, begun = os.times(), time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    wall, after = time.perf_counter() - begun, os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return wall, used


if __name__ == "__main__":
    main()
