"""Does a file take the same time, and the memory stay the same, however many files there are?

    python -m benchmarks.growth [--files 1000,10000] [--folder /dev/shm] [--papers]

The files are tiny, and the network answers at once. Each number of files is a process of its own; its stages are the listing
of the files, a first run of `predict_paths`, the same again (all is done), and two shards with the whole after them; then, as
the lab has it, the list of all pictures, its verification (hashes included), and the list written and read. Printed are
microseconds of the processor for each file, and the greatest memory of the stage.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

SIDE = 16  # pixels
TASK = "fetal head"


def main() -> None:
    """Run each number of files and print a table."""
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--files", default="1000,10000")
    reader.add_argument("--folder", type=Path, help="for the files, such as /dev/shm, where no disk is waited for")
    reader.add_argument("--papers", action="store_true", help="only listing, journal and run.json")
    reader.add_argument("--one", type=int, help=argparse.SUPPRESS)
    given = reader.parse_args()
    if given.one:
        with tempfile.TemporaryDirectory(dir=given.folder) as place:
            print(json.dumps(measure(given.one, Path(place), given.papers)))
        return
    rows = []
    for count in map(int, given.files.split(",")):
        command = [sys.executable, "-m", "benchmarks.growth", "--one", str(count)]
        command += ["--folder", str(given.folder)] if given.folder else []
        command += ["--papers"] if given.papers else []
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print(f"{count} files", flush=True)
        for stage, (seconds, memory) in rows[-1].items():
            print(f"  {stage}: {1e6 * seconds / count:.0f} µs a file, {memory:.0f} MB at most", flush=True)


class Instant:
    """What `predict_paths` asks of a `Predictor`, without a network: the mask is what is brighter than the mean."""

    known, about, device, batch, threshold = None, {"name": "instant"}, "cpu", 8, 0.5
    settings: dict[str, Any] = {"weights_sha256": "0" * 64}  # noqa: RUF012

    def names(self, tasks: Any) -> list[str]:
        """The one task."""
        return [TASK]

    def engine_of(self, uncertainty: bool = False) -> str:
        """No engine that there is."""
        return "none"

    def box_of(self, cine: Any) -> None:
        """Nothing is cut."""

    def prepare(self, picture: Any, *_: Any) -> Any:
        """The picture."""
        return picture

    def answer(self, prepared: list[Any], names: list[str], uncertainty: bool = False) -> tuple[list[np.ndarray], None]:
        """Masks."""
        return [one.pixels > one.pixels.mean() for one in prepared], None

    def finish(self, prepared: Any, maps: np.ndarray, names: list[str], *_: Any) -> list[Any]:
        """The prediction."""
        from propl_monai.inference.prediction import from_masks

        return from_masks(names, maps[None])


def measure(count: int, folder: Path, papers: bool = False) -> dict[str, tuple[float, float]]:
    """Seconds of the processor and greatest memory, MB, of each stage."""
    from propl_monai.inference.inputs import find_inputs
    from propl_monai.inference.predict_folder import predict_paths
    from propl_monai.inference.shards import Shard

    pictures = folder / "root" / "FH" / "MADE" / "images"
    write_pictures(pictures, count)
    predictor: Any = Instant()
    found: dict[str, tuple[float, float]] = {}

    def stage(name: str, work: Callable[[], object]) -> None:
        Path("/proc/self/clear_refs").write_text("5")  # the greatest memory so far is forgotten
        begun = time.process_time()
        work()
        found[name] = time.process_time() - begun, peak()

    def predict(output: str, **options: Any) -> None:
        outcome = predict_paths(predictor, [pictures], folder / output, TASK, **options)
        assert outcome.code == 0, outcome

    files: list[tuple[Path, str]] = []
    stage("list", lambda: files.extend(find_inputs([pictures], folder / "out", cines=True)))
    if papers:
        write_papers(folder / "papers", files, stage)
        return found
    files.clear()
    stage("first run", lambda: predict("out"))
    stage("all done before", lambda: predict("out"))
    for number in (1, 2):
        stage(f"shard {number}/2", partial(predict, "parts", shard=Shard(number, 2)))
    stage("the whole after its shards", lambda: predict("parts"))
    shutil.rmtree(folder / "parts")
    from propl_monai.datasets.cohort import DATALIST, open_datalist  # late, as torch comes with it

    lab = str(folder / "root"), None, str(folder / "runs"), ["fetal head"]
    stage("lab: list, hash, verify", lambda: open_datalist(*lab))
    stage("lab: the list again", lambda: open_datalist(lab[0], str(folder / "runs" / DATALIST), *lab[2:]))
    return found


def write_papers(
    folder: Path, files: list[tuple[Path, str]], stage: Callable[[str, Callable[[], object]], None]
) -> None:
    """Journal and run.json of these files, as if they had been predicted."""
    from propl_monai.common.run_record import RunRecord
    from propl_monai.inference.journal import Journal

    journal, record = Journal(folder / "predictions.jsonl", {}), RunRecord(folder / "run.json", "predict", {})
    options = {"tasks": [TASK], "probability": False, "uncertainty": False, "overlay": False, "measurements": False}

    def add() -> None:
        for path, name in files:
            sha256 = hashlib.sha256(name.encode()).hexdigest()
            masks = [f"{name}_fetal_head.png"]
            journal.add({"name": name, "sha256": sha256, "options": options, "files": masks, "rows": []})
            record.add_input(path, sha256)

    stage("journal, a line for each", add)
    again: list[Journal] = []
    stage("journal read again", lambda: again.append(Journal(journal.path, {})))
    names = sorted(name for _, name in files)
    stage("run.json", lambda: record.write("finished", (each for one in again[0].read(names) for each in one["files"])))


def peak() -> float:
    """The greatest memory of this process since it was last forgotten, MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1000


def write_pictures(folder: Path, count: int) -> None:
    """Tiny PNG files of noise, no two of them alike, in the plain layout; one in ten has a mask."""
    from propl_monai.images.write import mask_png, png

    generator = np.random.default_rng(0)
    masks = folder.with_name("masks")
    folder.mkdir(parents=True)
    masks.mkdir()
    half = mask_png(np.tri(SIDE, dtype=bool))
    for number in range(count):
        (folder / f"{number:07d}.png").write_bytes(png(generator.integers(0, 256, (SIDE, SIDE), np.uint8), 1))
        if number % 10 == 0:
            (masks / f"{number:07d}.png").write_bytes(half)


if __name__ == "__main__":
    main()
