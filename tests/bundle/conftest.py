"""Runs of the bundle through its command line, as users type it, from a folder that is not the bundle's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import apart
import pytest
from bundle_tools import BUNDLE, SMALL, BundleRun, configs

from propl_monai.datasets.phantoms.write_phantoms import write_phantoms


@pytest.fixture(scope="session")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("elsewhere")


@pytest.fixture(scope="session")
def phantom_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "phantoms"
    write_phantoms(folder, cases_per_task=12, size=64)
    return folder


@pytest.fixture(scope="session")
def bundle_run(elsewhere: Path) -> BundleRun:
    """`python -m monai.bundle run RUN_ID` with config names and options, or under a launcher; the completed process."""

    def run(run_id: str, names: tuple[str, ...], launcher: tuple[str, ...] = (), **options: object):
        arguments = ["run", run_id, "--bundle_root", str(BUNDLE), "--config_file", configs(*names)]
        for key, value in options.items():
            arguments += [f"--{key}", str(value)]
        if not launcher:
            return apart.run("monai.bundle", arguments, elsewhere)
        command = [sys.executable, *launcher, "monai.bundle", *arguments]
        return subprocess.run(command, cwd=elsewhere, capture_output=True, text=True, timeout=300, check=False)

    return run


@pytest.fixture(scope="session")
def trained(bundle_run: BundleRun, phantom_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a short training on phantoms; its weights are in `models`."""
    folder = tmp_path_factory.mktemp("trained")
    done = bundle_run(
        "training",
        ("train", "compact"),
        dataset_dir=phantom_folder,
        output_dir=folder,
        model_dir=folder / "models",
        **SMALL,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return folder
