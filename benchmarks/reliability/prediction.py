"""Rows P1 to P10: folders, kills, geometry, exports and figures."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
import torch
from factories import ROOT, small_predictor, speckle, write_small_bundle
from PIL import Image

from benchmarks.reliability.data import picture
from benchmarks.reliability.processes import Child, Kills, command, orphans
from benchmarks.reliability.training import of_file
from benchmarks.reliability.trials import Room, Row, Tally
from propl_monai.deploy.export import SUFFIXES, export
from propl_monai.errors import EXIT_OK, EXIT_PARTIAL, ProPLError
from propl_monai.images.picture import Picture

FORMATS = [suffixes[0] for suffixes in SUFFIXES.values()]
PREDICTOR = "tests/inference/test_predictor.py"
RESULTS = ("run.json", "predictions.jsonl")  # hold times
BAD = (b"", b"<html>", b"not a picture", b"\x89PNG\r\n\x1a\n")


def pictures(folder: Path, count: int) -> None:
    """Small pictures of several sizes."""
    for number in range(count):
        Image.fromarray(speckle(20 + number % 7, 24 + number % 5, number)).save(folder / f"{number:03d}.png")


def files(folder: Path) -> dict[str, bytes]:
    """The results in a folder."""
    return {path.name: path.read_bytes() for path in folder.rglob("*.*") if path.name not in RESULTS}


def bad_files(room: Room) -> Tally:
    """200 files, every tenth damaged: all others are done, every bad one is named, and a second run does nothing again."""
    tally, count = Tally(), room.times(200)
    folder, out = room.sub("in"), room.folder / "out"
    bundle = write_small_bundle(room.sub("bundle"))
    pictures(folder, count)
    damaged = [f"{number:03d}.png" for number in range(0, count, 10)]
    for number, name in enumerate(damaged):
        (folder / name).write_bytes([*BAD, picture(room.folder, ".png")[:-30]][number % 5])
    predict = command("predict", folder, "-o", out, "-t", "LA", "--bundle", bundle, "--device", "cpu")
    for turn in ("first", "second"):
        code = Child(predict, out, room.folder / "log.txt").wait()
        tally.trial(code == EXIT_PARTIAL, f"exit code {code} of the {turn} run")
        record = json.loads((out / "run.json").read_text(encoding="utf-8"))
        named = {Path(finding["path"]).name for finding in record["findings"]}
        for number in range(count):
            name = f"{number:03d}.png"
            mask = out / f"{number:03d}_left_atrium.png"
            tally.trial(
                mask.exists() != (name in damaged) and (name in named) == (name in damaged), f"{name}, {turn} run"
            )
        skipped = record["results"]["skipped"]
        tally.trial(skipped == (0 if turn == "first" else count - len(damaged)), f"{skipped} skipped in the {turn} run")
    return tally


def kills_while_predicting(room: Room) -> Tally:
    """Kill `propl predict` at random writes: every result is whole, and in the end all are those of a run undisturbed."""
    tally, kills, series = Tally(), Kills(most_writes=60), 0
    folder = room.sub("in")
    bundle = write_small_bundle(room.sub("bundle"))
    pictures(folder, 24)

    def predict(out: Path) -> Child:
        words = ("predict", folder, "-o", out, "-t", "LA", "-t", "TN", "--overlay", "--probability", "--measure")
        return Child(command(*words, "--bundle", bundle, "--device", "cpu"), out, room.folder / "log.txt")

    if code := predict(room.folder / "whole").wait():
        tally.trial(False, f"a prediction that nobody disturbs ends with exit code {code}")
        return tally
    whole = files(room.folder / "whole")
    while kills.kills < room.times(60):
        out, code = room.folder / f"out {series}", None
        series += 1
        while code is None and kills.kills < room.times(60):
            code = kills.kill(predict(out), out)
            if code is None:
                # Probabilities are rounded to 16 bits, and batches of another size differ in the last bits of a float.
                wrong = [
                    name
                    for name, data in files(out).items()
                    if not name.startswith(".tmp-") and not same(data, whole[name])
                ]
                tally.trial(not wrong, f"kill {kills.kills}: {wrong[:3]}")
        code = predict(out).wait() if code is None else code
        found = files(out)
        all_there = found.keys() == whole.keys() and all(same(found[name], whole[name]) for name in whole)
        tally.trial(code == EXIT_OK and all_there and not orphans(out), f"folder {series} ended otherwise")
        shutil.rmtree(out, ignore_errors=True)
    tally.notes += [f"{kills.kills} kills; {series} folders then ended like one never stopped", kills.note()]
    return tally


def same(found: bytes, wanted: bytes) -> bool:
    """Equal bytes; of 16-bit maps, values within one step."""
    if found == wanted or not wanted.startswith(b"\x89PNG"):
        return found == wanted
    from io import BytesIO

    left, right = (np.asarray(Image.open(BytesIO(data))).astype(np.int64) for data in (found, wanted))
    return left.shape == right.shape and right.max() > 255 and int(np.abs(left - right).max()) <= 1


def sizes(room: Room) -> Tally:
    """Masks have the size of their picture, whatever it is."""
    tally, predictor, random = Tally(), small_predictor(), np.random.default_rng(0)
    for height, width in [(1, 1), (1, 300), (300, 1), *random.integers(2, 700, (room.times(300), 2)).tolist()]:
        ((found,),) = predictor.predict([Picture(speckle(height, width))], "LA")
        tally.trial(found.mask.shape == (height, width), f"{height} × {width} became {found.mask.shape}")
    return tally


def exports(room: Room) -> Tally:
    """Every format that `propl export` writes, with every decoder: 50 pictures each, compared with the network."""
    tally, worst = Tally(), 0.0
    bundle = write_small_bundle(room.sub("bundle"), spatial_size=[64, 64])
    combinations = list(product(FORMATS, ("sd", "pd", "mean")))
    combinations = combinations[: room.times(len(combinations))]
    for suffix, decoder in combinations:
        try:
            parity = export(bundle, room.folder / f"{decoder}{suffix}", decoder=decoder)["parity"]
        except Exception as error:  # whatever it is, the other files are tried
            tally.trial(False, f"{suffix}, {decoder}: {error}")
            continue
        worst = max(worst, parity["largest_logit_difference"])
        good = parity["largest_logit_difference"] <= 1e-4 and parity["mask_disagreement"] <= 1e-4
        tally.tried += parity["inputs"] - 1
        tally.trial(good, f"{suffix}, {decoder}: {parity}")
    tally.notes.append(f"a small network: {len(combinations)} files, largest difference of a logit {worst:.1e}")
    shipped = ROOT / "bundle" / "models" / "model.safetensors"
    for suffix in FORMATS[:2] if shipped.exists() and room.share == 1 else ():
        try:
            parity = export(shipped, room.folder / f"shipped{suffix}", decoder="mean")["parity"]
        except ProPLError as error:
            tally.trial(False, f"weights of the package, {suffix}: {error}")
            continue
        tally.tried += parity["inputs"]
        largest, of_masks = parity["largest_probability_difference"], parity["mask_disagreement"]
        tally.notes.append(f"the package's weights as {suffix}: {largest:.1e} in a probability, masks {of_masks:.1e}")
    return tally


def of_predictor(*tests: str) -> Sequence[str]:
    """Tests of `test_predictor.py`."""
    return of_file(PREDICTOR, *tests)


ROWS = (
    Row(
        "P1",
        "20 bad files among 200",
        bad_files,
        ["tests/inference/test_predict_folder.py::test_bad_files_are_told_and_the_rest_is_done"],
    ),
    Row(
        "P2",
        "SIGKILL during the writes of a prediction",
        kills_while_predicting,
        ["tests/inference/test_journal.py", "tests/inference/test_shards.py"],
    ),
    Row(
        "P3",
        "pictures of 303 sizes, shapes to the grid and back",
        sizes,
        [
            *of_predictor("shapes_survive_the_way_to_the_grid_and_back", "sizes_come_back"),
            "tests/data/test_transforms.py::test_round_trip_to_the_grid_and_back",
            "tests/inference/test_postprocess.py",
        ],
    ),
    Row(
        "P4",
        "another batch, order, mirroring, thread or door",
        tests=[
            *of_predictor(
                *("neither_batch_nor_order_changes_a_result", "several_tasks_are_encoded_once_and_equal_single_calls"),
                *("mirroring", "four_threads_give_the_results_of_one", "path_picture_and_array_give_the_same"),
                *("masks_are_those_of_the_bundles_inference", "one_decoder_gives_the_bits_of_the_full_weights"),
            ),
            "tests/inference/test_predict_folder.py::test_frames_of_several_files_share_a_batch",
        ],
        not_run="" if torch.cuda.is_available() else "a GPU against the CPU, as there is none",
    ),
    Row(
        "P5",
        "exports that differ from their network",
        exports,
        ["tests/deploy/test_export.py"],
    ),
    Row(
        "P6",
        "another version of torch gives other logits",
        not_run=f"it needs a second torch, and torch {torch.__version__} is the only one here",
    ),
    Row("P7", "Dice, IoU and HD95 by hand and by brute force", tests=["tests/evaluation/test_metrics.py"]),
    Row(
        "P8",
        "empty masks and missed targets that vanish from a mean",
        tests=[
            *of_file(
                "tests/evaluation/test_summary.py",
                *("counts_and_means_by_hand", "both_empty_without_spacing_is_not_a_zero_in_millimetres"),
                *("mask_that_vanishes_on_the_grid_is_charged_the_diagonal", "missing_the_hard_targets_does_not_pay"),
                *("every_status_of_the_metrics_is_known_here", "bad_rows_are_refused"),
            ),
            "tests/evaluation/test_case_table.py",
        ],
    ),
    Row(
        "P9",
        "intervals that do not hold what they say",
        tests=["tests/evaluation/test_summary.py", "tests/evaluation/lab/test_statistics.py"],
        options=["-m", "exhaustive or not exhaustive"],
    ),
    Row("P10", "calibration and temperature by hand", tests=["tests/evaluation/test_calibration.py"]),
)
