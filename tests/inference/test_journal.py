"""A second run: what is skipped, completed, added or refused."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from factories import small_predictor, speckle
from output_tools import content, pixels, same_results
from PIL import Image

from propl_monai.common.files import TEMPORARY_PREFIX
from propl_monai.errors import ProPLError
from propl_monai.inference import output_folder
from propl_monai.inference.journal import Journal
from propl_monai.inference.predict_folder import predict_paths
from propl_monai.inference.predictor import Predictor


def test_a_second_run_skips_what_is_done(predictor: Predictor, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    predict_paths(predictor, [images], out, "LA")
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*.png")}
    assert predict_paths(predictor, [images], out, ["left_atrium", "LA"]).skipped == 3
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.png")} == times


def test_only_what_changed_is_done_again(predictor: Predictor, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    predict_paths(predictor, [images], out, "LA")
    Image.fromarray(speckle(21, 30, 9)).save(images / "a.png")
    (out / "cine_frame_0002_left_atrium.png").unlink()
    found = predict_paths(predictor, [images], out, "LA")
    assert (found.done, found.skipped, found.pictures) == (2, 1, 4)
    assert pixels(out / "a_left_atrium.png").shape == (21, 30)


def test_other_outputs_are_added(predictor: Predictor, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    predict_paths(predictor, [images / "a.png"], out, "LA")
    assert predict_paths(predictor, [images / "a.png"], out, "LA", overlay=True).done == 1
    assert predict_paths(predictor, [images / "a.png"], out, "TN", overlay=True).done == 1
    assert set(content(out)) == {"a_left_atrium.png", "a_overlay.png", "a_thyroid_nodule.png"}


def test_results_of_other_settings_are_not_mixed(predictor: Predictor, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    predict_paths(predictor, [images], out, "LA")
    before = content(out)
    other = small_predictor(threshold=0.6, tta=True)
    with pytest.raises(ProPLError) as caught:
        predict_paths(other, [images], out, "LA")
    assert "holds results of other settings: tta False there, True now; threshold 0.5 there, 0.6 now" in str(
        caught.value
    )
    with pytest.raises(ProPLError, match=r"spacing_mm None there, \[1.0, 1.0\] now"):
        predict_paths(predictor, [images], out, "LA", spacing_mm=(1, 1))
    assert content(out) == before
    assert predict_paths(other, [images], out, "LA", overwrite=True).done == 3
    assert content(out) != before and content(out).keys() == before.keys()
    assert predict_paths(other, [images], out, "LA").skipped == 3


class Killed(BaseException):
    """Ends a run as a signal would, at a moment of our choice."""


@pytest.mark.parametrize("moment", [1, 3, 5])
def test_a_killed_run_leaves_whole_masks_and_is_completed_to_the_same_results(
    predictor: Predictor, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    options: dict[str, Any] = {"uncertainty": True, "measurements": True}
    predict_paths(predictor, [images], tmp_path / "whole", ["LA", "TN"], **options)
    out, write, calls = tmp_path / "out", output_folder.write_predictions, []

    def stop(*given: Any) -> list[Path]:
        calls.append(1)
        if len(calls) == moment:
            raise Killed
        return write(*given)

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(output_folder, "write_predictions", stop)
        predict_paths(predictor, [images], out, ["LA", "TN"], **options)
    whole = content(tmp_path / "whole")
    assert content(out).keys() < whole.keys()
    assert same_results(out, tmp_path / "whole")
    # What only a process that is gone can leave: half a file, half a line.
    (out / f"{TEMPORARY_PREFIX}123-a_left_atrium.png").write_bytes(b"half")
    with (out / "predictions.jsonl").open("a") as stream:
        stream.write('{"name": "a", "sha2')
    found = predict_paths(predictor, [images], out, ["LA", "TN"], **options)
    assert found.done + found.skipped == 3
    assert content(out).keys() == whole.keys() and same_results(out, tmp_path / "whole")
    assert all(json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines())


def test_a_journal_that_is_none(predictor: Predictor, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for text in ("", "[]\n", '{"format": "other"}\n', "scribble"):
        (out / "predictions.jsonl").write_text(text)
        with pytest.raises(ProPLError, match="is no journal of predictions"):
            predict_paths(predictor, [images], out, "LA")


def test_entries_stay_on_the_disk(tmp_path: Path) -> None:
    """The journals of two parts become one: the later wins; a line that was cut short is left out."""
    entries = [
        {"name": f"é{number}", "sha256": str(number), "options": {}, "files": [], "rows": []} for number in range(4)
    ]
    for part, some in (("a", entries[:2]), ("b", [{**entries[1], "sha256": "new"}, entries[2]])):
        journal = Journal(tmp_path / part, {"threshold": 0.5})
        for entry in some:
            journal.add(entry)
    with (tmp_path / "a").open("r+b") as stream:
        stream.truncate((tmp_path / "a").stat().st_size - 1)
    with (tmp_path / "b").open("ab") as stream:
        stream.write(b'{"name": "cut sh')
    os.utime(tmp_path / "b", (time.time() + 10,) * 2)
    whole = Journal(tmp_path / "whole", {"threshold": 0.5}, others=[tmp_path / "b", tmp_path / "a"])
    whole.add(entries[3])
    wanted = [entries[3], entries[0], {**entries[1], "sha256": "new"}, entries[2]]
    assert list(whole.read(["é3", "é0", "é1", "é2"])) == wanted
    assert whole.done("é1", "new", {}) == wanted[2] and whole.done("é1", "1", {}) is whole.done("é4", "4", {}) is None
    again = Journal(tmp_path / "whole", {"threshold": 0.5}, holds="é3".__eq__)
    assert list(again.read(["é3"])) == [entries[3]] and again.done("é0", "0", {}) is None
