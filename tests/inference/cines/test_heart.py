"""`propl ef` on made hearts: stills and cines, masks and pictures, one view and two."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_hearts import half_ellipse, half_ellipsoid_ml
from output_tools import pixels, rows
from picture_samples import save_nifti
from PIL import Image
from typer.testing import CliRunner

from propl_monai import cli
from propl_monai.errors import ProPLError
from propl_monai.inference.cines import heart
from propl_monai.inference.cines.heart import View, measure_ejection
from propl_monai.inference.prediction import Prediction

DIASTOLE, SYSTOLE = (88.0, 52.0), (70.0, 38.0)  # length and width, mm
TRUTH = 100 * (1 - half_ellipsoid_ml(70, 38, 38) / half_ellipsoid_ml(88, 52, 52))
PERIOD, FIRST = 20, 5  # frames of a beat, and before the first end-diastole


def frame(share: float, degrees: float = 20) -> np.ndarray:
    """Grey levels of a made heart: ventricle 80, atrium 160; share 0 is end-diastole, 1 is end-systole."""
    length, width = ((1 - share) * a + share * b for a, b in zip(DIASTOLE, SYSTOLE, strict=True))
    ventricle, atrium = half_ellipse(length, width, degrees)
    return (ventricle * 80 + (atrium & ~ventricle) * 160).astype(np.uint8)


def made_cine(folder: Path, name: str, masks: bool, degrees: float = 20) -> Path:
    shares = 0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(3 * PERIOD) - FIRST) / PERIOD)
    frames = np.stack([frame(float(share), degrees) for share in shares])
    values = (frames == 80).astype(np.uint8) * 255 if masks else frames
    return save_nifti(folder / name, values, (0.5, 0.5), seconds=0.05)


class ByGreyLevel:
    """Stands for a predictor that is never wrong."""

    settings: dict[str, Any] = {"weights_sha256": None}  # noqa: RUF012


@pytest.fixture
def never_wrong(monkeypatch: pytest.MonkeyPatch) -> Any:
    def predicted(_: Any, cine: Any, tasks: list[str], steady: float) -> Iterator[list[Prediction]]:
        for grey in cine:
            maps = [grey == 80, grey == 160]
            yield [Prediction(task, one, one.astype(np.float32)) for task, one in zip(tasks, maps, strict=True)]

    monkeypatch.setattr(heart, "predict_cine", predicted)
    return ByGreyLevel()


def test_stills_of_two_views(never_wrong: Any, tmp_path: Path) -> None:
    files = {}
    for name, degrees in (("4CH", 20), ("2CH", 250)):
        for phase, share in (("ED", 0.0), ("ES", 1.0)):
            files[name, phase] = tmp_path / f"{name}_{phase}.png"
            Image.fromarray(frame(share, degrees)).save(files[name, phase])
    views = [View(name, (files[name, "ED"], files[name, "ES"])) for name in ("4CH", "2CH")]
    found = measure_ejection(never_wrong, views, tmp_path / "out", (0.5, 0.5))
    assert found.fraction == pytest.approx(TRUTH, abs=1)
    assert (found.unit, found.planes, found.notes) == ("ml", 2, ())
    table = rows(tmp_path / "out" / "ef.csv")
    assert [(row["view"], row["phase"]) for row in table] == [
        (view, phase) for view in ("4CH", "2CH") for phase in ("ED", "ES")
    ]
    assert float(table[0]["length"]) == pytest.approx(88, abs=1.5)
    assert float(table[1]["volume"]) == pytest.approx(half_ellipsoid_ml(70, 38, 38), rel=0.03)
    drawn = pixels(tmp_path / "out" / "4CH_ED.png")
    assert drawn.shape == (400, 400, 3) and (drawn == 255).all(axis=2).sum() > 400  # axis and discs
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["verb"] == "ef" and record["results"]["fraction"] == found.fraction
    assert len(record["inputs"]) == 4 and "2CH_ES.png" in record["outputs"]


def test_a_cine_whose_phases_are_found(never_wrong: Any, tmp_path: Path) -> None:
    cine = made_cine(tmp_path, "cine.nii.gz", masks=False)
    found = measure_ejection(never_wrong, [View("4CH", (cine,))], tmp_path / "out")
    assert found.fraction == pytest.approx(TRUTH, abs=2) and found.unit == "ml"
    diastole, systole = (int(row["frame"]) for row in rows(tmp_path / "out" / "ef.csv"))
    assert (diastole - 1 - FIRST) % PERIOD in (0, 1, PERIOD - 1)
    assert abs(systole - diastole - PERIOD // 2) <= 1
    curve = rows(tmp_path / "out" / "4CH_areas.csv")
    assert len(curve) == 3 * PERIOD and {"ED", "ES"} <= {row["phase"] for row in curve}
    named = measure_ejection(never_wrong, [View("4CH", (cine,), (6, 16))], tmp_path / "named")
    assert [row["frame"] for row in rows(tmp_path / "named" / "ef.csv")] == ["6", "16"]
    assert named.fraction == pytest.approx(TRUTH, abs=1)


def test_masks_by_the_command_line(tmp_path: Path) -> None:
    cine = made_cine(tmp_path, "mask.nii.gz", masks=True)
    stills = [str(tmp_path / f"{phase}.png") for phase in ("ED", "ES")]
    for path, share in zip(stills, (0.0, 1.0), strict=True):
        Image.fromarray((frame(share, 140) == 80).astype(np.uint8) * 255).save(path)
    out = str(tmp_path / "out")
    given = ["ef", "--masks", "--4ch", str(cine), "--2ch", stills[0], "--2ch", stills[1], "--spacing", "0.5", "0.5"]
    run = CliRunner().invoke(cli.app, [*given, "-o", out])
    assert run.exit_code == 0, run.output
    fraction = float(run.output.split()[1])
    assert fraction == pytest.approx(TRUTH, abs=2) and "two planes" in run.output
    assert "shape alone" in run.output  # there is no atrium
    again = CliRunner().invoke(cli.app, [*given, "-o", out])
    assert "is not an empty folder" in str(again.exception)


def test_what_cannot_be_measured_is_refused_and_leaves_nothing(never_wrong: Any, tmp_path: Path) -> None:
    still, empty = tmp_path / "still.png", tmp_path / "empty.png"
    Image.fromarray(frame(0)).save(still)
    Image.fromarray(np.full((40, 40), 7, np.uint8)).save(empty)
    flat = save_nifti(tmp_path / "flat.nii.gz", np.stack([frame(0)] * 12), (0.5, 0.5))
    cases = [
        (View("4CH", (still,)), "holds one frame"),
        (View("4CH", (still, empty)), "no left ventricle was found"),
        (View("4CH", (flat,)), "shows no beat"),
        (View("4CH", (flat,), (3, 13)), "holds 12 frames"),
        (View("4CH", (flat, still)), "holds 12 frames"),
        (View("4CH", (still, still), (1, 2)), "give a cine, or two stills"),
        (View("4CH", (tmp_path / "gone.png", still)), "does not exist"),
    ]
    for view, told in cases:
        with pytest.raises(ProPLError, match=told):
            measure_ejection(never_wrong, [view], tmp_path / "out")
        assert not list((tmp_path / "out").glob("*"))
    with pytest.raises(ProPLError, match="grey levels"):
        measure_ejection(None, [View("4CH", (still, still))], tmp_path / "out")
    run = CliRunner().invoke(cli.app, ["ef", "-o", str(tmp_path / "out")])
    assert "no view was given" in str(run.exception)
