"""`python -m benchmarks.pack`: a smaller copy with the same cases, groups, splits, labelled pictures and pixel sizes."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.pack import RECORD, pack, unpack
from propl_monai.data.datalist import Datalist
from propl_monai.data.splits import labelled_images
from propl_monai.datasets.sources.folder import read_folder
from propl_monai.datasets.verification.verify import verify
from propl_monai.errors import ProPLError
from propl_monai.images import read_image, read_mask, to_grey


@pytest.fixture(scope="module")
def packed(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The phantoms at half their size, in an archive, unpacked."""
    folder = tmp_path_factory.mktemp("packed")
    archive = folder / "small.tar.xz"
    pack(phantoms, archive, size=32, kind="webp", quality=90)
    assert sorted(path.name for path in folder.iterdir()) == ["small.tar.xz"]
    return unpack(archive, folder / "data")


def test_the_copy_is_verified_and_has_the_same_cases(phantoms: Path, packed: Path) -> None:
    original, inside, plain = read_folder(phantoms), Datalist.read(packed / "datalist.json"), read_folder(packed)
    for copy in (inside, plain):
        for key in ("case_id", "task", "source", "group", "split"):
            assert [getattr(case, key) for case in copy.cases] == [getattr(case, key) for case in original.cases]
        assert verify(copy, processes=1).errors == ()
    assert labelled_images(inside.cases, "1/4") == labelled_images(original.cases, "1/4")


def test_pixels_are_half_as_many_and_twice_as_large(phantoms: Path, packed: Path) -> None:
    original, copy, plain = read_folder(phantoms), Datalist.read(packed / "datalist.json"), read_folder(packed)
    for one, two, three in zip(original.cases, copy.cases, plain.cases, strict=True):
        assert one.pixel_spacing_mm and two.pixel_spacing_mm and three.pixel_spacing_mm
        assert two.pixel_spacing_mm == pytest.approx([2 * length for length in one.pixel_spacing_mm])
        assert three.pixel_spacing_mm == pytest.approx(two.pixel_spacing_mm, rel=1e-4)
    large, small = (read_image(home.root / home.cases[0].image).pixels for home in (original, copy))
    small = to_grey(small)  # WebP has no grey pictures
    assert large.shape == (64, 64) and small.shape == (32, 32)
    halved = large.reshape(32, 2, 32, 2).mean((1, 3))
    assert np.abs(small - halved).mean() < 12  # of 255, on speckle
    large, small = (read_mask(home.root / str(home.cases[0].mask)) for home in (original, copy))
    assert small.mean() == pytest.approx(large.mean(), abs=0.02)


def test_a_picture_that_tasks_share_is_stored_once(packed: Path) -> None:
    hearts = [next((packed / code / "PHANTOM" / "images").iterdir()) for code in ("LA", "LV", "MD")]
    assert len({path.stat().st_ino for path in hearts}) == 1


def make(root: Path, shape: tuple[int, ...], group: str = "p, 1") -> None:
    """One case whose mask is a single pixel."""
    for kind in ("images", "masks"):
        (root / "TN" / "S" / kind).mkdir(parents=True)
    pixels = np.arange(int(np.prod(shape)), dtype=np.uint32).reshape(shape)
    Image.fromarray((pixels * 7 % 251).astype(np.uint8)).save(root / "TN/S/images/a b.png")
    mask = np.zeros(shape[:2], np.uint8)
    mask[10, 20] = 255
    Image.fromarray(mask).save(root / "TN/S/masks/a b.png")
    (root / "TN/S/manifest.csv").write_text(f'name;group;pixel_size_mm\na b;"{group}";0.2\n')


def test_colour_odd_sides_and_a_target_of_one_pixel(tmp_path: Path) -> None:
    make(tmp_path / "data", (101, 67, 3))
    found = pack(tmp_path / "data", tmp_path / "copy", size=40, kind="jpeg")
    (case,) = Datalist.read(tmp_path / "copy" / "datalist.json").cases
    assert (
        (case.group, case.case_id)
        == ("p, 1", "TN/S/a b")
        == (read_folder(tmp_path / "copy").cases[0].group, "TN/S/a b")
    )
    assert read_image(tmp_path / "copy" / case.image).pixels.shape == (40, 27)
    assert case.pixel_spacing_mm == pytest.approx((0.2 * 101 / 40, 0.2 * 67 / 27))
    assert read_mask(tmp_path / "copy" / str(case.mask)).any()
    assert found.cases == found.pictures == 1 and found.grey_difference > 0 and "jpeg, quality 80" in found.report()


def test_small_pictures_keep_their_pixels(tmp_path: Path) -> None:
    make(tmp_path / "data", (24, 30))
    found = pack(tmp_path / "data", tmp_path / "copy", size=32, kind="png")
    one, two = (read_image(next((tmp_path / home / "TN/S/images").iterdir())).pixels for home in ("data", "copy"))
    assert np.array_equal(one, two) and found.grey_difference == found.mask_difference == 0
    assert pack(tmp_path / "data", tmp_path / "copy", size=32, kind="png") == found  # made here, so made again


def test_what_cannot_be_packed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, copy = tmp_path / "data", tmp_path / "copy"
    make(data, (24, 30))
    for changes, fact in (({"kind": "gif"}, "webp"), ({"size": 8}, "size 8"), ({"quality": 0}, "quality 0")):
        with pytest.raises(ProPLError, match=fact):
            pack(data, copy, **changes)  # type: ignore[arg-type]
    with pytest.raises(ProPLError, match="lie in one another"):
        pack(data, data / "small")
    copy.mkdir()
    (copy / "letter.txt").write_text("keep me")
    with pytest.raises(ProPLError, match="not made by this package"):
        pack(data, copy)
    assert (copy / "letter.txt").read_text() == "keep me"
    shutil.copy(data / "TN/S/images/a b.png", data / "TN/S/masks/a b.png")
    Image.new("1", (5, 5)).save(data / "TN/S/masks/a b.png")
    with pytest.raises(ProPLError, match="propl verify"):
        pack(data, tmp_path / "other")
    assert not (tmp_path / "other").exists()
    (tmp_path / "x.tar.xz").write_bytes(os.urandom(40))
    with pytest.raises(ProPLError, match="cannot be unpacked"):
        unpack(tmp_path / "x.tar.xz", tmp_path / "unpacked")
    assert not (tmp_path / "unpacked").exists()


def test_without_hard_links_a_shared_picture_is_copied(
    phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no hard links here")

    monkeypatch.setattr(os, "link", refuse)
    pack(phantoms, tmp_path / "copy", size=32, kind="jpeg", quality=50)
    assert (tmp_path / "copy" / RECORD).is_file()
    assert [case.split for case in read_folder(tmp_path / "copy").cases] == [
        case.split for case in read_folder(phantoms).cases
    ]
