"""The phantoms: layout, sharing, determinism, sizes of the targets, and that neither a threshold nor one mask solves them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.ndimage import label
from skimage.filters import threshold_otsu

from propl_monai import tasks
from propl_monai.datasets.phantoms.phantom import ANATOMIES, Phantom, make_phantom
from propl_monai.datasets.phantoms.physics import Canvas, Probe, Tissue, insonify, scan_convert
from propl_monai.datasets.phantoms.write_phantoms import write_phantoms
from propl_monai.errors import ProPLError

FLAT = Probe(1e4, 20e-4, 40, pulse=0.3, beam=0.4, focus=20, loss=0.5)  # linear, 40 mm wide, 40 mm deep
CASES = 8


@pytest.fixture(scope="module")
def phantoms() -> dict[str, list[Phantom]]:
    return {anatomy: [make_phantom(anatomy, patient, 0) for patient in range(CASES)] for anatomy in ANATOMIES}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("written") / "new"
    write_phantoms(folder, cases_per_task=3, size=64)
    return folder


def dice(answer: np.ndarray, truth: np.ndarray) -> float:
    return float(2 * (answer & truth).sum() / (answer.sum() + truth.sum()))


def pngs(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*.png"))}


def flat_canvas() -> Canvas:
    return Canvas.under(FLAT, samples=160, beams=96, shift=(0, 0), tilt=0)


def test_every_task_belongs_to_one_anatomy() -> None:
    assert sorted(task for names in ANATOMIES.values() for task in names) == sorted(tasks.NAMES)


@pytest.mark.parametrize("task", tasks.TASKS, ids=lambda task: task.code)
def test_layout(written: Path, task: tasks.Task) -> None:
    home = written / task.code / "PHANTOM"
    manifest = pd.read_csv(home / "manifest.csv")
    assert list(manifest.columns) == ["name", "width", "height", "group", "pixel_size_mm"]
    assert list(manifest["name"]) == ["patient0000_a", "patient0000_b", "patient0001_a"]
    assert manifest["group"].nunique() == 2 and manifest["group"][0] == manifest["group"][1]
    assert manifest["pixel_size_mm"].between(0.5, 4).all()  # pictures 78 to 192 mm wide on 64 pixels
    for kind in ("images", "masks"):
        assert sorted(path.stem for path in (home / kind).iterdir()) == list(manifest["name"])
        for path in (home / kind).iterdir():
            with Image.open(path) as picture:
                assert (picture.mode, picture.size) == ("L", (64, 64))
                assert kind == "images" or set(np.unique(np.asarray(picture))) == {0, 255}


@pytest.mark.parametrize("names", ANATOMIES.values(), ids=ANATOMIES)
def test_tasks_of_one_anatomy_share_their_images_but_not_their_masks(written: Path, names: tuple[str, ...]) -> None:
    homes = [written / tasks.find(name).code / "PHANTOM" for name in names]
    assert all(pngs(home / "images") == pngs(homes[0] / "images") for home in homes)
    assert all((home / "manifest.csv").read_bytes() == (homes[0] / "manifest.csv").read_bytes() for home in homes)
    assert len({pngs(home / "masks")["patient0000_a.png"] for home in homes}) == len(homes)


def test_larger_set_contains_smaller_and_replaces_it(written: Path, tmp_path: Path) -> None:
    write_phantoms(tmp_path, cases_per_task=4, size=64)
    larger, smaller = pngs(tmp_path), pngs(written)
    assert len(larger) == 8 * 2 * 4 and smaller.items() <= larger.items()
    write_phantoms(tmp_path, cases_per_task=3, size=64)
    assert pngs(tmp_path) == smaller
    write_phantoms(tmp_path, cases_per_task=3, size=64, seed=1)
    assert all(smaller[name] != picture for name, picture in pngs(tmp_path).items())


def test_foreign_folder_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ProPLError, match=r"holds other files; give a new or empty folder"):
        write_phantoms(tmp_path, cases_per_task=2, size=64)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    with pytest.raises(ProPLError, match="is a file"):
        write_phantoms(tmp_path / "thesis.txt", cases_per_task=2, size=64)


@pytest.mark.parametrize(
    "wrong", [{"size": 63}, {"size": 1025}, {"cases_per_task": 1}, {"seed": -1}], ids=lambda wrong: next(iter(wrong))
)
def test_values_out_of_range_are_refused_before_anything_is_written(tmp_path: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(ProPLError) as caught:
        write_phantoms(tmp_path / "new", **wrong)
    assert caught.value.where in wrong and str(next(iter(wrong.values()))) in caught.value.fact
    assert not (tmp_path / "new").exists()


def test_unknown_anatomy_names_the_nearest() -> None:
    with pytest.raises(ProPLError, match="did you mean 'heart'"):
        make_phantom("hart", 0, 0)


@pytest.mark.parametrize("anatomy", ANATOMIES)
def test_views_share_anatomy_but_not_speckle(anatomy: str) -> None:
    one, again, other = (make_phantom(anatomy, 5, view, size=96) for view in (0, 0, 1))
    stranger = make_phantom(anatomy, 6, 0, size=96)
    assert np.array_equal(one.image, again.image)
    assert (one.image != other.image).mean() > 0.2 and (one.image != stranger.image).mean() > 0.2
    for task, mask in one.masks.items():
        assert np.array_equal(mask, again.masks[task]) and not np.array_equal(mask, other.masks[task])
        assert other.masks[task].sum() == pytest.approx(mask.sum(), rel=0.2)


@pytest.mark.parametrize("anatomy", ANATOMIES)
@pytest.mark.parametrize("size", [64, 320])
def test_sizes_show_the_same_anatomy(anatomy: str, size: int) -> None:
    standard, resized = make_phantom(anatomy, 3, 0), make_phantom(anatomy, 3, 0, size=size)
    assert resized.image.shape == (size, size) and resized.image.dtype == np.uint8
    assert resized.pixel_size_mm * size == pytest.approx(standard.pixel_size_mm * 192)
    for task, mask in standard.masks.items():
        assert resized.masks[task].mean() == pytest.approx(mask.mean(), rel=0.12)


def test_targets_are_large_enough_and_of_one_piece(phantoms: dict[str, list[Phantom]]) -> None:
    least = dict.fromkeys(tasks.NAMES, 0.02) | {
        "breast cancer": 0.038,
        "ovarian tumor": 0.038,
        "thyroid nodule": 0.0095,
    }
    for cases in phantoms.values():
        for task, mask in ((task, mask) for case in cases for task, mask in case.masks.items()):
            assert least[task] < mask.mean() < 0.35
            sizes = np.bincount(label(mask)[0].ravel())[1:]
            assert sizes.max() > 0.97 * mask.sum()


def test_targets_nest_or_keep_apart(phantoms: dict[str, list[Phantom]]) -> None:
    for case in phantoms["small parts"]:
        gland, nodule = case.masks["thyroid gland"], case.masks["thyroid nodule"]
        assert not (nodule & ~gland).any() and 0.04 < nodule.sum() / gland.sum() < 0.15
        assert not (gland & case.masks["breast cancer"]).any()
    for anatomy in ("obstetric", "heart"):
        assert all(np.sum(list(case.masks.values()), axis=0).max() == 1 for case in phantoms[anatomy])


def test_outside_the_sector_is_black_and_unlabelled(phantoms: dict[str, list[Phantom]]) -> None:
    for case in phantoms["heart"]:
        corner = np.s_[-24:, :24]
        assert not case.image[corner].any() and not any(mask[corner].any() for mask in case.masks.values())
        assert 0.3 < (case.image > 0).mean() < 0.5  # a sector of 75 degrees in its bounding square


def test_a_threshold_does_not_solve_the_tasks(phantoms: dict[str, list[Phantom]]) -> None:
    scores = []
    for anatomy, names in ANATOMIES.items():
        bright = [case.image > threshold_otsu(case.image) for case in phantoms[anatomy]]
        for name in names:
            truths = [case.masks[name] for case in phantoms[anatomy]]
            sides = [
                [dice(side ^ flip, truth) for side, truth in zip(bright, truths, strict=True)] for flip in (False, True)
            ]
            scores.append(max(np.mean(side) for side in sides))
    assert np.mean(scores) < 0.5


def test_one_mask_for_all_prompts_does_not_solve_the_tasks(phantoms: dict[str, list[Phantom]]) -> None:
    scores = []
    for anatomy, names in ANATOMIES.items():
        for case in phantoms[anatomy]:
            answers = [*case.masks.values(), np.any(list(case.masks.values()), axis=0)]
            best = max(np.mean([dice(answer, truth) for truth in case.masks.values()]) for answer in answers)
            scores.append(len(names) / 8 * best / CASES)
    assert sum(scores) < 0.52


def test_place_and_find_are_inverse() -> None:
    probe = Probe(50, 0.6, 140, pulse=0.4, beam=0.8, focus=70, loss=0.3)
    x, z = probe.place(np.array([0.0, 30.0]), np.array([0.0, 0.6]))
    assert (x[0], z[0]) == pytest.approx((0, 50 - 50 * np.cos(0.6)))  # the middle of the curved surface lies lower
    assert (x[1], z[1]) == pytest.approx((80 * np.sin(0.6), 30 * np.cos(0.6)))
    depth, angle = probe.find(x, z)
    assert depth == pytest.approx([0, 30]) and angle == pytest.approx([0, 0.6])


def test_bone_shadows_and_fluid_enhances() -> None:
    canvas = flat_canvas()
    middle = np.abs(canvas.z - 15) < 3
    canvas.paint(middle & (canvas.x < -10), Tissue(0, loss=9))
    canvas.paint(middle & (canvas.x > 10), Tissue(-30, loss=0))
    grey = insonify(canvas, np.random.default_rng(0))
    below = (canvas.z > 22) & (canvas.z < 34)
    behind_bone, plain, behind_fluid = (
        grey[below & where].mean() for where in (canvas.x < -12, np.abs(canvas.x) < 6, (canvas.x > 12))
    )
    assert behind_bone + 40 < plain < behind_fluid - 8
    assert grey[(np.abs(canvas.z - 15) < 2) & (canvas.x > 12)].mean() + 50 < plain


def test_an_interface_is_bright_only_where_it_faces_the_beam() -> None:
    excess = []
    for slope in (0.0, 1.0):
        canvas = flat_canvas()
        line = np.abs(canvas.z - 20 - slope * canvas.x) < 0.6 * np.hypot(1, slope)
        canvas.paint(line, Tissue(0, impedance=1.3))
        near = np.abs(canvas.z - 20 - slope * canvas.x) < 1.5 * np.hypot(1, slope)
        grey, inner = insonify(canvas, np.random.default_rng(0)), np.abs(canvas.x) < 12
        excess.append(grey[near & inner].mean() - grey[~near & inner].mean())
    assert excess[0] > 15 and excess[1] < excess[0] / 2


def test_scan_conversion_keeps_places_and_blackens_the_outside() -> None:
    canvas = flat_canvas()
    x, z = np.array([[-10.0, 0.0, 10.0, 25.0, 0.0]]), np.array([[5.0, 20.0, 39.0, 20.0, 41.0]])
    across, down = scan_convert([canvas.x, canvas.z], FLAT, x, z)
    assert across[0] == pytest.approx([-10, 0, 10, 0, 0], abs=0.05)
    assert down[0] == pytest.approx([5, 20, 39, 0, 0], abs=0.05)
