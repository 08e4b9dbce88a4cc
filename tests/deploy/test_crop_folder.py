"""`propl crop` and `propl frames --crop --blank`."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from propl_monai import cli
from propl_monai.deploy.crop_folder import crop_paths
from propl_monai.errors import EXIT_BAD_INPUT, EXIT_OK, EXIT_PARTIAL, ProPLError

BOX = (30, 50, 150, 190)


def scan(seed: int = 0) -> np.ndarray:
    """A rectangle of speckle with a mark of 12 × 40 white pixels in a corner of the border, as text would be."""
    pixels = np.zeros((180, 240), np.uint8)
    top, left, bottom, right = BOX
    pixels[top:bottom, left:right] = np.random.default_rng(seed).integers(40, 200, (bottom - top, right - left))
    pixels[4:10, 200:230] = 255
    return pixels


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    folder = tmp_path / "scans"
    (folder / "deep").mkdir(parents=True)
    Image.fromarray(scan()).save(folder / "a.png")
    first, *others = [Image.fromarray(scan(seed)) for seed in (1, 2, 3)]
    first.save(folder / "deep" / "cine.tif", save_all=True, append_images=others)
    Image.fromarray(np.full((60, 70), 200, np.uint8)).save(folder / "white.png")
    return folder


def rows(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "crop.csv").open(newline="") as stream:
        return {row["name"]: row for row in csv.DictReader(stream)}


def test_stills_and_cines_are_cut_and_the_table_says_where(scans: Path, tmp_path: Path) -> None:
    assert crop_paths([scans], tmp_path / "out") == (3, 2, 0, EXIT_OK)
    table = rows(tmp_path / "out")
    row = table["a"]
    box = [int(row[key]) for key in ("top", "left", "bottom", "right")]
    assert box == pytest.approx(BOX, abs=4) and (row["height"], row["width"], row["sector"]) == ("180", "240", "1")
    top, left, bottom, right = box
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / "a.png")), scan()[top:bottom, left:right])
    names = sorted(path.name for path in (tmp_path / "out" / "deep").iterdir())
    assert names == [f"cine_frame_000{number}.png" for number in (1, 2, 3)]
    assert len({Image.open(tmp_path / "out" / "deep" / name).size for name in names}) == 1
    assert table["white"]["sector"] == "0"
    assert np.asarray(Image.open(tmp_path / "out" / "white.png")).shape == (60, 70)
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["verb"] == "crop" and record["results"] == {"files": 3, "sectors": 2, "refused": 0}


def test_text_is_blanked_and_the_size_is_kept(scans: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run = CliRunner().invoke(cli.app, ["crop", str(scans), "-o", str(out), "--blank", "--keep-size"])
    assert run.exit_code == 0 and "3 files written, a sector found in 2, 0 refused" in run.output
    pixels = np.asarray(Image.open(out / "a.png"))
    assert pixels.shape == (180, 240) and pixels[:20].max() == 0
    top, left, bottom, right = BOX
    assert np.array_equal(pixels[top:bottom, left:right], scan()[top:bottom, left:right])
    assert rows(out)["a"]["bottom"] == "180"


def test_bad_files_are_told_and_the_rest_is_done(scans: Path, tmp_path: Path) -> None:
    (scans / "broken.png").write_bytes((scans / "a.png").read_bytes()[:200])
    assert crop_paths([scans], tmp_path / "out") == (3, 2, 1, EXIT_PARTIAL)
    assert crop_paths([scans / "broken.png"], tmp_path / "none") == (0, 0, 1, EXIT_BAD_INPUT)
    with pytest.raises(ProPLError, match="is not an empty folder"):
        crop_paths([scans], tmp_path / "out")
    with pytest.raises(ProPLError, match="leaves nothing to do"):
        crop_paths([scans], tmp_path / "other", keep_size=True)


def test_frames_of_a_cine_can_be_cut_and_blanked(scans: Path, tmp_path: Path) -> None:
    cine, verb = str(scans / "deep" / "cine.tif"), CliRunner()
    for options, folder in (
        ([], "plain"),
        (["--crop"], "cut"),
        (["--blank"], "blank"),
        (["--crop", "--blank"], "both"),
    ):
        assert verb.invoke(cli.app, ["frames", cine, str(tmp_path / folder), *options]).exit_code == 0
    first = {
        name: np.asarray(Image.open(tmp_path / name / "frame_0001.png")) for name in ("plain", "cut", "blank", "both")
    }
    top, left, bottom, right = json.loads((tmp_path / "cut" / "run.json").read_text())["results"]["sector_box"]
    assert np.array_equal(first["plain"], scan(1))
    assert np.array_equal(first["cut"], scan(1)[top:bottom, left:right])
    assert first["blank"].shape == (180, 240) and first["blank"][:20].max() == 0
    assert np.array_equal(first["both"], first["blank"][top:bottom, left:right])


def test_cropped_pictures_are_not_cropped_again(scans: Path) -> None:
    for name in ("first", "second"):
        assert crop_paths([scans], scans / name) == (3, 2, 0, EXIT_OK)
        assert set(rows(scans / name)) == {"a", "deep/cine", "white"}
    assert crop_paths([scans / "deep"], scans / "third")[0] == 1
