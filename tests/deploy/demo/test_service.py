"""What the page can ask for, through the web application and a small network."""

from __future__ import annotations

import csv
import io
import threading
import zipfile
from base64 import b64decode
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from demo_tools import HEIGHT, WIDTH, Clock, make_client, make_service, mask_of, open_file, save_still, segment
from factories import small_predictor, speckle
from known_tools import known_for
from picture_samples import save_dicom, save_nifti
from PIL import Image
from pydicom import dcmread
from starlette.testclient import TestClient

from propl_monai.deploy.demo import service as module
from propl_monai.deploy.demo.service import Service
from propl_monai.images import Picture
from propl_monai.inference.measurements import COLUMNS, measure
from propl_monai.tasks import NAMES, TASKS

FRAMES = np.stack([speckle(HEIGHT, WIDTH, seed) for seed in range(11)])


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Service:
    return make_service(tmp_path_factory.mktemp("service"))


@pytest.fixture(scope="module")
def client(service: Service) -> TestClient:
    return make_client(service)


@pytest.fixture
def still(client: TestClient, tmp_path: Path) -> str:
    return str(open_file(client, save_still(tmp_path / "scan 1.png"))["study"])


def rows_of(content: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content.decode())))


def saved(client: TestClient, key: str, codes: list[str], form: str, spacing: str = "") -> Any:
    return client.post(f"/studies/{key}/save", json={"codes": codes, "form": form, "number": 1, "spacing": spacing})


def unzipped(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


# --- what is shown


def test_the_page_lists_what_the_weights_know(client: TestClient) -> None:
    about = client.get("/about").json()
    assert [task["name"] for task in about["tasks"]] == list(NAMES)
    assert [tuple(task["colour"]) for task in about["tasks"]] == [task.colour for task in TASKS]
    assert about["most_upload"] == 128_000_000


def test_the_page_needs_nothing_else(client: TestClient) -> None:
    page = client.get("/").text
    for name in ("/page.css", "/page.js", "/picture.js"):
        assert client.get(name).status_code == 200
        page += client.get(name).text
    assert "http://" not in page and "https://" not in page and "innerHTML" not in page
    assert client.get("/page.py").status_code == 404


def test_a_mask_is_that_of_the_predictor(client: TestClient, still: str, tmp_path: Path) -> None:
    expected = small_predictor()(save_still(tmp_path / "a.png"), "fetal head", uncertainty=True)
    answer = segment(client, still, "Segment the fetal head in the ultrasound image.", uncertainty=True).json()
    assert answer["code"] == "FH" and expected.mask.any() and not expected.mask.all()
    assert np.array_equal(mask_of(answer), expected.mask)
    assert expected.uncertainty is not None
    deviation = np.frombuffer(b64decode(answer["deviation"]), np.uint8).reshape(HEIGHT, WIDTH)
    assert np.abs(deviation / 510 - expected.uncertainty).max() <= 0.5 / 510 + 1e-6 and deviation.any()
    assert segment(client, still, "FH").json()["deviation"] is None


@pytest.mark.parametrize("foreign", [False, True])
def test_scores_are_told_as_by_predict(tmp_path: Path, foreign: bool) -> None:
    service = make_service(tmp_path)
    service.predictor.known = known_for(service.predictor, foreign, absent=("thyroid",))
    client, path = make_client(service), save_nifti(tmp_path / "cine.nii.gz", FRAMES[:2])
    key = open_file(client, path)["study"]
    for code, absent in (("FH", False), ("TN", True)):
        expected = service.predictor(Picture(FRAMES[0]), code).scores
        told = segment(client, key, code).json()["doubt"]
        assert expected is not None and told["presence"] == pytest.approx(expected.presence, abs=1e-5)
        assert (told["foreign"], told["absent"]) == (foreign, absent) == (expected.foreign, expected.absent)
        assert ("Not my kind of picture?" in told["text"]) == foreign
        assert ("Not there? The thyroid nodule looks absent" in told["text"]) == absent
        assert ("that shows the fetus" in told["text"]) == (not foreign and not absent)
    assert client.post(f"/studies/{key}/segment_on", json={"codes": ["TN"], "first": 1}).json()["next"] is None
    rows = rows_of(saved(client, key, ["TN"], "csv").content)
    assert [(row["absent"], row["foreign"]) for row in rows] == [("True", str(foreign))] * 2


def test_weights_without_scores_tell_none(client: TestClient, still: str) -> None:
    assert segment(client, still, "FH").json()["doubt"] is None


def test_the_picture_comes_at_its_own_size(client: TestClient, still: str) -> None:
    answer = client.get(f"/studies/{still}/frames/1")
    assert answer.headers["content-type"] == "image/png"
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(answer.content))), speckle(HEIGHT, WIDTH))


def test_an_unknown_word_is_answered_with_what_is_known(client: TestClient, still: str) -> None:
    answer = segment(client, still, "the thyroid noodle please")
    assert answer.status_code == 400
    assert answer.json()["fact"] == "unknown task 'thyroid noodle'"
    assert answer.json()["cure"].startswith("did you mean 'thyroid nodule'? known: breast cancer, ")


# --- measurements


def test_lengths_are_in_pixels_until_a_size_is_typed(client: TestClient, still: str) -> None:
    found = segment(client, still, "LV").json()
    pixels = found["measured"]
    assert pixels["unit"] == "pixel" and pixels["source"] == "In pixels: the file does not say how large a pixel is."
    assert pixels["area"] == measure(mask_of(found)).area
    body = {"codes": ["LV"], "number": 1, "spacing": "0.5 0,25"}
    (typed,) = client.post(f"/studies/{still}/measure", json=body).json()
    assert typed["unit"] == "mm" and typed["area"] == pixels["area"] / 8
    assert typed["source"] == "In mm: a pixel is 0.5 × 0.25 mm, as typed."
    assert client.post(f"/studies/{still}/measure", json={**body, "spacing": "wide"}).status_code == 400


def test_the_size_in_the_file_is_used(client: TestClient, tmp_path: Path) -> None:
    opened = open_file(client, save_nifti(tmp_path / "a.nii.gz", speckle(HEIGHT, WIDTH)))
    assert opened["spacing_mm"] == [0.5, 0.25]
    found = segment(client, opened["study"], "FH").json()["measured"]
    assert found["source"] == "In mm: a pixel is 0.5 × 0.25 mm, by the file."
    assert found["unit"] == "mm" and found["head_circumference"] > 0


# --- corrections


def test_a_corrected_mask_is_measured_kept_and_saved(client: TestClient, still: str) -> None:
    segment(client, still, "TN")
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[10:20, 5:25] = True
    bits = np.packbits(mask).tobytes()
    answer = client.put(f"/studies/{still}/masks/TN/1?spacing=2", content=bits).json()
    assert answer["area"] == 800 and answer["unit"] == "mm" and answer["edited"] is True
    again = segment(client, still, "TN", uncertainty=True).json()
    assert np.array_equal(mask_of(again), mask) and again["deviation"] and again["measured"]["edited"]
    file = saved(client, still, ["TN"], "png")
    assert file.headers["content-disposition"] == "attachment; filename*=UTF-8''scan%201_thyroid_nodule.png"
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(file.content))), mask * np.uint8(255))


@pytest.mark.parametrize("bits", [b"", b"\0" * 149, b"\0" * 151])
def test_a_mask_of_another_size_is_refused(client: TestClient, still: str, bits: bytes) -> None:
    segment(client, still, "TN")
    assert client.put(f"/studies/{still}/masks/TN/1", content=bits).status_code == 400


def test_a_mask_that_was_never_asked_for_is_refused(client: TestClient, still: str) -> None:
    answer = client.put(f"/studies/{still}/masks/OT/1", content=b"\0" * 150)
    assert answer.status_code == 400 and "not segmented" in answer.json()["fact"]


# --- cines and files


def test_a_cine_is_segmented_step_by_step_and_saved_in_every_format(client: TestClient, tmp_path: Path) -> None:
    uids = {name: f"1.2.3.{n}" for n, name in enumerate(("StudyInstanceUID", "SeriesInstanceUID"))}
    opened = open_file(client, save_dicom(tmp_path / "cine.dcm", FRAMES, PatientName="Zyxwv^Q", **uids))
    key = opened["study"]
    assert opened["frames"] == 11
    every = ["png", "png-all", "nifti", "nrrd", "dicom-seg", "coco", "yolo", "cvat"]
    assert opened["formats"] == every
    segment(client, key, "LA", number=3)
    refused = saved(client, key, ["LA", "LV"], "nifti")
    assert refused.status_code == 400 and refused.json()["fact"] == "11 of 11 frames are not segmented"
    steps = []
    next_one: int | None = 1
    while next_one is not None:
        steps.append(next_one)
        body = {"codes": ["LA", "LV"], "first": next_one}
        next_one = client.post(f"/studies/{key}/segment_on", json=body).json()["next"]
    assert steps == [1, 9]
    masks = np.stack([mask_of(segment(client, key, "LA", number=n).json()) for n in range(1, 12)])
    assert masks.any()
    files = {form: saved(client, key, ["LA", "LV"], form) for form in every}
    assert {form: file.status_code for form, file in files.items()} == dict.fromkeys(every, 200)
    pngs = unzipped(files["png-all"].content)
    assert len(pngs) == 22 and len(unzipped(files["png"].content)) == 2
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(pngs["cine_frame_0011_left_atrium.png"]))) > 0, masks[10])
    (tmp_path / "a.nii.gz").write_bytes(unzipped(files["nifti"].content)["cine_left_atrium.nii.gz"])
    assert np.array_equal(np.asarray(nibabel.load(tmp_path / "a.nii.gz").dataobj).transpose(2, 1, 0) > 0, masks)
    segmentation = dcmread(io.BytesIO(files["dicom-seg"].content))
    assert segmentation.SOPClassUID.name == "Segmentation Storage" and len(segmentation.SegmentSequence) == 2
    rows = rows_of(saved(client, key, ["LA", "LV"], "csv", "0.1").content)
    assert len(rows) == 22 and tuple(rows[0]) == COLUMNS and rows[21]["frame"] == "11"
    assert float(rows[0]["area"]) == pytest.approx(measure(masks[0], (0.1, 0.1)).area, abs=1e-4)
    assert list(tmp_path.parent.glob("service*/*")) == []


def test_formats_are_those_that_the_file_can_carry(client: TestClient, still: str) -> None:
    answer = saved(client, still, ["FH"], "dicom-seg")
    assert answer.status_code == 400 and answer.json()["fact"] == "unknown format 'dicom-seg'"
    assert saved(client, still, [], "png").json()["fact"] == "no target is segmented"


# --- how long a file is kept


def test_a_closed_file_is_forgotten(client: TestClient, service: Service, still: str) -> None:
    assert client.post(f"/studies/{still}/close").status_code == 200
    answer = client.get(f"/studies/{still}/frames/1")
    assert answer.status_code == 404 and answer.json()["cure"] == "open it again"
    assert still not in service._studies


def test_a_page_that_falls_silent_loses_its_file(tmp_path: Path) -> None:
    clock = Clock()
    service = make_service(tmp_path, clock)
    content = save_still(tmp_path / "a.png").read_bytes()
    silent, heard = (service.open(content, "a.png")["study"] for _ in range(2))
    clock.now = module.FORGET_AFTER - 1
    service.alive(heard)
    clock.now = module.FORGET_AFTER + 1
    service.forget_old()
    assert service.picture(heard, 1)
    with pytest.raises(module.Gone, match="is not open any more"):
        service.picture(silent, 1)


def test_files_make_room_for_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = make_service(tmp_path)
    content = save_still(tmp_path / "a.png").read_bytes()
    monkeypatch.setattr(module, "MOST_STUDIES", 2)
    first, second = (service.open(content, "a.png")["study"] for _ in range(2))
    service.alive(first)
    third = service.open(content, "a.png")["study"]
    with pytest.raises(module.Gone):
        service.alive(second)
    monkeypatch.setattr(module, "MOST_KEPT", 1)
    last = service.open(content, "a.png")["study"]  # too large with any other, but never alone
    assert service.picture(last, 1)
    for key in (first, third):
        with pytest.raises(module.Gone):
            service.alive(key)


def test_several_pages_at_once(service: Service, tmp_path: Path) -> None:
    """Each sees its own picture, whoever asks meanwhile."""
    paths = [save_still(tmp_path / f"{seed}.png", seed) for seed in range(3)]
    alone = [[service.predictor(path, code).mask for code in ("FH", "TN")] for path in paths]
    answers: dict[int, bool] = {}

    def page(seed: int) -> None:
        key = service.open(paths[seed].read_bytes(), "a.png")["study"]
        found = [mask_of(service.segment(key, code, 1, False, "")) for code in ("FH", "TN")]
        answers[seed] = np.array_equal(found, alone[seed])

    threads = [threading.Thread(target=page, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == dict.fromkeys(range(3), True)
