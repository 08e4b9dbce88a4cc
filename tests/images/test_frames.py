"""Frames of a cine as PNG, and how far a long verb is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from propl_monai.cli.progress import progress
from propl_monai.errors import ProPLError
from propl_monai.images import Cine, read_frames, read_image
from propl_monai.images import frames as module
from propl_monai.images.frames import write_frames


@pytest.fixture
def cine(tmp_path: Path) -> Path:
    """A TIFF of five pages, page i filled with 10 · i."""
    pages = [Image.fromarray(np.full((20, 30), 10 * number, np.uint8)) for number in range(1, 6)]
    pages[0].save(tmp_path / "cine.tif", save_all=True, append_images=pages[1:])
    return tmp_path / "cine.tif"


def test_every_second_frame_keeps_its_number(cine: Path, tmp_path: Path, check_run_json: Callable) -> None:
    seen: list[tuple[int, int]] = []
    written = write_frames(cine, tmp_path / "out", 2, lambda done, total: seen.append((done, total)))
    assert [path.name for path in written] == ["frame_0001.png", "frame_0003.png", "frame_0005.png"]
    assert [int(read_image(path).pixels[0, 0]) for path in written] == [10, 30, 50]
    assert seen == [(number, 5) for number in range(1, 6)]
    record = check_run_json(tmp_path / "out" / "run.json")
    assert record["verb"] == "frames" and record["results"]["frames"] == 5


def test_nothing_is_overwritten(cine: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a.txt").write_text("mine")
    with pytest.raises(ProPLError, match="is not an empty folder"):
        write_frames(cine, tmp_path / "full")
    with pytest.raises(ProPLError, match="every: 0 is below 1"):
        write_frames(cine, tmp_path / "new", 0)
    with pytest.raises(ProPLError, match="does not exist"):
        write_frames(tmp_path / "none.tif", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_cine_that_is_damaged_in_the_middle_leaves_no_frame(
    cine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stops_at_three(path: Path) -> Cine:
        whole = read_frames(path)

        def frames() -> Iterator[np.ndarray]:
            for number, pixels in enumerate(whole, start=1):
                if number == 3:
                    raise ProPLError(path, "is damaged", "copy it again")
                yield pixels

        return replace(whole, _decode=frames)

    monkeypatch.setattr(module, "read_frames", stops_at_three)
    with pytest.raises(ProPLError, match="is damaged"):
        write_frames(cine, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []
    monkeypatch.undo()
    assert len(write_frames(cine, tmp_path / "out")) == 5


def test_piped_progress_is_a_few_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("reading") as shown:
        for done in range(1, 251):
            shown(done, 250)
    out, err = capsys.readouterr()
    assert out == "" and "\r" not in err
    assert err.splitlines()[-1] == "reading 250/250" and len(err.splitlines()) == 10
