"""Bundles from strangers: archives that escape, pickles in place of weights, configs that are programs."""

from __future__ import annotations

import json
import pickle
import shutil
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from factories import ROOT, TINY_ENCODER
from monai.bundle import download
from PIL import Image

from propl_monai.deploy.export import export
from propl_monai.deploy.monai_label.lib.served import Served
from propl_monai.deploy.zoo_checks import check_files
from propl_monai.errors import ProPLError
from propl_monai.model.network import ProPL
from propl_monai.model.weights import WEIGHTS, save_weights
from propl_monai.tasks import find


class Canary:
    """Unpickled, it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def up(archive: zipfile.ZipFile, tmp_path: Path) -> None:
    archive.writestr("name/../../escaped", "x")


def absolute(archive: zipfile.ZipFile, tmp_path: Path) -> None:
    archive.writestr(str(tmp_path / "escaped"), "x")


def link(archive: zipfile.ZipFile, tmp_path: Path) -> None:
    entry = zipfile.ZipInfo("name/out")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    archive.writestr(entry, str(tmp_path))
    archive.writestr("name/out/escaped", "x")


@pytest.mark.parametrize("payload", [up, absolute, link])
def test_a_download_does_not_leave_its_folder(tmp_path: Path, payload: Callable[[zipfile.ZipFile, Path], None]) -> None:
    with zipfile.ZipFile(tmp_path / "name.zip", "w") as archive:
        archive.writestr("name/configs/metadata.json", "{}")
        payload(archive, tmp_path)
    target = tmp_path / "one" / "two"
    try:
        download(name="name", url=(tmp_path / "name.zip").as_uri(), bundle_dir=str(target))
    except (ValueError, OSError) as error:
        assert "nsafe" in str(error) or "link" in str(error) or "exists" in str(error), error
    found = [path for path in tmp_path.rglob("escaped") if target / "name" not in path.parents]
    assert found == []


@pytest.fixture
def stranger(tmp_path: Path) -> Path:
    """A bundle whose weights are sound, and all of whose other files run code where they are trusted."""
    folder, canary = tmp_path / "propl_us_segmentation", tmp_path / "canary"
    shutil.copytree(ROOT / "bundle", folder, ignore=shutil.ignore_patterns("models", "runs"))
    torch.manual_seed(0)
    about = {"preset": "../../x", "spatial_size": [32, 32], "normalisation": "half"}
    save_weights(ProPL(TINY_ENCODER), folder / "models", about)
    (folder / "models" / "model.pt").write_bytes(pickle.dumps(Canary(canary)))
    program = f"$__import__('pathlib').Path({str(canary)!r}).touch()"
    for path in (folder / "configs").glob("*.json"):
        content = json.loads(path.read_text())
        path.write_text(json.dumps({"imports": [program], "network_def": program, **dict.fromkeys(content, program)}))
    (folder / "large_files.yml").write_text("large_files: !!python/object/apply:os.system ['touch canary']\n")
    (folder / "propl_monai").mkdir()
    (folder / "propl_monai" / "__init__.py").write_text(f"open({str(canary)!r}, 'w')")
    return folder


def test_serving_and_exporting_run_nothing_of_a_bundle(
    stranger: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    served = Served(stranger)
    picture = tmp_path / "picture.png"
    Image.fromarray(np.zeros((40, 48), np.uint8)).save(picture)
    assert served.mask(picture, find("TN")).shape == (40, 48)
    export(stranger, tmp_path / "small.safetensors")
    with pytest.raises(Exception, match="python/object"):
        check_files(stranger)
    assert not (tmp_path / "canary").exists()


def test_a_pickle_in_place_of_weights_is_refused(stranger: Path, tmp_path: Path) -> None:
    shutil.copy(stranger / "models" / "model.pt", stranger / "models" / WEIGHTS)
    for use in (Served, lambda folder: export(folder, tmp_path / "x.onnx")):
        with pytest.raises(ProPLError, match=r"model\.safetensors: is no readable safetensors file"):
            use(stranger)
    assert not (tmp_path / "canary").exists()
