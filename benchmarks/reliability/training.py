"""Rows T1 to T12: kills, full disks, bad numbers and wrong files during training."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from factories import ROOT, build_training, same_bits
from ignite.engine import Engine, Events
from torch.utils.data import get_worker_info

from benchmarks.reliability.data import places
from benchmarks.reliability.processes import OTHER_ERROR, Child, Kills, json_lines, orphans
from benchmarks.reliability.trials import Room, Row, Tally
from propl_monai.data import loaders
from propl_monai.errors import EXIT_FAILURE, ProPLError
from propl_monai.model.weights import load_network, load_state
from propl_monai.training.methods.mean_teacher import MeanTeacherMethod

TEACHER = partial(MeanTeacherMethod, cutmix=1.0)
METHODS: dict[str, dict[str, Any]] = {"ProPL": {}, "mean teacher": {"make_method": TEACHER}}
SMALL: dict[str, Any] = {"tasks": ("left atrium",), "steps": 1, "epochs": 5}
STATE, RESULTS = "run/checkpoint_last.pt", ("models/model.safetensors", "models/model.pt")
GRACE = 30.0  # seconds that a training has to end after a signal
BUNDLE_SETTINGS = {
    **{"epochs": "500", "steps_per_epoch": "2", "spatial_size": "[64, 64]", "encoder_weights": "none"},
    **{"labelled_fraction": "1/2", "encoder": "test_efficientnet", "tasks": "[LA]"},
}


def phantoms(room: Room) -> Path:
    """Eight pictures for each of two tasks."""
    from propl_monai.datasets.phantoms.write_phantoms import write_phantoms

    write_phantoms(room.folder / "data", cases_per_task=8, size=64)
    return room.folder / "data"


def work(data: Path, folder: Path, **options: Any) -> Callable[[], None]:
    """A small training that continues what there is, from random states of its own."""

    def train() -> None:
        torch.manual_seed(os.getpid())
        build_training(data, folder, **{**SMALL, "resume": True, **options}).trainer.run()

    return train


def finish(data: Path, folder: Path, **options: Any) -> int:
    """The exit code of a training that nobody disturbs."""
    return Child(work(data, folder, **options), folder, folder.with_suffix(".log")).wait()


def read_all(folder: Path) -> int:
    """Read every file of a training; the epoch that it can resume after. Raises what is wrong with a file."""
    last = 0
    if (folder / STATE).exists():
        state = load_state(folder / STATE)
        last = state["epoch"]
        if state["best_epoch"] and not (folder / RESULTS[0]).exists():
            raise ProPLError(folder, "has a checkpoint and no weights", "")
    if (folder / RESULTS[0]).exists():
        load_network(folder / RESULTS[0])
    if (folder / RESULTS[1]).exists():
        load_state(folder / RESULTS[1])
    if (folder / "run" / "run.json").exists():
        json.loads((folder / "run" / "run.json").read_text(encoding="utf-8"))
    lines = json_lines(folder / "run" / "metrics.jsonl") if (folder / "run" / "metrics.jsonl").exists() else []
    if [line["epoch"] for line in lines] != list(range(1, len(lines) + 1)):
        raise ProPLError(folder, "misses an epoch in metrics.jsonl", "")
    # The line of an epoch is written before its checkpoint.
    if len(lines) not in (last, last + 1):
        raise ProPLError(folder, f"reports epoch {len(lines)}, and can resume after epoch {last}", "")
    return last


def same_results(folder: Path, whole: Path) -> bool:
    """Whether two finished trainings have the same state, weights and figures, to the bit."""
    states = [load_state(place / STATE) for place in (folder, whole)]
    figures = [
        [{**line, "seconds": 0} for line in json_lines(place / "run" / "metrics.jsonl")] for place in (folder, whole)
    ]
    weights = all((folder / name).read_bytes() == (whole / name).read_bytes() for name in RESULTS)
    return weights and same_bits(states[0], states[1]) and figures[0] == figures[1]


def trouble(check: Callable[[], Any]) -> str:
    """What a check raises, in words; empty if nothing."""
    try:
        check()
    except Exception as error:  # of torch, json or the disk: whatever a damaged file brings
        return f"{type(error).__name__}: {error}"
    return ""


def kills_while_saving(room: Room) -> Tally:
    """Kill a training at random writes, resume it, and go on until it is finished, again and again."""
    data, tally, kills = phantoms(room), Tally(), Kills(most_writes=14)
    for method, options in METHODS.items():
        finish(data, room.folder / f"whole {method}", **options)
    for series in itertools.count():
        if kills.kills >= room.times(200):
            break
        method, options = list(METHODS.items())[series % len(METHODS)]
        folder, before, code = room.folder / f"series {series}", 0, None
        while code is None and kills.kills < room.times(200):
            child = Child(work(data, folder, **options), folder, room.folder / "log.txt")
            code = kills.kill(child, folder)
            if code is None:
                found: list[int] = []
                wrong = trouble(lambda: found.append(read_all(folder)))  # noqa: B023 (it is called at once)
                tally.trial(not wrong and found[0] >= before, f"kill {kills.kills}: {wrong or 'an epoch was lost'}")
                before = found[0] if found else before
        code = finish(data, folder, **options) if code is None else code
        same = code == 0 and same_results(folder, room.folder / f"whole {method}")
        tally.trial(same and not orphans(folder), f"series {series} of {method} ended otherwise, or with orphans")
        shutil.rmtree(folder)
    tally.notes += [
        f"{kills.kills} kills; {series} trainings then ended with the bits of one never stopped",
        kills.note(),
    ]
    return tally


def full_disk(room: Room) -> Tally:
    """Files that can grow to a limit only, from nothing to more than the largest one needs."""
    data, tally, told = phantoms(room), Tally(), 0
    begun, whole = room.folder / "begun", room.folder / "whole"
    finish(data, whole)
    Child(work(data, begun, extra_handlers=(Stop(2),)), begun, room.folder / "log.txt").wait()
    largest = max(path.stat().st_size for path in whole.rglob("*") if path.is_file())
    count = room.times(60)
    for number in range(count):
        folder = room.folder / f"full {number}"
        shutil.copytree(begun, folder)
        before = read_all(folder)
        limit = largest * 11 * number // (10 * max(1, count - 1))
        log = room.folder / f"{number}.log"
        code = Child(work(data, folder), folder, Path(os.devnull) if limit < 10_000 else log, limit).wait()
        told += code == EXIT_FAILURE
        found: list[int] = []
        wrong = trouble(lambda: found.append(read_all(folder)))  # noqa: B023
        wrong = wrong or ("an epoch was lost" if found[0] < before else "")
        wrong = wrong or (f"exit code {code}" if code not in (0, EXIT_FAILURE) else "")
        if not wrong and not (finish(data, folder) == 0 and same_results(folder, whole)):
            wrong = "it did not resume to the same results"
        tally.trial(not wrong, f"limit of {limit} bytes: {wrong}")
        shutil.rmtree(folder)
    tally.notes.append(
        f"{told} of {count} runs stopped with a message, and ended as if never stopped once there was room"
    )
    return tally


class Stop:
    """Kills its process after the first step of an epoch."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_STARTED(once=self.epoch), lambda: None)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._step)

    def _step(self, engine: Engine) -> None:
        if engine.state.epoch == self.epoch:
            os.kill(os.getpid(), signal.SIGKILL)


def resume_at_every_epoch(room: Room) -> Tally:
    """Method × precision × loader processes × epoch; one combination in a share of the trials."""
    data, tally = phantoms(room), Tally()
    epochs = 4
    combinations = list(itertools.product(METHODS, ("fp32", "bf16"), (0, 2)))
    for method, precision, workers in combinations[: room.times(len(combinations))]:
        name = f"{method}, {precision}, {workers} workers"
        options = {**METHODS[method], "precision": precision, "epochs": epochs, "steps": 2}
        finish(data, room.folder / name, **options)
        for epoch in range(1, epochs):
            folder = room.folder / f"{name}, {epoch}"
            handlers = {"extra_handlers": (Stop(epoch + 1),)}
            log = folder.with_suffix(".log")
            code = Child(work(data, folder, **options, **handlers, num_workers=workers), folder, log).wait()
            stopped = code == -signal.SIGKILL and read_all(folder) == epoch
            ended = finish(data, folder, **options, num_workers=workers) == 0
            same = stopped and ended and same_results(folder, room.folder / name)
            tally.trial(same, f"{name}, resumed after epoch {epoch}")
    tally.notes.append("state, weights and metrics.jsonl compared bit by bit with a run that was never stopped")
    return tally


def signals(room: Room) -> Tally:
    """SIGTERM, Ctrl-C, and Ctrl-C twice, sent to `propl train` after its first checkpoint."""
    data, tally = phantoms(room), Tally()
    cases = [
        ("SIGTERM", [signal.SIGTERM], 143),
        ("Ctrl-C", [signal.SIGINT], 130),
        ("Ctrl-C twice", [signal.SIGINT] * 2, 130),
    ]
    for name, sent, expected in cases[: room.times(len(cases))]:
        folder = room.folder / name
        settings = [part for key, value in BUNDLE_SETTINGS.items() for part in ("--set", f"{key}={value}")]
        command = [sys.executable, "-m", "propl_monai.cli", "train", str(data), "-o", str(folder)]
        command += ["--bundle", str(ROOT / "bundle"), "--preset", "compact", *settings]
        with (room.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT, preexec_fn=hear_ctrl_c)
            while not (folder / "checkpoint_last.pt").exists() and process.poll() is None:
                time.sleep(0.05)
            for each in sent:
                process.send_signal(each)
                time.sleep(0.05)
            begun = time.monotonic()
            try:
                code = process.wait(GRACE)
            except subprocess.TimeoutExpired:
                process.kill()
                code = process.wait()
        code = 128 - code if code < 0 else code  # as a shell tells it
        epoch = load_state(folder / "checkpoint_last.pt")["epoch"]
        status = json.loads((folder / "run.json").read_text(encoding="utf-8"))["status"]
        # A second Ctrl-C may come before run.json is written: what it says is then that of the start.
        good = code == expected and epoch > 0 and (status == "failed" or len(sent) > 1)
        tally.trial(good, f"{name}: exit code {code}, run.json says {status}")
        tally.notes.append(f"{name}: ended after {time.monotonic() - begun:.1f} s, exit code {code}")
    return tally


def hear_ctrl_c() -> None:
    """In a new process: hear Ctrl-C, which a shell has its background jobs ignore, and they their children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class KillWorker:
    """Kills a loader process in the second step."""

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED(once=2), self._kill)

    def _kill(self, engine: Engine) -> None:
        for process in multiprocessing.active_children()[:1]:
            os.kill(process.pid or 0, signal.SIGKILL)


def dead_workers(room: Room) -> Tally:
    """A loader process that is killed, and one that never answers: an error in time, and a run that can be resumed."""
    data, tally = phantoms(room), Tally()

    def hang() -> None:
        loaders.LONGEST_WAIT = 3
        draw = loaders.DrawnDataset.__getitem__

        def slow(self: Any, index: Any) -> Any:
            if get_worker_info() is not None:
                time.sleep(3600)
            return draw(self, index)

        loaders.DrawnDataset.__getitem__ = slow  # type: ignore[method-assign]
        work(data, room.folder / "hangs", num_workers=1)()

    killed = work(data, room.folder / "killed", num_workers=1, steps=200, extra_handlers=(KillWorker(),))
    for name, job in (("killed", killed), ("hangs", hang)):
        folder, log, begun = room.folder / name, room.folder / f"{name}.txt", time.monotonic()
        code = Child(job, folder, log).wait()
        record = json.loads((folder / "run" / "run.json").read_text(encoding="utf-8"))
        words = " ".join(finding["message"] for finding in record["findings"])
        took = time.monotonic() - begun
        named = record["status"] == "failed" and "DataLoader" in words
        tally.trial(code not in (0, OTHER_ERROR) and named and took < 60, f"{name}: exit code {code}, {words[:200]}")
        tally.notes.append(f"{name}: {took:.0f} s, '{words[:90]}'")
    return tally


def damaged_states(room: Room) -> Tally:
    """Resume states and weights that were cut, or in which a bit has flipped."""
    from propl_monai.common.files import file_sha256
    from propl_monai.inference.predictor import Predictor

    data, tally = phantoms(room), Tally()
    finish(data, room.folder / "whole", epochs=1)
    readers = {STATE: load_state, RESULTS[0]: load_network, RESULTS[1]: load_state}
    for name, read in readers.items():
        content, path = (room.folder / "whole" / name).read_bytes(), room.folder / Path(name).name
        for length in places(len(content), room.times(100)):
            path.write_bytes(content[:length])
            tally.trial(_refused(read, path), f"{name} cut after {length} of {len(content)} bytes")
    content, path = (room.folder / "whole" / RESULTS[0]).read_bytes(), room.folder / "model.safetensors"
    path.write_bytes(content)
    sha256 = file_sha256(path)
    for place in places(len(content), room.times(100)):
        flipped = bytearray(content)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)
        tally.trial(_refused(partial(Predictor.from_bundle, sha256=sha256), path), f"bit flipped at {place}")
    tally.notes.append("flipped bits are found by the hash of the weights, which run.json holds")
    return tally


def _refused(read: Callable[[Path], Any], path: Path) -> bool:
    try:
        read(path)
    except ProPLError as error:
        return str(path) in error.where
    return False


def repeated(room: Room) -> Tally:
    """The same seed with 0, 0 and 4 loader processes."""
    data, tally = phantoms(room), Tally()
    for number, workers in enumerate((0, 0, 4)):
        finish(data, room.folder / f"run {number}", num_workers=workers)
        if number:
            same = same_results(room.folder / f"run {number}", room.folder / "run 0")
            tally.trial(same, f"{workers} loader processes")
    return tally


def of_file(name: str, *tests: str) -> Sequence[str]:
    """Tests of one file."""
    return [f"{name}::test_{test}" for test in tests]


ROWS = (
    Row("T1", "SIGKILL during the writes of a training", kills_while_saving),
    Row(
        "T2",
        "a disk that is full at every size",
        full_disk,
        [
            "tests/common/test_run_record.py::test_a_failure_on_a_full_disk_changes_the_status_in_place",
            "tests/common/test_bundle_start.py::test_a_full_disk_is_refused",
            *of_file(
                "tests/inference/test_output_folder.py",
                "a_disk_that_is_full_ends_the_run_with_a_run_json",
                "a_full_disk_stops_the_run_and_loses_nothing",
            ),
            "tests/datasets/test_prepare.py::test_a_full_disk_is_no_fault_of_the_pictures",
            "tests/datasets/test_prepare.py::test_a_run_that_fails_leaves_the_earlier_pictures",
        ],
    ),
    Row("T3", "stop and resume after every epoch", resume_at_every_epoch),
    Row(
        "T4",
        "SIGTERM, Ctrl-C once and twice",
        signals,
        ["tests/inference/test_predict_folder.py::test_ctrl_c_leaves_what_was_computed_and_papers"],
    ),
    Row(
        "T5",
        "NaN and infinity in pictures, losses and gradients",
        tests=[
            *of_file(
                "tests/training/test_trainer.py",
                "a_bad_step_is_skipped_counted_and_told",
                "an_infinite_gradient_of_a_finite_loss_is_skipped",
                "too_many_bad_steps_in_a_row_stop_with_the_cases",
                "bad_steps_apart_do_not_stop",
                "the_hook_follows_every_successful_step_and_no_other",
            ),
            "tests/training/test_records.py::test_a_nan_in_an_image_leaves_a_sound_network_and_valid_files",
            "tests/training/test_whole_trainings.py::test_a_skipped_step_leaves_the_teacher_alone",
            "tests/training/test_validation.py::test_a_logit_that_is_not_a_number_is_background",
        ],
    ),
    Row(
        "T6",
        "batches of odd sizes, empty masks, absent tasks",
        tests=[
            *of_file(
                "tests/data/test_loaders.py",
                *("an_epoch_of_any_size", "no_labelled_image_is_refused", "empty_data_set_is_no_error"),
            ),
            "tests/training/methods/test_method_registry.py::test_odd_batches",
            "tests/training/methods/test_propl.py::test_partial_batches",
            "tests/training/test_losses.py::test_empty_and_full_masks_have_finite_loss_and_gradient",
            *of_file(
                "tests/training/test_whole_trainings.py",
                *("all_labels_leave_nothing_unlabelled", "one_task_alone", "labels_alone_for_a_fixed_number_of_steps"),
            ),
        ],
    ),
    Row(
        "T7",
        "pseudo-labels without foreground for an epoch",
        tests=["tests/training/test_records.py::test_pseudo_labels_that_collapse_are_told"],
    ),
    Row(
        "T8",
        "a loader process that is killed, or hangs",
        dead_workers,
        of_file(
            "tests/data/test_loaders.py",
            "the_cause_survives_loader_processes",
            "other_errors_of_loader_processes_have_no_such_cause",
        ),
    ),
    Row(
        "T9",
        "two runs in one folder",
        tests=[
            *("tests/common/test_files.py", "tests/common/test_claims.py"),
            "tests/common/test_bundle_start.py::test_folders_stay_locked_until_the_process_ends_and_may_be_locked_again_inside_it",
            "tests/bundle/test_commands.py::test_a_folder_that_another_run_writes_is_refused",
            "tests/inference/test_predict_folder.py::test_two_runs_in_one_folder",
            "tests/inference/test_bundle_handlers.py::test_two_processes_in_one_folder",
            "tests/inference/test_shards.py::test_who_may_write_beside_whom",
        ],
    ),
    Row(
        "T10",
        "checkpoints cut at 100 places each, flipped, or of another run",
        damaged_states,
        [
            *of_file(
                "tests/training/test_records.py",
                *("resume_of_another_run_is_refused", "resume_on_other_data_is_refused", "a_damaged_state_is_named"),
            ),
            "tests/model/test_weights.py",
        ],
    ),
    Row(
        "T11",
        "the same seed again, other loader processes, several ranks",
        repeated,
        [
            "tests/bundle/test_several_ranks.py",
            "tests/data/test_loaders.py::test_draws_do_not_depend_on_workers_nor_on_what_was_drawn_before",
            "tests/training/test_records.py::test_another_seed_trains_another_network",
        ],
    ),
    Row(
        "T12",
        "test cases that reach training or model selection",
        tests=[
            *of_file(
                "tests/datasets/test_cohort.py",
                "no_case_is_in_two_places_and_no_test_case_in_any",
                "a_datalist_file_is_taken_as_it_is",
                "evaluation_takes_one_split",
                "what_is_left_out_is_neither_trained_nor_validated_on_and_is_all_of_the_external_set",
            ),
            "tests/evaluation/report/test_page.py::test_temperature_comes_from_validation_alone",
            "tests/datasets/test_frozen_lists.py",
        ],
    ),
)
