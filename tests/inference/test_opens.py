"""How often a prediction opens each picture: at most once for its hash, once for its header and once for its pixels."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factories import ROOT, small_predictor, speckle, write_small_bundle
from monai.bundle import ConfigParser
from picture_samples import save_dicom, save_metaimage, save_nifti
from PIL import Image

from propl_monai.errors import EXIT_PARTIAL
from propl_monai.inference.predict_folder import predict_paths

MOST = 3
STILLS = ("a.png", "b.jpg", "c.bmp", "d.tif", "e.webp", "f.png")
_counters: list[Counter[str]] = []


def _count(event: str, arguments: tuple[Any, ...]) -> None:
    """Every way in which Python opens a file raises this event, `os.open` and `Path.open` included."""
    if event == "open" and _counters and isinstance(arguments[0], (str, bytes, os.PathLike)):
        _counters[-1][os.fsdecode(arguments[0])] += 1


sys.addaudithook(_count)


@contextmanager
def opens(folder: Path) -> Iterator[dict[str, int]]:
    """Name of a file in a folder -> how often it was opened in the block."""
    counted: Counter[str] = Counter()
    found: dict[str, int] = {}
    _counters.append(counted)
    try:
        yield found
    finally:
        _counters.pop()
        found |= {
            Path(path).name: count
            for path, count in counted.items()
            if Path(path).parent == folder and Path(path).is_file()
        }


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for number, name in enumerate(STILLS):
        Image.fromarray(speckle(20, 31, number, colour=number % 2 == 0)).save(folder / name)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(speckle(20, 31)).save(folder / "turned.png", exif=exif)
    (folder / "cut.png").write_bytes((folder / "a.png").read_bytes()[:90])
    save_nifti(folder / "packed.nii.gz", speckle(16, 22)[None])
    save_dicom(folder / "g.dcm", speckle(16, 22)[None])
    save_metaimage(folder / "h.mha", speckle(16, 22), True)
    return folder


def test_the_counter_sees_every_way_to_open(images: Path) -> None:
    with opens(images) as found:
        (images / "a.png").read_bytes()
        with open(images / "a.png", "rb"), Image.open(images / "a.png"):
            os.close(os.open(images / "b.jpg", os.O_RDONLY))
    assert found == {"a.png": 3, "b.jpg": 1}


def test_propl_predict(images: Path, tmp_path: Path) -> None:
    save_nifti(images / "cine.nii", np.stack([speckle(16, 22, seed) for seed in (2, 3, 4)]))
    save_dicom(images / "cine.dcm", np.stack([speckle(16, 22, seed) for seed in (2, 3, 4)]))
    with opens(images) as found:
        outcome = predict_paths(small_predictor(batch=4), [images], tmp_path / "out", "LA", overlay=True)
    assert (outcome.done, outcome.refused, outcome.pictures) == (12, 1, 16)
    assert set(found) == {path.name for path in images.iterdir()} and max(found.values()) == MOST
    with opens(images) as again:
        predict_paths(small_predictor(batch=4), [images], tmp_path / "out", "LA", overlay=True)
    assert all(again[name] == 1 for name in again if name != "cut.png")  # the hash alone


def test_the_bundles_inference(images: Path, tmp_path: Path) -> None:
    weights = write_small_bundle(tmp_path / "bundle") / "models" / "model.safetensors"
    parser = ConfigParser()
    parser.read_config(str(ROOT / "bundle" / "configs" / "inference.json"))
    places = {"dataset_dir": str(images), "output_dir": str(tmp_path / "out"), "weights": str(weights)}
    for key, value in {**places, "tasks": ["left atrium"], "overlay": True}.items():
        parser[key] = value
    saver, evaluator = (parser.get_parsed_content(name) for name in ("saver", "evaluator"))
    with opens(images) as found:
        assert saver.run(evaluator) == EXIT_PARTIAL
    assert set(found) == {path.name for path in images.iterdir()} and max(found.values()) == MOST
    assert len(list((tmp_path / "out").glob("*_overlay.png"))) == len(STILLS) + 4
