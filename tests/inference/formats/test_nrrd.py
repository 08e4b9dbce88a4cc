"""`.seg.nrrd`, read by SimpleITK: masks, layers, names, colours and place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
from format_samples import SIZE, TASKS, blobs, drawn, filled, written
from PIL import Image
from test_nifti import tilted_metaimage, tilted_nifti

from propl_monai import tasks as registry
from propl_monai.images import read_frames, turn
from propl_monai.inference.formats.registry import find_format

pytest.importorskip("nrrd")
NRRD = find_format("nrrd")


def read(path: Path, count: int) -> tuple[SimpleITK.Image, dict[str, np.ndarray]]:
    """The image, and bool (frames, H, W) for each name, as Slicer finds them by layer and label."""
    image = SimpleITK.ReadImage(str(path))
    values = SimpleITK.GetArrayFromImage(image)
    values = values[..., None] if values.ndim == 3 else values
    masks = {}
    for index in range(count):
        field = {key: image.GetMetaData(f"Segment{index}_{key}") for key in ("Name", "LabelValue", "Layer", "Color")}
        masks[field["Name"]] = values[..., int(field["Layer"])] == int(field["LabelValue"])
        colour = registry.find(field["Name"]).colour
        assert np.allclose(np.array(field["Color"].split(), float) * 255, colour, atol=1e-3)
        extent = [int(word) for word in image.GetMetaData(f"Segment{index}_Extent").split()]
        assert extent[::2] == [0, 0, 0] and extent[1::2] == [length - 1 for length in image.GetSize()]
    return image, masks


@pytest.mark.parametrize(("file", "save"), [("a.mha", tilted_metaimage), ("a.nii.gz", tilted_nifti)])
def test_overlapping_tasks_of_a_cine_in_one_file_at_the_place_of_the_picture(
    file: str, save: Any, tmp_path: Path
) -> None:
    frames = drawn()
    cine = read_frames(save(tmp_path / file, (frames[:, 0] * 200).astype(np.uint8)))
    masks = filled(tmp_path / file, frames, spacing_mm=cine.spacing_mm, geometry=cine.geometry)
    (path,) = written(NRRD.files(masks), tmp_path)
    assert path.relative_to(tmp_path).as_posix() == "deep er/b (1).seg.nrrd"
    image, found = read(path, 3)
    assert image.GetNumberOfComponentsPerPixel() == 3
    for index, task in enumerate(TASKS):
        np.testing.assert_array_equal(found[registry.find(task).name], frames[:, index])
    picture = SimpleITK.ReadImage(str(tmp_path / file))
    assert image.GetSize() == picture.GetSize()
    for given, expected in (
        (image.GetSpacing(), picture.GetSpacing()),
        (image.GetOrigin(), picture.GetOrigin()),
        (image.GetDirection(), picture.GetDirection()),
    ):
        assert given == pytest.approx(expected, abs=1e-5)


def test_tasks_that_do_not_overlap_share_a_layer(tmp_path: Path) -> None:
    one = blobs(1)
    frames = np.stack([one, ~one, one & blobs(2)])[None]
    (path,) = written(NRRD.files(filled(tmp_path / "a.png", frames)), tmp_path)
    image, found = read(path, 3)
    assert image.GetNumberOfComponentsPerPixel() == 2 and image.GetSize() == (*SIZE[::-1], 1)
    np.testing.assert_array_equal(np.stack(list(found.values()))[:, 0], frames[0])
    assert [image.GetMetaData(f"Segment{index}_Layer") for index in range(3)] == ["0", "0", "1"]
    (path,) = written(NRRD.files(filled(tmp_path / "a.png", frames[:, :2], TASKS[:2])), tmp_path)
    image, found = read(path, 2)
    assert image.GetNumberOfComponentsPerPixel() == 1
    np.testing.assert_array_equal(np.stack(list(found.values()))[:, 0], frames[0, :2])


def test_an_empty_mask(tmp_path: Path) -> None:
    (path,) = written(NRRD.files(filled(tmp_path / "a.png", np.zeros((1, 1, 4, 6), bool), ["LA"])), tmp_path)
    assert not read(path, 1)[1]["left atrium"].any()


@pytest.mark.parametrize("orientation", [1, 2, 6, 7, 8])
def test_a_picture_that_exif_turns(orientation: int, tmp_path: Path) -> None:
    """As in `test_nifti`: on the picture as stored."""
    stored = drawn(1, ["LA"])[0, 0]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored.astype(np.uint8) * 200).save(tmp_path / "a.jpg", quality=98, exif=exif)
    about: dict[str, Any] = {"spacing_mm": (0.5, 0.25), "orientation": read_frames(tmp_path / "a.jpg").orientation}
    masks = filled(tmp_path / "a.jpg", turn(stored, orientation)[None, None], ["LA"], **about)
    (path,) = written(NRRD.files(masks), tmp_path)
    image, found = read(path, 1)
    np.testing.assert_array_equal(found["left atrium"][0], stored)
    assert image.GetSpacing() == ((0.25, 0.5, 1) if orientation < 5 else (0.5, 0.25, 1))
