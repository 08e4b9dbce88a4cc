"""Every source, from its original layout to a datalist whose files are as it says; originals untouched; reruns safe."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from factories import ROOT
from originals import busi, camus, hc18, tn3k, udiat, unlabelled
from PIL import Image

from propl_monai.common.files import lock_folder
from propl_monai.data.datalist import Datalist
from propl_monai.data.splits import assign_splits
from propl_monai.datasets import prepare as module
from propl_monai.datasets.prepare import find_source, prepare
from propl_monai.datasets.sources.registry import SOURCES, facts
from propl_monai.errors import ProPLError
from propl_monai.images import read_image, read_mask

OPTIONS = {"unlabelled": {"task": "LV"}}


def made(name: str, folder: Path) -> Path:
    maker = import_module(f"originals.{SOURCES[name].read.__module__.rpartition('.')[2]}")
    folder.mkdir(parents=True, exist_ok=True)
    maker.make(folder)
    return folder


def fingerprint(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_becomes_a_datalist_that_is_true(name: str, tmp_path: Path, check_run_json: Callable) -> None:
    originals = made(name, tmp_path / "originals")
    before = fingerprint(originals)
    output = tmp_path / "out" / "datalist.json"
    prepared = prepare(name, originals, output, OPTIONS.get(name))
    assert fingerprint(originals) == before
    read = Datalist.read(output, output.parent)
    assert set(read.cases) == set(prepared.datalist.cases) and read.cases
    for case in read.cases:
        picture = read_image(output.parent / case.image)
        assert case.source == name and case.labelled_place is not None
        if case.mask:
            assert read_mask(output.parent / case.mask).shape == picture.pixels.shape[:2]
    record = check_run_json(output.parent / name / "run.json")
    assert record["status"] == ("partial" if prepared.refused else "finished")
    assert record["results"]["datalist_sha256"] == read.sha256
    assert str(prepared.found) and "Train with dataset_dir" in prepared.report()
    assert re.search(r"^group .*: \d+ of \d+ cases.* Pixel spacing: \d+ of \d+ cases$", prepared.report(), re.MULTILINE)


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_states_its_facts(name: str) -> None:
    source = SOURCES[name]
    stated = next(each for each in facts() if each["name"] == name)
    assert all(stated[key] for key in ("title", "group", "licence", "citation") if name != "unlabelled")
    assert all(isinstance(default, str) for default in source.options.values())
    assert find_source(name.lower()) is source


def test_the_report_of_a_plain_folder_says_what_was_noticed(tmp_path: Path) -> None:
    (tmp_path / "BC" / "A" / "images").mkdir(parents=True)
    Image.new("L", (40, 40)).save(tmp_path / "BC" / "A" / "images" / "1.png")
    lines = prepare("folder", tmp_path, tmp_path / "list.json").report().splitlines()
    assert (
        "group (patient, examination or video): 0 of 1 cases; any other picture counts as its own patient" in lines[1]
    )
    assert "1 cases. 1 without a mask. 1 in no row of a manifest.csv, each a group of its own." in lines


def test_sources_add_up_in_one_datalist_and_a_rerun_replaces_its_own(tmp_path: Path) -> None:
    output = tmp_path / "out" / "all.json"
    breast = busi.make(tmp_path / "busi")
    first = prepare("BUSI", breast, output)
    both = prepare("hc18", hc18.make(tmp_path / "hc18"), output)
    assert {case.source for case in both.datalist.cases} == {"BUSI", "HC18"}
    assert [case for case in both.datalist.cases if case.source == "BUSI"] == list(first.datalist.cases)
    again = prepare("BUSI", breast, output)
    assert sorted(again.datalist.cases, key=lambda case: case.case_id) == sorted(
        both.datalist.cases, key=lambda case: case.case_id
    )


def test_official_splits_where_there_are_any(tmp_path: Path) -> None:
    originals = camus.make(tmp_path / "camus")
    prepared = prepare("CAMUS", originals, tmp_path / "out" / "d.json", splits="official")
    official = {record.name: record.split for record in SOURCES["CAMUS"].open(originals).records}
    assert set(official.values()) > {None} or None not in official.values()
    for case in prepared.datalist.cases:
        assert case.split == official[case.case_id.split("/", 2)[2]]


def test_a_damaged_picture_is_refused_and_the_rest_is_done(tmp_path: Path) -> None:
    home = busi.make(tmp_path / "busi")
    victim = next(path for path in sorted(home.rglob("*.png")) if "mask" not in path.name and "normal" not in path.name)
    victim.write_bytes(victim.read_bytes()[:60])
    prepared = prepare("BUSI", home, tmp_path / "out" / "d.json")
    assert [Path(problem.where) for problem in prepared.refused] == [victim]
    assert victim.stem not in {case.case_id.rsplit("/", 1)[1] for case in prepared.datalist.cases}
    assert f"refused: {victim}" in prepared.report()


def test_a_file_that_cannot_be_listed_is_refused_and_not_left_out(tmp_path: Path) -> None:
    folder = unlabelled.make(tmp_path / "pictures")
    (folder / "cut.nii").write_bytes(b"<html>not found</html>")
    prepared = prepare("unlabelled", folder, tmp_path / "out" / "d.json", {"task": "LV"})
    assert [str(problem) for problem in prepared.refused] == ["cut.nii: is an HTML page; repair it, or take it away"]
    assert "cut.nii" not in {each.name for each in prepared.excluded} and len(prepared.datalist.cases) == 9


def test_a_run_that_fails_leaves_the_earlier_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, output = busi.make(tmp_path / "busi"), tmp_path / "out" / "d.json"
    prepare("BUSI", home, output)
    before = fingerprint(output.parent)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write_picture", full)
    with pytest.raises(OSError, match="No space"):
        prepare("BUSI", home, output)
    assert {name: sha for name, sha in fingerprint(output.parent).items() if not name.startswith(".tmp-")} == before


def test_a_full_disk_is_no_fault_of_the_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, output = busi.make(tmp_path / "busi"), tmp_path / "out" / "d.json"
    prepare("BUSI", home, output)
    before, write = fingerprint(output.parent), module.write_picture
    written: list[Path] = []

    def full(path: Path, pixels: np.ndarray) -> None:
        written.append(path)
        if len(written) > 1:  # the first one still finds room
            raise ProPLError(path, "cannot be written (No space left on device)", "make room")
        write(path, pixels)

    monkeypatch.setattr(module, "write_picture", full)
    with pytest.raises(ProPLError, match="No space left"):
        prepare("BUSI", home, output)
    assert fingerprint(output.parent) == before and len(written) > 1


def test_names_that_clash_leave_the_earlier_pictures(tmp_path: Path) -> None:
    home, output = udiat.make(tmp_path / "udiat"), tmp_path / "out" / "d.json"
    prepare("UDIAT", home, output)
    before = fingerprint(output.parent)
    for part in ("original", "GT"):
        for name, first in (("x", "000001"), ("X", "000002")):
            shutil.copy(home / part / f"{first}.png", home / part / f"{name}.png")
    if len(list((home / "GT").iterdir())) < 5:
        pytest.skip("this disk does not tell upper and lower case apart")
    with pytest.raises(ProPLError, match="only in upper and lower case"):
        prepare("UDIAT", home, output)
    assert fingerprint(output.parent) == before


def a_folder(place: Path) -> None:
    place.mkdir()
    (place / "thesis.txt").write_text("the only copy")


def a_link(place: Path) -> None:
    a_folder(place.with_name("elsewhere"))
    place.symlink_to("elsewhere", target_is_directory=True)


@pytest.mark.parametrize("plant", [a_folder, a_link, lambda place: place.write_text("a file")])
def test_what_is_not_ours_is_never_replaced(plant: Callable[[Path], object], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    plant(tmp_path / "out" / "BUSI")
    before = fingerprint(tmp_path / "out")
    with pytest.raises(ProPLError, match="was not made by this package"):
        prepare("BUSI", busi.make(tmp_path / "busi"), tmp_path / "out" / "d.json")
    assert fingerprint(tmp_path / "out") == before


def test_two_at_a_time_do_not_lose_each_others_cases(tmp_path: Path) -> None:
    output = tmp_path / "out" / "d.json"
    home = busi.make(tmp_path / "busi")
    with lock_folder(output.parent), pytest.raises(ProPLError, match="is being written to by another process"):
        prepare("BUSI", home, output)
    assert list(output.parent.iterdir()) == []
    assert prepare("BUSI", home, output).datalist.cases


def test_official_splits_stay_when_another_source_is_added(tmp_path: Path) -> None:
    output = tmp_path / "out" / "d.json"
    first = prepare("CAMUS", camus.make(tmp_path / "camus"), output, splits="official")
    assert first.datalist.cases != assign_splits(first.datalist.cases)
    both = prepare("BUSI", busi.make(tmp_path / "busi"), output)
    assert {case for case in both.datalist.cases if case.source == "CAMUS"} == set(first.datalist.cases)


def test_a_picture_that_the_publishers_have_in_two_splits_is_held_out(tmp_path: Path, check_run_json: Callable) -> None:
    home = tn3k.make(tmp_path, trainval=10, test=1)  # picture 0 of either part shows the same
    prepared = prepare("TN3K", home, tmp_path / "out" / "d.json", splits="official")
    splits = {case.case_id.rsplit("/", 1)[1]: case.split for case in prepared.datalist.cases}
    assert splits.pop("test_0000") == splits.pop("trainval_0000") == "test"
    official = {record.name: record.split for record in SOURCES["TN3K"].open(home).records}
    assert splits == {name: official[name] for name in splits} and len(splits) == 9
    assert prepared.moved == 1 and "moved: 1 out of their official split" in prepared.report()
    assert check_run_json(tmp_path / "out" / "TN3K" / "run.json")["results"]["moved"] == 1


@pytest.mark.parametrize(("name", "fact"), [(b"caf\xe9.png", "UTF-8"), (b"x" * 220 + b".png", "more than 200 bytes")])
def test_a_name_that_no_file_can_have_is_refused(name: bytes, fact: str, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    unlabelled.write_picture(folder / "sound.png", 3)
    try:
        shutil.copy(folder / "sound.png", os.path.join(os.fsencode(folder), name))
    except OSError:
        pytest.skip("this disk takes no such name")
    prepared = prepare("unlabelled", folder, tmp_path / "out" / "d.json", {"task": "LV"})
    assert [case.case_id for case in prepared.datalist.cases] == ["LV/unlabelled/sound"]
    (problem,) = prepared.refused
    assert fact in problem.fact and str(problem).encode()


def test_a_folder_read_in_place_replaces_no_prepared_cases(phantoms: Path, tmp_path: Path) -> None:
    output = tmp_path / "out" / "d.json"
    prepare("BUSI", busi.make(tmp_path / "busi"), output)
    before = fingerprint(output.parent)
    with pytest.raises(ProPLError, match="cannot join them"):
        prepare("folder", phantoms, output)
    assert fingerprint(output.parent) == before
    prepare("folder", phantoms, tmp_path / "plain" / "d.json")
    prepare("folder", phantoms, tmp_path / "plain" / "d.json")  # of its own kind it may
    with pytest.raises(ProPLError, match="pictures are not beside it"):
        prepare("BUSI", tmp_path / "busi", tmp_path / "plain" / "d.json")


def test_what_is_missing_of_the_published_set_is_told(tmp_path: Path) -> None:
    prepared = prepare("BUSI", busi.make(tmp_path / "busi"), tmp_path / "out" / "d.json")
    held = SOURCES["BUSI"].holds
    assert any(f"{held['benign images']} in the published set" in line for line in prepared.missing)


def test_the_plain_folder_is_read_in_place(phantoms: Path, tmp_path: Path) -> None:
    prepared = prepare("folder", phantoms, tmp_path / "list.json")
    assert prepared.datalist.root == phantoms
    assert Datalist.read(tmp_path / "list.json", phantoms).sha256 == prepared.datalist.sha256
    assert {path.name for path in tmp_path.iterdir()} == {"list.json"}


@pytest.mark.parametrize(
    ("arguments", "fact"),
    [
        ({"name": "BUSY"}, "did you mean 'BUSI'"),
        ({"options": {"normals": "keep"}}, "did you mean 'normal'"),
        ({"options": {"normal": "maybe"}}, "unknown value 'maybe'"),
        ({"splits": "random"}, "unknown splits 'random'"),
        ({"folder": "nowhere"}, "is not a folder"),
        ({"output": "out/list.csv"}, "is not the name of a .json file"),
        ({"name": "folder", "output": "busi/1.png"}, "is not the name of a .json file"),
        ({"name": "folder", "options": {"normal": "keep"}}, "unknown option 'normal'"),
        ({"name": "folder", "splits": "official"}, "names no official split"),
        ({"output": "busi/list.json"}, "would put pictures into the originals"),
    ],
)
def test_bad_input_is_named(arguments: dict, fact: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    busi.make(tmp_path / "busi")
    given = {"name": "BUSI", "folder": "busi", "output": "out/list.json", **arguments}
    with pytest.raises(ProPLError, match=fact):
        prepare(**given)
    assert not (tmp_path / "out").exists()


def test_the_page_on_data_names_every_source_option_and_code() -> None:
    from propl_monai.datasets.verification.findings import CODES

    page = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    for source in SOURCES.values():
        assert f"| `{source.name}` |" in page
    for code, meaning in CODES.items():
        assert f"| {code} | {meaning} |\n" in page
