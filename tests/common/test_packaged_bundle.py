"""The bundle folder of a wheel, a checkout and a release; and the wheel that carries it, built here.

Its weights are those of the checkout, or made-up ones where it has none.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest
from factories import ROOT
from typer.testing import CliRunner

from propl_monai.cli import app
from propl_monai.common.packaged_bundle import chosen_bundle, configs_sha256, packaged_bundle, trusted_bundle
from propl_monai.errors import ProPLError

SHIPPED = ROOT / "bundle" / "models" / "model.safetensors"
SOURCES = ("propl_monai", "bundle", "setup.py", "setup.cfg", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE")


def test_a_checkout_has_its_bundle_beside_the_package() -> None:
    assert packaged_bundle() == ROOT / "bundle"


def test_a_named_bundle_is_taken_as_it_is_and_the_default_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert chosen_bundle(ROOT / "bundle") == ROOT / "bundle" and chosen_bundle(Path("mine")) == Path("mine")
    monkeypatch.chdir(tmp_path)
    assert chosen_bundle(None) == ROOT / "bundle"
    monkeypatch.chdir(ROOT)
    assert chosen_bundle(None) == Path("bundle")


def foreign(tmp_path: Path) -> Path:
    """A copy of the package's configs, in one of which a program was put."""
    folder = tmp_path / "foreign"
    shutil.copytree(ROOT / "bundle" / "configs", folder / "configs")
    content = json.loads((folder / "configs" / "train.json").read_text())
    program = f"$__import__('pathlib').Path({str(tmp_path / 'canary')!r}).touch()"
    content |= {"imports": [*content["imports"], program]}
    (folder / "configs" / "train.json").write_text(json.dumps(content))
    return folder


def test_configs_of_strangers_are_not_run_untrusted(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(ROOT / "bundle" / "configs", copy / "configs")
    assert trusted_bundle(copy) == copy, "the package's own configs are trusted wherever they lie"
    assert trusted_bundle(None) == chosen_bundle(None)
    folder = foreign(tmp_path)
    digest = configs_sha256(folder)
    with pytest.raises(
        ProPLError, match=f"a config is a program .sha256 {digest}.; read them; .* add --trust {digest}"
    ):
        trusted_bundle(folder)
    assert trusted_bundle(folder, digest.upper()) == folder
    (folder / "configs" / "more.json").write_text("{}")
    with pytest.raises(ProPLError, match=f"not the ones of sha256 {digest}"):
        trusted_bundle(folder, digest)


@pytest.mark.parametrize(
    "words", [["train", "d", "-o", "r"], ["evaluate", "d", "r"], ["compare", "d", "r"], ["quickstart", "q"]]
)
def test_no_verb_runs_a_foreign_bundle_untrusted(
    tmp_path: Path, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = CliRunner().invoke(app, [*words, "--bundle", str(foreign(tmp_path))])
    assert isinstance(found.exception, ProPLError) and "--trust" in found.exception.cure
    assert sorted(path.name for path in tmp_path.iterdir()) == ["foreign"]


@pytest.mark.parametrize("bundle", ["propl_monai/bundle", "bundle", "."])
def test_wheel_checkout_and_release(tmp_path: Path, bundle: str) -> None:
    package = tmp_path / "propl_monai"
    package.mkdir()
    with pytest.raises(ProPLError, match="propl_monai: has no bundle folder; install the package again"):
        packaged_bundle(package)
    (tmp_path / bundle / "configs").mkdir(parents=True)
    (tmp_path / bundle / "configs" / "metadata.json").write_text("{}")
    assert packaged_bundle(package) == tmp_path / bundle


def wheel_of(checkout: Path, output: Path) -> zipfile.ZipFile:
    command = [sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation", "-w", str(output)]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    (path,) = output.glob("*.whl")
    return zipfile.ZipFile(path)


@pytest.mark.slow
@pytest.mark.skipif(not (find_spec("pip") and find_spec("setuptools")), reason="needs pip and setuptools")
def test_the_wheel_carries_the_bundle_and_its_weights_once(tmp_path: Path) -> None:
    checkout, unshipped = tmp_path / "checkout", ("runs", "models", "__pycache__")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, checkout / name, ignore=shutil.ignore_patterns(*unshipped))
        else:
            shutil.copy(ROOT / name, checkout / name)
    models = checkout / "bundle" / "models"
    for path in ("model.safetensors", "model.pt", "previous/1/model.safetensors"):
        (models / path).parent.mkdir(parents=True, exist_ok=True)
        (models / path).write_bytes(SHIPPED.read_bytes() if SHIPPED.is_file() else b"weights")
    expected = (models / "model.safetensors").read_bytes()

    wheel = wheel_of(checkout, tmp_path / "first")
    names = set(wheel.namelist())
    inside = {name.removeprefix("propl_monai/bundle/") for name in names if name.startswith("propl_monai/bundle/")}
    tracked = {
        path.relative_to(checkout / "bundle").as_posix() for path in (checkout / "bundle").rglob("*") if path.is_file()
    }
    assert inside == tracked - {"models/model.pt", "models/previous/1/model.safetensors"}
    assert wheel.read("propl_monai/bundle/models/model.safetensors") == expected
    assert [name for name in names if name.endswith("model.safetensors")] == [
        "propl_monai/bundle/models/model.safetensors"
    ]
    metadata = next(wheel.read(name).decode() for name in names if name.endswith(".dist-info/METADATA"))
    assert re.search(r"^License(-Expression)?: Apache-2.0 AND LicenseRef-propl-weights$", metadata, re.MULTILINE)
    for licence in ("LICENSE", "bundle/docs/weights_license.txt", "bundle/docs/data_license.txt"):
        assert f"License-File: {licence}\n" in metadata
        assert any(name.endswith(f".dist-info/licenses/{licence}") for name in names)

    installed = tmp_path / "installed"
    wheel.extractall(installed)  # as pip does; this test has built it, and zipfile keeps members inside the folder
    code = "from propl_monai.common.packaged_bundle import packaged_bundle; print(packaged_bundle())"
    environment = os.environ | {"PYTHONPATH": str(installed)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert Path(done.stdout.strip()) == installed / "propl_monai" / "bundle", done.stderr

    shutil.rmtree(models)
    again = wheel_of(checkout, tmp_path / "second").namelist()  # nothing is left of the build before
    assert not [name for name in again if "bundle/models" in name]
    assert "propl_monai/bundle/configs/train.json" in again
