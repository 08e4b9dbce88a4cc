"""Pictures and masks that do not belong together, though each is sound: EXIF turns, inverted masks, unequal masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from propl_monai.data.datalist import Datalist
from propl_monai.datasets.prepare import prepare
from propl_monai.datasets.sources.folder import read_folder
from propl_monai.datasets.verification.verify import verify
from propl_monai.errors import ProPLError
from propl_monai.images import read_image, read_mask, turn

ORIENTATION = 0x0112


def scene(seed: int, height: int = 60, width: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """A picture with a bright spot off its middle, and the mask of the spot."""
    rows, columns = np.mgrid[:height, :width]
    mask = (rows - 18) ** 2 + (columns - 26) ** 2 < 64
    noise = np.random.default_rng(seed).integers(0, 60, (height, width))
    return np.where(mask, 220, noise).astype(np.uint8), mask


def add(root: Path, name: str, pixels: np.ndarray, mask: np.ndarray, orientation: int = 1, task: str = "BC") -> None:
    folder = root / task / "MINE"
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    suffix, options = (".jpg", {"quality": 98, "exif": exif}) if orientation != 1 else (".png", {})
    Image.fromarray(pixels).save(folder / "images" / f"{name}{suffix}", **options)
    Image.fromarray(mask).save(folder / "masks" / f"{name}.png")


def found(root: Path) -> dict[str, list[str]]:
    codes: dict[str, list[str]] = {}
    for finding in verify(read_folder(root), processes=1).findings:
        codes.setdefault(finding.code, []).append(Path(finding.where).stem)
    return codes


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turn_is_what_pillow_does(tmp_path: Path, orientation: int) -> None:
    pixels, mask = scene(1)
    add(tmp_path, "a", pixels, mask, orientation)
    (path,) = (tmp_path / "BC" / "MINE" / "images").iterdir()
    picture = read_image(path)
    assert picture.orientation == orientation
    np.testing.assert_array_equal(turn(mask, orientation), picture.pixels > 140)


def test_every_picture_that_exif_turns_is_named_and_one_option_says_how_masks_were_drawn(tmp_path: Path) -> None:
    root, stored = tmp_path / "data", {}
    for number, orientation in enumerate((1, 3, 6, 8, 2)):
        pixels, mask = scene(number, *((60, 40) if number < 3 else (50, 50)))
        add(root, f"p{number}", pixels, mask, orientation)
        stored[f"p{number}"] = turn(mask, orientation)
    codes = found(root)
    assert codes["W-TURNED"] == ["p1", "p2", "p3", "p4"] and codes["E-SIZE"] == ["p2"]
    text = verify(read_folder(root), processes=1).to_text()
    assert "W-TURNED  4  a picture that its EXIF orientation turns" in text and "transpose it" not in text
    assert "as the image does before its EXIF orientation is applied" in text and "--option masks=stored" in text

    made = prepare("folder", root, tmp_path / "out" / "list.json", {"masks": "stored"})
    assert not made.refused and len(made.datalist.cases) == 5
    for case in Datalist.read(tmp_path / "out" / "list.json").cases:
        image, mask = (tmp_path / "out" / str(path) for path in (case.image, case.mask))
        np.testing.assert_array_equal(read_mask(mask), stored[image.stem])
        np.testing.assert_array_equal(read_image(image).pixels > 140, read_mask(mask))
    assert not [each for each in verify(made.datalist, processes=1).findings if each.code in ("W-TURNED", "E-SIZE")]


def test_masks_as_stored_keep_groups_tasks_and_spacing(tmp_path: Path) -> None:
    root = tmp_path / "data"
    for task in ("LA", "LV"):
        pixels, mask = scene(1)
        add(root, "shared", pixels, mask, 6, task)
        add(root, "own", *scene(2 if task == "LA" else 3), task=task)
        (root / task / "MINE" / "manifest.csv").write_text("name,group,pixel_size_mm\nshared,p1,0.5\nown,p2,\n")
    made = prepare("folder", root, tmp_path / "out" / "list.json", {"masks": "stored"})
    rows = {(case.case_id, case.group, case.pixel_spacing_mm) for case in made.datalist.cases}
    assert rows == {
        ("LA/MINE/shared", "p1", (0.5, 0.5)),
        ("LV/MINE/shared", "p1", (0.5, 0.5)),
        ("LA/MINE/own", "p2", None),
        ("LV/MINE/LV_own", "p2", None),
    }
    again = prepare("folder", root, tmp_path / "out" / "list.json", {"masks": "stored"})
    assert again.datalist.sha256 == made.datalist.sha256
    with pytest.raises(ProPLError, match="option masks: unknown value 'turned'"):
        prepare("folder", root, tmp_path / "b.json", {"masks": "turned"})


def test_inverted_masks_are_found(tmp_path: Path) -> None:
    for number, (name, invert) in enumerate((("good", False), ("inverted", True))):
        pixels, mask = scene(number)
        add(tmp_path, name, pixels, mask != invert)
    large = np.zeros((60, 40), bool)
    large[2:-2, 2:-2] = True  # covers most, but touches no border
    add(tmp_path, "large", scene(3)[0], large)
    disc = np.hypot(*np.mgrid[-29.5:30, -19.5:20]) < 30
    add(tmp_path, "large inverted", scene(4)[0], ~disc)  # covers less than half, and all corners
    assert 0 < (~disc).mean() < 0.5
    assert found(tmp_path) == {"W-INVERTED": ["inverted", "large inverted"]}


def test_equal_pictures_with_unequal_masks_are_named(tmp_path: Path) -> None:
    pixels, mask = scene(1)
    add(tmp_path, "a", pixels, mask)
    add(tmp_path, "b", pixels, np.roll(mask, 3, axis=0))
    add(tmp_path, "c", pixels, mask)
    (tmp_path / "BC" / "MINE" / "manifest.csv").write_text("name,group\na,p1\nb,p1\nc,p1\n")
    assert found(tmp_path) == {"W-MASKS": ["b"]}
    (finding,) = verify(read_folder(tmp_path), processes=1).findings
    assert "differs from BC/MINE/masks/a.png, but BC/MINE/images/b.png shows the same pixels" in finding.fact


def test_one_picture_under_two_tasks_may_have_two_masks(tmp_path: Path) -> None:
    pixels, mask = scene(1)
    add(tmp_path, "a", pixels, mask, task="LA")
    add(tmp_path, "a", pixels, np.roll(mask, 3, axis=0), task="LV")
    assert found(tmp_path) == {}
