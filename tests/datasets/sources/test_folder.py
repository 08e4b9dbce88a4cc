"""The plain folder layout: pictures paired by name, groups from the manifest, everything odd named."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from propl_monai.datasets.sources.folder import read_folder
from propl_monai.datasets.sources.registry import IN_PLACE, read_source
from propl_monai.errors import ProPLError


def write(path: Path, content: str | bytes = "") -> Path:
    """A file; the reader hashes bytes and opens no picture, so any bytes do, and the path makes them unique."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) and content else content or str(path).encode())
    return path


def add(root: Path, place: str, *names: str, masks: bool = True) -> Path:
    for name in names:
        write(root / place / "images" / f"{name}.png")
        if masks:
            write(root / place / "masks" / f"{name}.png")
    return root / place


def test_pairs_groups_and_spacing(tmp_path: Path) -> None:
    folder = add(tmp_path, "LA/CAMUS", "p1_a", "p1_b", "p2 (1)")
    write(folder / "images" / "p3.nii.gz")
    write(
        folder / "manifest.csv",
        "width,name,group,pixel_size_mm\n1,p1_a,p1,0.5\n1,p1_b.png,p1,\n1,p2 (1),,0.25\n",
    )
    made = read_folder(tmp_path)
    first, second, third, fourth = made.cases
    assert first.case_id == "LA/CAMUS/p1_a"
    assert (first.image, first.mask) == ("LA/CAMUS/images/p1_a.png", "LA/CAMUS/masks/p1_a.png")
    assert (first.task, first.source, first.group) == ("left atrium", "CAMUS", "p1")
    assert first.image_sha256 == hashlib.sha256((tmp_path / first.image).read_bytes()).hexdigest()
    assert first.mask_sha256 == hashlib.sha256((tmp_path / str(first.mask)).read_bytes()).hexdigest()
    assert (first.pixel_spacing_mm, second.pixel_spacing_mm) == ((0.5, 0.5), None)
    assert (second.group, third.group, fourth.group) == ("p1", "p2 (1)", "p3")
    assert (fourth.case_id, fourth.mask, fourth.mask_sha256) == ("LA/CAMUS/p3", None, None)
    assert made.description == "4 cases. 1 without a mask. 1 in no row of a manifest.csv, each a group of its own."
    assert made.name == tmp_path.name and made.root == tmp_path


def test_tasks_by_code_name_or_slug_and_other_folders_are_left_alone(tmp_path: Path) -> None:
    add(tmp_path, "bc/A", "1")
    add(tmp_path, "fetal head/B", "1")
    add(tmp_path, "thyroid_nodule/C", "1", masks=False)
    add(tmp_path, "original_layouts/D", "1")
    write(tmp_path / "README.md")
    write(tmp_path / "bc" / ".DS_Store")
    write(tmp_path / "bc" / "A" / "images" / "Thumbs.db")
    made = read_folder(tmp_path)
    assert [case.case_id for case in made.cases] == ["BC/A/1", "FH/B/1", "TN/C/1"]


@pytest.mark.parametrize(
    "text",
    [
        "name, group, pixel_size_mm\np1_a, p1, 0.5\np1_b, p1, 0.5\n",
        "\ufeffName;GROUP ;Pixel-Size mm\r\np1_a;p1;0,5\r\n;;\r\np1_b.png;p1;0,5\r\n",
        "name\tgroup\tpixel_size_mm\np1_a\tp1\t0.5\n\np1_b\tp1\t0.5\n \t \t \n",
        'sep=;\n"name";"group";"pixel_size_mm";age\n"p1_a";"p1";0.5;\n"p1_b";"p1";0.5;\n',
    ],
)
def test_a_manifest_may_be_written_in_many_ways(tmp_path: Path, text: str) -> None:
    write(add(tmp_path, "LA/CLINIC", "p1_a", "p1_b") / "manifest.csv", text)
    assert [(case.group, case.pixel_spacing_mm) for case in read_folder(tmp_path).cases] == [("p1", (0.5, 0.5))] * 2


def test_columns_that_are_known_beside_others(tmp_path: Path) -> None:
    text = "name,group,patient,diagnosis,width,visit\na,p1,x,benign,1,2\nb,p2,x,cyst,1,2\n"
    write(add(tmp_path, "BC/A", "a", "b") / "manifest.csv", text)
    assert [case.group for case in read_folder(tmp_path).cases] == ["p1", "p2"]


@pytest.mark.parametrize(
    "header",
    [
        *("patient_id", "PatientID", "subject", "Exam ID", "video", "gruop", "Groups", "study no.", "id", "pt_id"),
        *("StudyInstanceUID", "hospital_number", "Gruppe", "sujet", "paciente"),
    ],
)
def test_a_column_that_may_be_the_group_is_never_ignored(tmp_path: Path, header: str) -> None:
    write(add(tmp_path, "BC/A", "a") / "manifest.csv", f"name,{header}\na,1\n")
    with pytest.raises(ProPLError, match=f"no column 'group', but one named '{header}'; rename it to 'group'"):
        read_folder(tmp_path)


@pytest.mark.parametrize("header", ["spacing", "pixel_spacing", "px_mm", "PixelSize", "mm per pixel", "pixel_size_cm"])
def test_a_column_that_may_be_the_pixel_size_is_never_ignored(tmp_path: Path, header: str) -> None:
    write(add(tmp_path, "BC/A", "a") / "manifest.csv", f"name,{header}\na,1\n")
    with pytest.raises(ProPLError, match=f"no column 'pixel_size_mm', but one named '{header}'"):
        read_folder(tmp_path)


def test_columns_that_are_not_read_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(add(tmp_path, "BC/A", "a") / "manifest.csv", "name,group,hc_mm,Besitzer,side,\na,1,3,x,left,\n")
    assert read_folder(tmp_path).cases[0].group == "1"
    (record,) = caplog.records
    assert record.getMessage().endswith("BC/A/manifest.csv: these columns are not read: besitzer, side")


@pytest.mark.parametrize("pair", [("P-1", "P_1"), ("P 1", "p1"), ("study 3-a", "Study3a"), ("7", "007.0")])
def test_groups_that_differ_in_spelling_alone_are_refused(tmp_path: Path, pair: tuple[str, str]) -> None:
    write(add(tmp_path, "LA/CLINIC", "a", "b") / "manifest.csv", f"name,group\na,{pair[0]}\nb,{pair[1]}\n")
    with pytest.raises(ProPLError, match="names groups that differ only in spelling"):
        read_folder(tmp_path)


def test_groups_that_differ_in_a_number_are_two(tmp_path: Path) -> None:
    text = "name,group\na,1-2\nb,12\nc,1.2\nd,P1-2\n"
    write(add(tmp_path, "LA/CLINIC", "a", "b", "c", "d") / "manifest.csv", text)
    assert len({case.group for case in read_folder(tmp_path).cases}) == 4


def test_spellings_of_groups_are_compared_across_tasks(tmp_path: Path) -> None:
    for code, group in (("LA", "P01"), ("LV", "p1")):
        write(add(tmp_path, f"{code}/CLINIC", "a") / "manifest.csv", f"name,group\na,{group}\n")
    with pytest.raises(ProPLError, match=r"manifest.csv of CLINIC: .* 'P01' and 'p1'; write one of them everywhere"):
        read_folder(tmp_path)


@pytest.mark.parametrize("name", ["mask", "Labels", "GT", "tumour_masks"])
def test_masks_under_another_name_are_not_left_out(tmp_path: Path, name: str) -> None:
    write(add(tmp_path, "BC/A", "a", masks=False) / name / "a.png")
    with pytest.raises(ProPLError, match="looks like a folder of masks, which is named 'masks'; rename it"):
        read_folder(tmp_path)


def test_splits_are_shared_by_tasks_of_one_patient(tmp_path: Path) -> None:
    for code in ("LA", "LV", "MD"):
        for patient in range(12):
            for view in ("2CH", "4CH"):
                name = f"p{patient}_{view}"
                write(tmp_path / code / "CAMUS" / "images" / f"{name}.png", name)
                write(tmp_path / code / "CAMUS" / "masks" / f"{name}.png")
        rows = "".join(f"p{patient}_{view},p{patient}\n" for patient in range(12) for view in ("2CH", "4CH"))
        write(tmp_path / code / "CAMUS" / "manifest.csv", "name,group\n" + rows)
    made = read_folder(tmp_path)
    homes = {case.group: {other.split for other in made.cases if other.group == case.group} for case in made.cases}
    assert len(homes) == 12 and all(len(splits) == 1 for splits in homes.values())
    assert {split for splits in homes.values() for split in splits} == {"train", "validation", "test"}


def test_equal_pictures_are_regrouped_and_told(tmp_path: Path) -> None:
    folder = add(tmp_path, "TN/DDTI", "150_1", "233_2", "9_1")
    write(folder / "images" / "150_1.png", "same")
    write(folder / "images" / "233_2.png", "same")
    made = read_folder(tmp_path)
    assert [case.group for case in made.cases] == ["150_1", "150_1", "9_1"]
    assert "1 regrouped, as their group shares a picture" in made.description


def _manifest(text: str | bytes) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        write(folder / "manifest.csv", text)

    return change


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "mask without image": (lambda folder: write(folder / "masks" / "x.png"), "x.png: is a mask without an image"),
    "image twice": (lambda folder: write(folder / "images" / "a.jpg"), "has the same name as a.jpg"),
    "mask twice": (lambda folder: write(folder / "masks" / "a.bmp"), "has the same name as a.bmp"),
    "other type": (lambda folder: write(folder / "images" / "notes.txt"), "not a picture of a known type"),
    "empty picture": (lambda folder: (folder / "images" / "c.png").touch(), "c.png: is empty"),
    "source without images": (lambda folder: (folder.parent / "B").mkdir(), "images: is not there"),
    "source with empty images": (lambda folder: (folder.parent / "B" / "images").mkdir(parents=True), "no picture"),
    "task without source": (lambda folder: (folder.parents[1] / "FH").mkdir(), "holds no folder of a source"),
    "names differ in case": (lambda folder: write(folder / "images" / "A.png"), "twice (as 'BC/A/A'"),
    "row without image": (_manifest("name\na\nx\n"), "names 'x', which is not in images"),
    "row twice": (_manifest("name\na\na.png\n"), "line 3: names 'a' a second time"),
    "no name column": (_manifest("file,group\na,1\n"), "has no column 'name'"),
    "bad size": (_manifest("name,pixel_size_mm\na,wide\n"), "line 2: pixel_size_mm 'wide' is not a positive"),
    "negative size": (_manifest("name,pixel_size_mm\na,-1\n"), "is not a positive"),
    "patients": (_manifest("name, patient\na,1\n"), "no column 'group', but one named 'patient'; rename it to 'group'"),
    "spacing": (_manifest("name\tPixel Spacing\na\t1\n"), "no column 'pixel_size_mm', but one named 'Pixel Spacing'"),
    "column twice": (_manifest("name,group,Group\na,1,2\n"), "has the column 'group' twice ('group', 'Group')"),
    "spare field": (_manifest("name,group\na,Miller, Anna\n"), "line 2: has 3 fields where the first line names 2"),
    "row without name": (_manifest("name,group\n,p1\n"), "line 2: has no name"),
    "groups spelled twice": (_manifest("name,group\na,P1\nb,p1\n"), "only in spelling: 'P1' and 'p1'"),
    "numbers spelled twice": (_manifest("name,group\na,12\nb,12.0\n"), "only in spelling: '12' and '12.0'"),
    "manifest of a table program": (
        lambda folder: write(folder / "manifest.xlsx"),
        "a manifest is named 'manifest.csv'",
    ),
    "manifest one level up": (
        lambda folder: write(folder.parent / "manifest.csv"),
        "move it into the folder of its source",
    ),
    "manifest at the root": (
        lambda folder: write(folder.parents[1] / "manifest.csv"),
        "manifest.csv: is not read here",
    ),
    "misspelled task": (lambda folder: write(folder.parents[1] / "fetal_heads" / "A" / "x"), "but nearly 'fetal_head'"),
    "not UTF-8": (_manifest(b"name\n\xff\n"), "cannot be read as CSV"),
}


@pytest.mark.parametrize("change,fact", BAD.values(), ids=list(BAD))
def test_bad_folders_are_named(tmp_path: Path, change: Callable[[Path], object], fact: str) -> None:
    change(add(tmp_path, "BC/A", "a", "b"))
    with pytest.raises(ProPLError) as caught:
        read_folder(tmp_path)
    assert fact in str(caught.value)


def test_all_faults_are_told_in_one_run(tmp_path: Path) -> None:
    write(add(tmp_path, "BC/A", "a") / "masks" / "x.png")
    write(add(tmp_path, "FH/B", "a") / "images" / "notes.txt")
    with pytest.raises(ProPLError) as caught:
        read_folder(tmp_path)
    assert "x.png" in str(caught.value) and "notes.txt" in str(caught.value)


def test_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(ProPLError, match="holds no folder of a task; use the layout <TASK>/<SOURCE>"):
        read_folder(tmp_path)
    with pytest.raises(ProPLError, match="is not a folder"):
        read_folder(tmp_path / "nowhere")


def test_registry(tmp_path: Path) -> None:
    add(tmp_path, "BC/A", "a")
    assert IN_PLACE["folder"] is read_folder
    assert read_source("folder", str(tmp_path)).cases == read_folder(tmp_path).cases
    with pytest.raises(ProPLError, match="unknown layout 'foldr'; did you mean 'folder'"):
        read_source("foldr", tmp_path)
