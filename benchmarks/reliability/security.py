"""Rows S1 to S8: files, bundles and names from strangers."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import requires
from pathlib import Path
from typing import Any

import numpy as np
import torch
from factories import ROOT, TINY_ENCODER
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from benchmarks.reliability.data import DAMAGED
from benchmarks.reliability.prediction import of_predictor
from benchmarks.reliability.training import of_file
from benchmarks.reliability.trials import Room, Row, Tally
from propl_monai.common.files import file_sha256

HOSTILE = "tests/deploy/test_hostile_bundles.py"
REQUESTS = "tests/deploy/monai_label/test_hostile_requests.py"
WEIGHTS = "tests/model/test_weights.py"


class Canary:
    """Unpickled, it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def payloads(canary: Path) -> dict[str, bytes]:
    """Files that run code where they are unpickled, by the way in which they were written."""

    def to_bytes(save: Callable[[io.BytesIO], object]) -> bytes:
        stream = io.BytesIO()
        save(stream)
        return stream.getvalue()

    bomb = Canary(canary)
    array = np.array([bomb], dtype=object)
    made = {f"pickle {protocol}": pickle.dumps(bomb, protocol) for protocol in range(6)}
    made["state"] = pickle.dumps({"weights": bomb})
    made["torch"] = to_bytes(lambda stream: torch.save({"weights": bomb}, stream))
    made["torch, old form"] = to_bytes(lambda stream: torch.save(bomb, stream, _use_new_zipfile_serialization=False))
    made["npy"] = to_bytes(lambda stream: np.save(stream, array, allow_pickle=True))
    made["npz"] = to_bytes(lambda stream: np.savez(stream, weights=array))
    made["torch in a list"] = to_bytes(lambda stream: torch.save([torch.zeros(2), bomb], stream))
    return made


def pickles(room: Room) -> Tally:
    """Twelve payloads under every name, through every door by which files come in."""
    from propl_monai.deploy.export import export
    from propl_monai.images import read_frames, read_image
    from propl_monai.inference.predictor import Predictor
    from propl_monai.model.encoder import VisionEncoder, load_pretrained
    from propl_monai.model.prompts import PromptBank
    from propl_monai.model.weights import load_network, load_state, read_header

    canary, encoder = room.folder / "canary", VisionEncoder(TINY_ENCODER)
    doors: dict[str, Callable[[Path], object]] = {
        "Predictor": Predictor.from_bundle,
        "load_network": load_network,
        "load_state": load_state,
        "read_header": read_header,
        "load_pretrained": lambda path: load_pretrained(encoder, str(path)),
        "PromptBank": PromptBank.load,
        "read_image": read_image,
        "read_frames": read_frames,
        "export": lambda path: export(path, room.folder / "x.onnx"),
    }
    tally = Tally()
    for name, content in payloads(canary).items():
        for suffix in (".pt", ".pth", ".npy", ".npz", ".ts", ".safetensors"):
            path = room.folder / f"weights{suffix}"
            path.write_bytes(content)
            for door, enter in doors.items():
                refused = False
                try:
                    enter(path)
                except Exception:  # whatever it says: here it counts that nothing runs
                    refused = True
                tally.trial(refused and not canary.exists(), f"{name} as {suffix} through {door}")
                canary.unlink(missing_ok=True)
    pickle.loads(payloads(canary)["pickle 2"])  # or the trials above could not fail
    tally.trial(canary.exists(), "the payload itself does nothing")
    return tally


def supply(room: Room) -> Tally:
    """The wheel twice, of copies made at other times; and the parts list of a release."""
    from propl_monai.deploy.sbom import sbom

    tally, sums = Tally(), []
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode()
    for number in (1, 2):
        copy = room.sub(f"copy {number}")
        for name in filter(None, listed.split("\0")):
            if (ROOT / name).is_file():
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / name, copy / name)
        command = [sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation", "-w", "dist"]
        environment = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000"}  # as for every build that is to be repeated
        done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True)
        if not tally.trial(done.returncode == 0, f"build {number}: {done.stderr[-300:]}"):
            return tally
        sums += [file_sha256(path) for path in (copy / "dist").glob("*.whl")]
        time.sleep(2)  # times in a zip are even seconds
    tally.trial(len(sums) == 2 and sums[0] == sums[1], f"two builds of the wheel differ: {sums}")
    parts = json.loads(sbom())
    unlicensed = [part["name"] for part in parts["components"] if "licenses" not in part]
    names = {part["name"] for part in parts["components"]}
    needed = {
        canonicalize_name(Requirement(line).name) for line in requires("propl_monai") or () if "extra" not in line
    }
    for name in sorted(needed):
        tally.trial(name in names, f"{name} is not in the parts list")
    tally.notes.append(f"{len(names)} packages in the parts list; without a stated licence: {unlicensed or 'none'}")
    return tally


ROWS = (
    Row(
        "S1",
        "pickles in place of weights, arrays and pictures",
        pickles,
        [
            f"{WEIGHTS}::test_pickles_are_not_run",
            *of_predictor("a_pickle_is_refused_by_any_name"),
            f"{HOSTILE}::test_a_pickle_in_place_of_weights_is_refused",
            "tests/model/test_encoder.py::test_files_that_are_no_weights_are_refused",
        ],
    ),
    Row(
        "S2",
        "archives that leave their folder",
        tests=[
            f"{HOSTILE}::test_a_download_does_not_leave_its_folder",
            f"{REQUESTS}::test_no_archive_is_unpacked_and_no_weights_are_taken",
        ],
    ),
    Row(
        "S3",
        "foreign bundle configs, which are programs",
        tests=[
            *of_predictor("nothing_of_a_bundle_is_run", "senseless_metadata", "bad_headers"),
            *of_file(
                "tests/common/test_packaged_bundle.py",
                *("configs_of_strangers_are_not_run_untrusted", "no_verb_runs_a_foreign_bundle_untrusted"),
            ),
            f"{HOSTILE}::test_serving_and_exporting_run_nothing_of_a_bundle",
            f"{REQUESTS}::test_a_training_runs_no_code_of_a_request",
        ],
    ),
    Row(
        "S4",
        "scripts in names of files and in prompts",
        tests=of_file(
            "tests/evaluation/report/test_page.py",
            *("names_and_prompts_are_text_and_nothing_else", "the_page_needs_nothing_else"),
        ),
    ),
    Row(
        "S5",
        "paths that leave their folder",
        tests=[
            f"{DAMAGED}::test_a_bad_entry_is_a_finding_and_the_rest_is_checked[absolute path]",
            f"{DAMAGED}::test_a_bad_entry_is_a_finding_and_the_rest_is_checked[parent folder]",
            "tests/data/test_datalist.py::test_bad_row_is_refused_by_reader_and_schema",
            "tests/datasets/test_prepare.py::test_a_name_that_no_file_can_have_is_refused",
            "tests/datasets/test_prepare.py::test_what_is_not_ours_is_never_replaced",
            f"{REQUESTS}::test_nothing_leaves_the_study",
        ],
    ),
    Row(
        "S6",
        "weights that were changed on their way",
        tests=[
            "tests/model/test_encoder.py::test_package_with_another_hash_is_refused",
            f"{WEIGHTS}::test_truncated_weights_are_refused",
            f"{WEIGHTS}::test_flipped_bits_in_the_header_are_refused_or_harmless",
            *of_predictor("bundle_folder_of_weights_and_file_are_the_same", "a_damaged_file", "bad_tensors"),
            "tests/deploy/test_release.py::test_hashes_of_the_weights_are_checked_after_a_download",
        ],
    ),
    Row(
        "S7",
        "releases that cannot be made again, or lack a dependency",
        supply,
        of_file(
            "tests/deploy/test_release.py",
            *("two_builds_are_the_same_bytes", "the_metadata_lists_all_required_packages_in_exact_versions"),
            *("a_sound_folder_has_no_findings", "every_fault_is_found"),
        ),
        not_run="the audit of the dependencies, which needs the internet",
    ),
    Row(
        "S8",
        "the network is gone",
        tests=[
            *("tests/common", "tests/data", "tests/images", "tests/model", "tests/inference", "tests/training"),
            *("tests/test_errors.py", "tests/test_tasks.py"),
        ],
    ),
)
