"""How many frames a second `propl predict` makes, files read and masks written, and whether that stays so.

    python -m benchmarks.throughput PICTURES [--weights runs/mine] [--frames 10000] [--cores 0,1] [--cine] [--before CHECKOUT]

PICTURES is a folder of real pictures; they are repeated under other names (hard links) until there are enough. Each run is
a process of its own. With `--before`, another checkout of this repository predicts the same in turn, on the same cores, and
the masks of both are compared. `--shards 2` divides the files among two processes at the same time, one per core.
Other work on the machine makes the clock unfair, and the processor's seconds less so: both are printed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
PER_CINE = 100
RUN = """
import json, os, resource, sys, time
cores, weights, source, output, task, shard, batch, engine = json.loads(sys.argv[1])
os.sched_setaffinity(0, cores)
from pathlib import Path
from propl_monai import Predictor
from propl_monai.inference.predict_folder import predict_paths
from propl_monai.inference.shards import Shard
options = {"device": "cpu", "batch": batch, "engine": engine}
predictor = Predictor.from_bundle(weights, **options) if weights else Predictor(**options)
laps = []
def memory():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
def lap(done, total):
    if done % max(1, total // 10) == 0:
        laps.append((done, time.perf_counter(), time.process_time(), memory()))
begun = time.perf_counter(), time.process_time()
found = predict_paths(predictor, [source], output, task, shard=shard and Shard.parse(shard), progress=lap)
ended = time.perf_counter(), time.process_time()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
print(json.dumps({"frames": found.pictures, "refused": found.refused, "seconds": ended[0] - begun[0],
                  "processor": ended[1] - begun[1], "laps": laps, "peak": peak}))
"""


def main() -> None:
    """Measure and print."""
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("pictures", type=Path)
    reader.add_argument("--weights", type=Path, help="folder of a training, or its weights; default: the package's own")
    reader.add_argument("--frames", type=int, default=200)
    reader.add_argument("--task", default="fetal head")
    reader.add_argument("--cores", default="0,1")
    reader.add_argument("--batch", type=int, default=8)
    reader.add_argument("--engine", default="auto")
    reader.add_argument("--cine", action="store_true", help=f"DICOM cines of {PER_CINE} frames instead of PNG")
    reader.add_argument("--before", type=Path, help="another checkout")
    reader.add_argument("--repeats", type=int, default=1)
    reader.add_argument("--shards", type=int, default=1, help="processes, one per core, that share the files")
    given = reader.parse_args()
    sides = {"ours": ROOT} | ({"before": given.before.resolve()} if given.before else {})
    cores = [int(core) for core in given.cores.split(",")]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (write_cines if given.cine else repeat)(given.pictures, folder / "in", given.frames)
        taken: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
        for number in range(given.repeats):
            for side, checkout in sides.items():
                output = folder / f"{side}-{number}"
                each: list[tuple[list[int], str | None]] = [(cores, None)]
                if given.shards > 1:
                    each = [([cores[n % len(cores)]], f"{n + 1}/{given.shards}") for n in range(given.shards)]
                weights = str(given.weights.resolve()) if given.weights else None
                jobs = [
                    [some, weights, str(folder / "in"), str(output), given.task, shard, given.batch, given.engine]
                    for some, shard in each
                ]
                for found in run_all(checkout, jobs):
                    taken[side].append(found)
                    print(f"{side}: {describe(found)}", flush=True)
        if given.before:
            for key in ("processor", "seconds"):
                ratio = [b[key] / a[key] for a, b in zip(taken["ours"], taken["before"], strict=True)]
                print(f"before / ours, {key}: {statistics.median(ratio):.2f} [{min(ratio):.2f}, {max(ratio):.2f}]")
            print(compare(folder / "before-0", folder / "ours-0"))


def repeat(pictures: Path, folder: Path, frames: int) -> None:
    """Hard links to the pictures under new names, a thousand in a folder; copies where the disk cannot link."""
    files = sorted(file for file in pictures.rglob("*") if file.suffix == ".png")
    for number, file in zip(range(frames), itertools.cycle(files), strict=False):
        place = folder / f"{number // 1000:04d}" / f"{number:06d}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(file, place)
        except OSError:
            place.write_bytes(file.read_bytes())


def write_cines(pictures: Path, folder: Path, frames: int) -> None:
    """DICOM cines without compression, 8 bits of grey; the pictures are brought to the size of the first."""
    from pydicom import Dataset, FileMetaDataset, uid

    folder.mkdir(parents=True)
    files = sorted(file for file in pictures.rglob("*") if file.suffix == ".png")
    size = Image.open(files[0]).size
    shown = [np.asarray(Image.open(file).convert("L").resize(size)) for file in files[:PER_CINE]]
    stack = np.stack(list(itertools.islice(itertools.cycle(shown), PER_CINE)))
    for number in range(-(-frames // PER_CINE)):
        values = stack[: min(PER_CINE, frames - number * PER_CINE)]
        cine = Dataset()
        cine.SOPClassUID, cine.SOPInstanceUID = uid.UltrasoundMultiFrameImageStorage, uid.generate_uid()
        cine.Modality, cine.PatientID = "US", "benchmark"
        cine.NumberOfFrames, cine.Rows, cine.Columns = values.shape
        cine.SamplesPerPixel, cine.PhotometricInterpretation, cine.PixelRepresentation = 1, "MONOCHROME2", 0
        cine.BitsAllocated, cine.BitsStored, cine.HighBit = 8, 8, 7
        cine.PixelData = values.tobytes()
        cine.file_meta = FileMetaDataset()
        cine.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
        cine.file_meta.MediaStorageSOPClassUID = cine.SOPClassUID
        cine.file_meta.MediaStorageSOPInstanceUID = cine.SOPInstanceUID
        cine.save_as(folder / f"{number:05d}.dcm", enforce_file_format=True)


def run_all(checkout: Path, jobs: list[list[Any]]) -> list[dict[str, Any]]:
    """Start one process for each job at the same time, and wait for all."""
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", RUN, json.dumps(job)],
            cwd=checkout,  # python -c looks there first
            env=environment | {"OMP_NUM_THREADS": str(len(job[0]))},
            stdout=subprocess.PIPE,
            text=True,
        )
        for job in jobs
    ]
    results = []
    for process in started:
        text, _ = process.communicate()
        if process.returncode:
            raise SystemExit(process.returncode)
        results.append(json.loads(text.splitlines()[-1]))
    return results


def describe(found: dict[str, Any]) -> str:
    """One line: frames a second, processor time of a frame, of the first tenth and the last, and memory."""
    frames, laps = found["frames"], found["laps"]
    text = f"{frames} frames, {frames / found['seconds']:.1f} frames/s, {1000 * found['processor'] / frames:.2f} ms of"
    text += f" the processor each; memory {found['peak']:.0f} MB at most"
    if len(laps) < 4:
        return text
    parts = []
    for name, (a, b) in {"second": laps[0:2], "last": laps[-2:]}.items():
        share = (b[0] - a[0]) / laps[-1][0] * frames  # files may be cines
        speed, used = share / (b[1] - a[1]), 1000 * (b[2] - a[2]) / share
        parts.append(f"{name} tenth {speed:.1f} frames/s, {used:.2f} ms, {b[3]:.0f} MB")
    return f"{text}; {'; '.join(parts)}"


def compare(before: Path, ours: Path) -> str:
    """Pixels of the masks that differ between two output folders."""
    files = sorted(path.relative_to(ours) for path in ours.rglob("*.png"))
    others = sorted(path.relative_to(before) for path in before.rglob("*.png"))
    if files != others:
        return f"other files: {len(files)} and {len(others)}"
    pixels = changed = larger = 0
    for file in files:
        one, other = (np.asarray(Image.open(folder / file)) for folder in (ours, before))
        changed, pixels = changed + int((one != other).sum()), pixels + one.size
        larger += (ours / file).stat().st_size - (before / file).stat().st_size
    return f"{len(files)} masks, {changed} of {pixels} pixels differ; a file has {larger / len(files):+.0f} bytes"


if __name__ == "__main__":
    main()
