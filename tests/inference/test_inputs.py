"""Which files are predicted, and that no two share the name of their results."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from picture_samples import GREY, save_dicom

from propl_monai.common.files import file_sha256
from propl_monai.errors import ProPLError
from propl_monai.images import write_picture
from propl_monai.inference.inputs import find_inputs, refuse_foreign_files


def plant(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


def named(folder: Path, *paths: Path, cines: bool = True) -> dict[str, str]:
    """File below the folder -> name of its results."""
    found = find_inputs(paths or [folder], folder / "results", cines)
    return {file.relative_to(folder).as_posix(): name for file, name in found}


def test_a_folder_in_one_order(tmp_path: Path) -> None:
    plant(tmp_path, "b/2.png", "a.JPG", "b/1.nii.gz", "b/c/x.y.dcm", "clip.avi", "v.MP4")
    assert list(named(tmp_path).items()) == [
        ("a.JPG", "a"),
        ("b/1.nii.gz", "b/1"),
        ("b/2.png", "b/2"),
        ("b/c/x.y.dcm", "b/c/x.y"),
        ("clip.avi", "clip"),
        ("v.MP4", "v"),
    ]
    assert "clip.avi" not in named(tmp_path, cines=False)


def test_what_is_passed_over(tmp_path: Path) -> None:
    plant(
        tmp_path, "a.png", ".hidden.png", ".git/b.png", "notes.txt", "values.raw", "results/a_left_atrium.png", "README"
    )
    assert named(tmp_path) == {"a.png": "a"}


def test_other_files_are_counted_by_suffix(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    plant(tmp_path, "a.png", "b.txt", "c.txt", "d.gif", "deep/e.heic", "README", ".hidden.txt", "v.mhd", "v.raw")
    plant(tmp_path, "results/x.txt")
    assert set(named(tmp_path)) == {"a.png", "v.mhd"}
    assert f"{tmp_path}: files of other types are passed over: 1 .gif, 1 .heic, 2 .txt, 1 without suffix" in caplog.text


def test_other_names_of_the_same_formats(tmp_path: Path) -> None:
    names = ("a.jfif", "b.DICOM", "c.jpe", "d.ima", "e.MOV", "f.m4v", "g.dic")
    plant(tmp_path, *names)
    assert set(named(tmp_path)) == set(names)
    assert set(named(tmp_path, cines=False)) == set(names) - {"e.MOV", "f.m4v"}


def test_dicom_needs_no_suffix(tmp_path: Path) -> None:
    plant(tmp_path, "IM0002", "1.2.3")
    save_dicom(tmp_path / "IM0001", GREY[None])
    save_dicom(tmp_path / "1.2.840.7", GREY[None])
    assert named(tmp_path) == {"1.2.840.7": "1.2.840.7", "IM0001": "IM0001"}


def test_a_file_that_is_named_is_taken_whatever_it_is_called(tmp_path: Path) -> None:
    plant(tmp_path, "scan.xyz", "other.png")
    assert named(tmp_path, tmp_path / "scan.xyz") == {"scan.xyz": "scan.xyz"}


def test_several_inputs_keep_their_place_below_the_folder_of_all(tmp_path: Path) -> None:
    plant(tmp_path, "one/a.png", "two/a.png", "two/deep/b.png", "three/c.png")
    given = (tmp_path / "one" / "a.png", tmp_path / "two", tmp_path / "two" / "a.png")
    assert named(tmp_path, *given) == {"one/a.png": "one/a", "two/a.png": "two/a", "two/deep/b.png": "two/deep/b"}
    assert named(tmp_path, tmp_path / "two") == {"two/a.png": "a", "two/deep/b.png": "deep/b"}


def test_relative_paths_stay_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(tmp_path, "in/a.png")
    monkeypatch.chdir(tmp_path)
    assert find_inputs(["in"], "out") == [(Path("in/a.png"), "a")]
    assert find_inputs(["."], "out") == [(Path("in/a.png"), "in/a")]


@pytest.mark.parametrize(
    "names",
    [
        ("a.png", "a.jpg", "a_png.png"),
        ("a.png", "A.PNG", "a_png.jpg"),
        ("clip.avi", "clip_frame_0001.png"),
        ("v1.0/a.png", "v1.0/a.nii.gz", "v1.0/a_nii_gz.png", "a.png"),
    ],
)
def test_no_two_files_share_a_name(tmp_path: Path, names: tuple[str, ...]) -> None:
    plant(tmp_path, *names)
    found = named(tmp_path)
    assert set(found) == set(names)
    assert len({name.casefold() for name in found.values()}) == len(names)
    assert all(Path(name).parent == Path(file).parent for file, name in found.items())
    if "clip.avi" in names:  # the first frame of the clip is called so
        assert found["clip_frame_0001.png"] != "clip_frame_0001" and found["clip.avi"] == "clip"


def test_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(ProPLError, match="nowhere: does not exist; name an image or a folder"):
        find_inputs([tmp_path / "nowhere"], tmp_path / "out")
    plant(tmp_path, "notes.txt")
    with pytest.raises(ProPLError, match=r"holds no picture; supported: PNG, .*, AVI, MP4"):
        find_inputs([tmp_path], tmp_path / "out", cines=True)
    with pytest.raises(ProPLError, match="the inputs: holds no picture"):
        find_inputs([], tmp_path / "out")


def test_inputs_inside_the_folder_of_the_results(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png", np.zeros((2, 2), np.uint8))
    with pytest.raises(ProPLError, match="holds no picture outside the folder for the results"):
        find_inputs([tmp_path], tmp_path)


def test_a_folder_that_may_not_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is one of the inputs, so that it is refused by name and the rest is done."""
    plant(tmp_path, "a.png", "closed/b.png")
    scan = os.scandir

    def closed(path: str) -> Any:
        if Path(path).name == "closed":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", closed)
    monkeypatch.setattr(os, "access", lambda path, _: Path(path).name != "closed")
    assert named(tmp_path) == {"a.png": "a", "closed": "closed"}
    with pytest.raises(ProPLError, match="closed: is a folder that cannot be listed; check its permissions"):
        file_sha256(tmp_path / "closed")


def test_links_do_not_lead_in_circles(tmp_path: Path) -> None:
    plant(tmp_path, "a.png", "b/c.png")
    (tmp_path / "b" / "up").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "again.png").symlink_to(tmp_path / "a.png")
    assert len(find_inputs([tmp_path], tmp_path / "out")) == 2


def deep_picture(folder: Path) -> None:
    """A picture at a path longer than the system allows; a user makes one by moving a folder."""
    handle = os.open(folder, os.O_RDONLY)
    for _ in range(18):
        os.mkdir("k" * 240, dir_fd=handle)
        inner = os.open("k" * 240, os.O_RDONLY, dir_fd=handle)
        os.close(handle)
        handle = inner
    os.close(os.open("deep.png", os.O_CREAT | os.O_WRONLY, dir_fd=handle))
    os.close(handle)


def test_what_cannot_be_read_does_not_stop_the_rest(tmp_path: Path) -> None:
    for name in ("a.png", "z.png"):
        write_picture(tmp_path / name, GREY)
    (tmp_path / "self.png").symlink_to(tmp_path / "self.png")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    os.mkfifo(tmp_path / "pipe.png")
    deep_picture(tmp_path)
    facts = {}
    for path, _ in find_inputs([tmp_path], tmp_path / "out"):
        try:
            file_sha256(path)
        except ProPLError as error:
            facts[path.name] = error.fact
    assert facts.pop("self.png") == facts.pop("gone.png") == "is a link that leads nowhere"
    assert facts.pop("pipe.png") == "is a device or a pipe, not a file"
    assert list(facts.values()) == ["cannot be read (File name too long)"]


def test_masks_beside_pictures_are_no_inputs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    plant(tmp_path, "FH/MINE/images/a.png", "FH/MINE/masks/a.png", "FH/MINE/masks/LA/b.png", "scans/masks/c.png")
    assert [name for _, name in find_inputs([tmp_path], "out")] == ["FH/MINE/images/a", "scans/masks/c"]
    assert f"{tmp_path / 'FH/MINE/masks'}: passed over, as it holds masks" in caplog.text
    named = find_inputs([tmp_path / "FH/MINE/masks"], "out")
    assert [name for _, name in named] == ["LA/b", "a"]


@pytest.mark.parametrize(
    "name",
    [
        *("a_left_atrium.png", "deep/b_overlay.png", "a_left_atrium_probability.png", "a_left_atrium.nii.gz"),
        *("deep/b_frame_0002_left_atrium.png", "measurements.csv", "deep/b_areas.csv"),
    ],
)
def test_a_file_that_is_no_result_is_not_overwritten(tmp_path: Path, name: str) -> None:
    def refuse() -> None:
        refuse_foreign_files(tmp_path, ["a", "deep/b"], ["left atrium"], ["measurements.csv"])

    plant(tmp_path, "a_left_ventricle.png", "c_left_atrium.png")
    refuse()
    plant(tmp_path, name)
    with pytest.raises(ProPLError, match="is no result of an earlier prediction") as caught:
        refuse()
    assert caught.value.where == str(tmp_path / name)
    (tmp_path / "run.json").write_text('{"verb": "predict"}')
    refuse()
