"""The check before training: every faulty file once, all of them in one pass."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from propl_monai.cases import Case
from propl_monai.datalist import Datalist
from propl_monai.errors import ProPLError
from propl_monai.verify import check_files, require_files


def save(path: Path, height: int = 12, width: int = 10) -> None:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(np.zeros((height, width), np.uint8)).save(path)


def make_list(root: Path, count: int) -> Datalist:
    """Pictures and masks on disk; the first picture also under a second task."""
    cases = []
    for index in range(count):
        save(root / "images" / f"{index}.png")
        save(root / "masks" / f"{index}.png")
        sha256 = f"{index:064x}"
        paths = (f"images/{index}.png", f"masks/{index}.png")
        cases.append(Case(f"a/{index}", *paths, "left atrium", "S", f"g{index}", "train", sha256, sha256))
    cases.append(Case("b/0", "images/0.png", None, "myocardium", "S", "g0", "train", "0" * 64))
    return Datalist(root, tuple(cases), "phantoms")


def test_sound_files(tmp_path: Path) -> None:
    made = make_list(tmp_path, 3)
    assert check_files(made) == []
    require_files(made)


def test_every_fault_is_told_once(tmp_path: Path) -> None:
    made = make_list(tmp_path, 5)
    (tmp_path / "images" / "0.png").unlink()  # used by two cases
    (tmp_path / "masks" / "1.png").unlink()
    (tmp_path / "images" / "2.png").write_text("<html>")
    save(tmp_path / "masks" / "3.png", 10, 12)  # transposed
    told = [str(problem) for problem in check_files(made)]
    assert len(told) == 4
    for text, name, fact in zip(
        told,
        ("images/0.png", "masks/1.png", "images/2.png", "masks/3.png"),
        ("does not exist", "does not exist", "is an HTML page", "is 10 x 12 (height x width), its image"),
        strict=True,
    ):
        assert text.startswith(str(tmp_path / name)) and fact in text


def test_summary_shows_five_and_the_number(tmp_path: Path) -> None:
    made = make_list(tmp_path, 8)
    for path in (tmp_path / "masks").iterdir():
        path.unlink()
    with pytest.raises(ProPLError) as caught:
        require_files(made)
    message = str(caught.value)
    assert message.startswith("files of phantoms: 8 problems") and "and 3 more" in message
    assert message.count("does not exist") == 5
