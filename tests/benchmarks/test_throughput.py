"""The benchmark of whole predictions: its files, its comparison and its words. Nothing here depends on the clock."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from factories import speckle, write_small_bundle
from PIL import Image

from benchmarks import throughput
from propl_monai.images import read_frames


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    (tmp_path / "real").mkdir()
    for number in range(2):
        Image.fromarray(speckle(20, 31, number)).save(tmp_path / "real" / f"{number}.png")
    return tmp_path / "real"


def test_pictures_are_repeated(pictures: Path, tmp_path: Path) -> None:
    throughput.repeat(pictures, tmp_path / "in", 1001)
    files = sorted((tmp_path / "in").rglob("*.png"))
    assert len(files) == 1001 and files[-1].parent.name == "0001"
    assert files[2].read_bytes() == (pictures / "0.png").read_bytes() != files[1].read_bytes()


def test_cines_hold_the_frames(pictures: Path, tmp_path: Path) -> None:
    throughput.write_cines(pictures, tmp_path / "in", throughput.PER_CINE + 3)
    cines = [read_frames(path) for path in sorted((tmp_path / "in").iterdir())]
    assert [cine.count for cine in cines] == [throughput.PER_CINE, 3]
    assert np.array_equal(list(cines[1])[1], speckle(20, 31, 1))


def test_a_run_and_its_comparison(pictures: Path, tmp_path: Path) -> None:
    """In a process of its own, twice: equal masks; then one pixel is changed."""
    weights = str(write_small_bundle(tmp_path / "bundle"))
    for name in ("a", "b"):
        job = [[0], weights, str(pictures), str(tmp_path / name), "fetal head", None, 2, "torch"]
        (found,) = throughput.run_all(throughput.ROOT, [job])
        assert found["frames"] == 2 and "2 frames, " in throughput.describe(found)
    assert throughput.compare(tmp_path / "a", tmp_path / "b").startswith("2 masks, 0 of 1240 pixels differ")
    file = next((tmp_path / "a").rglob("*.png"))
    pixels = np.array(Image.open(file))
    pixels[0, 0] ^= 255
    Image.fromarray(pixels).save(file)
    assert throughput.compare(tmp_path / "a", tmp_path / "b").startswith("2 masks, 1 of 1240 pixels differ")
