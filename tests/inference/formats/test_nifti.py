"""NIfTI masks, read by SimpleITK: they lie where SimpleITK puts the picture, of any kind of file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK
from format_samples import SIZE, TASKS, drawn, filled, written
from picture_samples import save_metaimage, save_nifti
from PIL import Image

from propl_monai.images import read_frames, turn
from propl_monai.inference.formats.registry import find_format

NIFTI = find_format("nifti")
SLUGS = ("left_atrium", "thyroid_nodule", "breast_cancer")
TILTED = np.array([[0.2, 0.1, 0.3, 5], [-0.1, 0.4, 0.2, -6], [0.1, -0.2, 2.0, 7], [0, 0, 0, 1]])


def place(image: SimpleITK.Image) -> list[Any]:
    return [image.GetSize(), *np.round(np.array([*image.GetSpacing(), *image.GetOrigin(), *image.GetDirection()]), 5)]


def tilted_nifti(path: Path, frames: np.ndarray) -> Path:
    """With an affine turned in space, and steps of 0.3, 0.5 and 2 mm."""
    turned, _ = np.linalg.qr(TILTED[:3, :3])
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = turned * (0.3, 0.5, 2), TILTED[:3, 3]
    nibabel.save(nibabel.Nifti1Image(frames.transpose(2, 1, 0), affine), path)
    return path


def tilted_metaimage(path: Path, frames: np.ndarray) -> Path:
    save_metaimage(path, frames)
    image = SimpleITK.ReadImage(str(path))
    image.SetDirection(np.linalg.qr(TILTED[:3, :3])[0].ravel().tolist())
    image.SetOrigin((5, -6, 7))
    image.SetSpacing((0.3, 0.5, 2))
    SimpleITK.WriteImage(image, str(path))
    return path


def without_place(path: Path, frames: np.ndarray) -> Path:
    """Both codes are 0."""
    image = nibabel.Nifti1Image(frames.transpose(2, 1, 0), None)
    image.header.set_zooms((0.25, 0.5, 1))
    nibabel.save(image, path)
    return path


SOURCES = {
    "NIfTI": ("a.nii.gz", tilted_nifti),
    "NIfTI without a place": ("a.nii.gz", without_place),
    "NIfTI over time": ("a.nii.gz", lambda path, frames: save_nifti(path, frames, seconds=0.04)),
    "MetaImage": ("a.mha", tilted_metaimage),
    "TIFF": ("a.tif", lambda path, frames: SimpleITK.WriteImage(SimpleITK.GetImageFromArray(frames), str(path))),
}


@pytest.mark.parametrize("name", SOURCES)
def test_masks_lie_on_the_frames(name: str, tmp_path: Path) -> None:
    file, save = SOURCES[name]
    frames = drawn()
    save(tmp_path / file, (frames[:, 0] * 200).astype(np.uint8))
    cine = read_frames(tmp_path / file)
    about = {"spacing_mm": cine.spacing_mm, "seconds_per_frame": cine.seconds_per_frame, "geometry": cine.geometry}
    paths = written(NIFTI.files(filled(tmp_path / file, frames, name="a", **about)), tmp_path / "out")
    assert [path.name for path in paths] == [f"a_{slug}.nii.gz" for slug in SLUGS]
    picture = SimpleITK.ReadImage(str(tmp_path / file))
    for index, path in enumerate(paths):
        mask = SimpleITK.ReadImage(str(path))
        values = SimpleITK.GetArrayFromImage(mask)
        assert values.dtype == np.uint8 and values.shape == SimpleITK.GetArrayFromImage(picture).shape
        np.testing.assert_array_equal(values.reshape(frames[:, index].shape), frames[:, index])
        if name != "TIFF":  # whose resolution ITK takes for a pixel size
            assert place(mask) == place(picture)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_that_exif_turns(orientation: int, tmp_path: Path) -> None:
    """The mask is upright; its file lies on the picture as stored, as ITK does not turn it."""
    stored = drawn(1, ["LA"])[0, 0]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored.astype(np.uint8) * 200).save(tmp_path / "a.jpg", quality=98, exif=exif)
    picture = read_frames(tmp_path / "a.jpg")
    upright = turn(stored, orientation)
    np.testing.assert_array_equal(next(iter(picture)) > 100, upright)
    about: dict[str, Any] = {"spacing_mm": (0.5, 0.25), "orientation": picture.orientation}
    (path,) = written(NIFTI.files(filled(tmp_path / "a.jpg", upright[None, None], ["LA"], **about)), tmp_path)
    mask = SimpleITK.ReadImage(str(path))
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(mask) > 0, stored)
    assert mask.GetSpacing() == ((0.25, 0.5) if orientation < 5 else (0.5, 0.25))


def test_a_given_pixel_size_takes_the_place_of_that_of_the_file(tmp_path: Path) -> None:
    frames = drawn(1, ["LA"])
    cine = read_frames(tilted_metaimage(tmp_path / "a.mha", (frames[:, 0] * 200).astype(np.uint8)))
    masks = filled(tmp_path / "a.mha", frames, ["LA"], spacing_mm=(1.5, 1.25), geometry=cine.geometry)
    (path,) = written(NIFTI.files(masks), tmp_path)
    before, after = SimpleITK.ReadImage(str(tmp_path / "a.mha")), SimpleITK.ReadImage(str(path))
    assert after.GetSpacing() == pytest.approx((1.25, 1.5, 2))
    assert after.GetDirection() == pytest.approx(before.GetDirection(), abs=1e-6)
    assert after.GetOrigin() == pytest.approx(before.GetOrigin())


def test_a_still_without_any_pixel_size(tmp_path: Path) -> None:
    frames = drawn(1)
    paths = written(NIFTI.files(filled(tmp_path / "a.png", frames)), tmp_path)
    assert len(paths) == len(TASKS)
    image = nibabel.load(paths[0])
    assert image.shape == SIZE[::-1] and image.header.get_xyzt_units() == ("unknown", "unknown")
    assert (int(image.header["qform_code"]), int(image.header["sform_code"])) == (0, 0)


def test_units_and_time(tmp_path: Path) -> None:
    frames = drawn()
    cine = read_frames(save_nifti(tmp_path / "a.nii", (frames[:, 0] * 200).astype(np.uint8), seconds=0.04))
    about = {"spacing_mm": cine.spacing_mm, "seconds_per_frame": cine.seconds_per_frame, "geometry": cine.geometry}
    path = written(NIFTI.files(filled(tmp_path / "a.nii", frames, **about)), tmp_path)[0]
    image, source = nibabel.load(path), nibabel.load(tmp_path / "a.nii")
    assert image.shape == source.shape and image.header.get_xyzt_units() == source.header.get_xyzt_units()
    np.testing.assert_allclose(image.header.get_zooms(), source.header.get_zooms(), rtol=1e-6)
    np.testing.assert_allclose(image.affine, source.affine, atol=1e-6)
