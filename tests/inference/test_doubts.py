"""Scores in measurements.csv, run.json and the log; `strict` withholds masks, and says so."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factories import small_predictor, speckle
from known_tools import known_for
from output_tools import content, rows

from propl_monai.errors import EXIT_BAD_INPUT, EXIT_OK, EXIT_PARTIAL, ProPLError
from propl_monai.images import Picture
from propl_monai.inference.doubts import NAMED, lines, summary
from propl_monai.inference.predict_folder import predict_paths
from propl_monai.inference.predictor import Predictor

Check = Callable[[Path], dict[str, Any]]
TASKS = ["left atrium", "thyroid nodule"]
FRAMES = [f"cine_frame_000{number}" for number in (1, 2, 3)]


def with_scores(foreign: bool = False, absent: tuple[str, ...] = ()) -> Predictor:
    predictor = small_predictor(batch=2)
    predictor.known = known_for(predictor, foreign, absent)
    return predictor


@pytest.fixture(scope="module")
def doubtful() -> Predictor:
    """No nodule in any picture."""
    return with_scores(absent=("thyroid",))


def test_scores_are_written_and_masks_too(
    doubtful: Predictor, images: Path, tmp_path: Path, check_run_json: Check, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "out"
    with caplog.at_level(logging.WARNING):
        found = predict_paths(doubtful, [images], out, TASKS, measurements=True)
    assert found.code == EXIT_OK and len(content(out)) == 2 * 5 + 3  # the areas of the cine, twice
    table = rows(out / "measurements.csv")
    assert [row["absent"] for row in table] == ["False", "True"] * 5 and {row["foreign"] for row in table} == {"False"}
    assert all(0 <= float(row["presence"]) <= 1 and float(row["known"]) == 1 for row in table)
    results = check_run_json(out / "run.json")["results"]
    assert results["foreign"] == {} and results["absent"] == {"thyroid nodule": {"a": 1, "cine": 3, "deep er/b (1)": 1}}
    assert "withheld" not in results
    assert "thyroid nodule looks absent: 5 pictures, a, cine, deep er/b (1)" in caplog.text


def test_scores_of_a_call_from_python(doubtful: Predictor, images: Path) -> None:
    atrium, nodule = doubtful(images / "a.png", TASKS)
    assert atrium.scores and nodule.scores and nodule.mask.any()
    assert not atrium.scores.absent and nodule.scores.absent and not nodule.scores.foreign


def test_strict_withholds_masks_and_says_so(
    doubtful: Predictor, images: Path, tmp_path: Path, check_run_json: Check
) -> None:
    out = tmp_path / "out"
    for skipped in (0, 3):  # a second run says the same
        found = predict_paths(doubtful, [images], out, TASKS, measurements=True, formats="png,nifti", strict=True)
        assert (found.skipped, found.refused, found.code) == (skipped, 0, EXIT_PARTIAL)
        names = ["a", "deep er/b (1)", *FRAMES]
        assert {name for name in content(out) if name.endswith(".png")} == {f"{name}_left_atrium.png" for name in names}
        record = check_run_json(out / "run.json")
        assert record["status"] == "partial" and record["results"]["withheld"] == ["a", "cine", "deep er/b (1)"]
        messages = [finding["message"] for finding in record["findings"]]
        assert messages[1] == "thyroid nodule looks absent in 3 of 3 frames; these masks are not written (--strict)"
        assert [row["area"] == "" for row in rows(out / "measurements.csv")] == [False, True] * 5


def test_strict_refuses_a_file_without_any_mask(images: Path, tmp_path: Path, check_run_json: Check) -> None:
    out = tmp_path / "out"
    found = predict_paths(with_scores(foreign=True), [images], out, TASKS, overlay=True, strict=True)
    assert (found.done, found.refused, found.code) == (0, 3, EXIT_BAD_INPUT) and content(out) == {}
    messages = {finding["message"] for finding in check_run_json(out / "run.json")["findings"]}
    expected = "is of no kind that the network was trained on{}; no mask is written (--strict)"
    assert messages == {expected.format(""), expected.format(" in 3 of 3 frames")}


def test_strict_needs_scores_and_a_folder_of_its_own(
    predictor: Predictor, doubtful: Predictor, images: Path, tmp_path: Path
) -> None:
    with pytest.raises(ProPLError, match=r"strict: these weights come without scores \(known\.safetensors\)"):
        predict_paths(predictor, [images], tmp_path / "out", "LA", strict=True)
    predict_paths(doubtful, [images / "a.png"], tmp_path / "out", "LA")
    with pytest.raises(ProPLError, match="holds results of other settings: strict None there, True now"):
        predict_paths(doubtful, [images / "a.png"], tmp_path / "out", "LA", strict=True)


def test_results_from_before_there_were_scores_are_completed(
    predictor: Predictor, doubtful: Predictor, images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    predict_paths(predictor, [images / "a.png"], out, "LA", measurements=True)
    found = predict_paths(doubtful, [images / "a.png"], out, "LA", measurements=True)
    assert (found.done, found.skipped) == (1, 0) and rows(out / "measurements.csv")[0]["presence"] != ""


def test_lines_name_the_first_few() -> None:
    doubts: dict[str, Any] = {f"p{number}": {"foreign": [1, 2]} for number in range(NAMED + 2)}
    doubts["q"] = {"absent": {"fetal head": [1]}}
    found = summary(doubts)
    assert json.loads(json.dumps(found)) == found
    said = lines(found)
    assert (
        said[0].endswith("10 pictures, p0, p1, p2 and 2 more") and said[1] == "fetal head looks absent: 1 pictures, q"
    )
    assert lines(summary({})) == []


def test_neither_batch_nor_decoding_changes_the_features(doubtful: Predictor) -> None:
    prepared = [doubtful.prepare(Picture(speckle(20, 30, seed))) for seed in range(3)]
    together, alone = doubtful.pooled(prepared), doubtful.pooled(prepared[2:])
    assert together.shape == (3, len(doubtful.known.centre)) if doubtful.known else False
    assert np.allclose(together[2], alone[0], atol=1e-5)
    assert np.allclose(doubtful.answer(prepared, ["left atrium"])[1], together, atol=1e-5)
