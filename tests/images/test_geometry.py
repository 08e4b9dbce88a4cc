"""Where a file says that its pixels lie, against SimpleITK's word for it."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
from picture_samples import GREY, MOVING, save_metaimage, save_nifti, save_pillow

from propl_monai.images import read_frames, turn, turn_back
from propl_monai.images.geometry import Geometry, placed

TURNED = np.linalg.qr(np.arange(9).reshape(3, 3) + np.eye(3))[0]


def of_itk(path: Path) -> np.ndarray:
    """From (column, row, frame) to mm, as ITK has it."""
    image = SimpleITK.ReadImage(str(path))
    axes = image.GetDimension()
    affine = np.eye(4)
    affine[:axes, :axes] = np.array(image.GetDirection()).reshape(axes, axes) * image.GetSpacing()
    affine[:axes, 3] = image.GetOrigin()
    return affine


@pytest.mark.parametrize("frames", [GREY, MOVING], ids=["still", "cine"])
def test_metaimage(tmp_path: Path, frames: np.ndarray) -> None:
    path = save_metaimage(tmp_path / "a.mha", frames)
    image = SimpleITK.ReadImage(str(path))
    axes = frames.ndim
    image.SetDirection(np.linalg.qr(TURNED[:axes, :axes])[0].ravel().tolist())
    image.SetOrigin((5.5, -6, 7)[:axes])
    SimpleITK.WriteImage(image, str(path))
    geometry = read_frames(path).geometry
    assert geometry is not None and geometry.affine is not None and geometry.shape == frames.T.shape
    np.testing.assert_allclose(geometry.affine, of_itk(path), atol=1e-5)


@pytest.mark.parametrize(
    ("field", "value"), [("Offset", "1 x"), ("Offset", "1"), ("TransformMatrix", "0 0 0 0"), ("Offset", "nan 0")]
)
def test_metaimage_whose_place_makes_no_sense(tmp_path: Path, field: str, value: str) -> None:
    path = save_metaimage(tmp_path / "a.mha", GREY)
    lines = path.read_bytes().split(b"\n")
    start = next(index for index, line in enumerate(lines) if line.startswith(field.encode()))
    lines[start] = f"{field} = {value}".encode()
    path.write_bytes(b"\n".join(lines))
    geometry = read_frames(path).geometry
    assert geometry is not None and geometry.affine is None


@pytest.mark.parametrize("unit", ["mm", "meter"])
def test_nifti(tmp_path: Path, unit: str) -> None:
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = TURNED * (0.25, 0.5, 2), (5, -6, 7)
    image = nibabel.Nifti1Image(MOVING.transpose(2, 1, 0), affine)
    image.header.set_xyzt_units(unit)
    nibabel.save(image, tmp_path / "a.nii")
    geometry = read_frames(tmp_path / "a.nii").geometry
    assert geometry is not None and geometry.affine is not None and geometry.shape == MOVING.T.shape
    np.testing.assert_allclose(geometry.affine, of_itk(tmp_path / "a.nii"), atol=1e-3 if unit == "meter" else 1e-5)


def test_files_that_state_no_place(tmp_path: Path) -> None:
    assert read_frames(save_pillow(tmp_path / "a.png", GREY)).geometry is None
    nibabel.save(nibabel.Nifti1Image(GREY.T, None), tmp_path / "a.nii")
    geometry = read_frames(tmp_path / "a.nii").geometry
    assert geometry is not None and geometry.affine is None
    np.testing.assert_array_equal(
        placed(geometry, (0.5, 0.25)), of_itk(tmp_path / "a.nii") @ np.diag([0.25, 0.5, 1, 1])
    )
    assert read_frames(save_nifti(tmp_path / "b.nii", MOVING, seconds=0.04)).geometry.shape == (10, 12, 1, 3)  # type: ignore[union-attr]


def test_a_given_pixel_size() -> None:
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = TURNED * (0.25, 0.5, 2), (5, -6, 7)
    np.testing.assert_array_equal(placed(Geometry((4, 5, 6), affine), None), affine)
    given = placed(Geometry((4, 5, 6), affine), (3, 1.5))
    np.testing.assert_allclose(given[:3, :3], TURNED * (1.5, 3, 2))
    np.testing.assert_array_equal(given[:, 3], affine[:, 3])
    np.testing.assert_array_equal(placed(None, (3, 1.5)), np.diag([1.5, 3, 1, 1]))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turning_back(orientation: int) -> None:
    np.testing.assert_array_equal(turn_back(turn(GREY, orientation), orientation), GREY)
