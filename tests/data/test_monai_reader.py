"""The MONAI reader: LoadImaged sees exactly what `images` reads, and cannot go round a refusal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from monai.data import DataLoader, Dataset
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged, SaveImage, Transposed
from picture_samples import save_dicom, save_metaimage
from PIL import Image

from propl_monai.data.monai_reader import UltrasoundReader
from propl_monai.errors import ProPLError, find_cause
from propl_monai.images import read_image, to_grey

READER = "propl_monai.data.monai_reader.UltrasoundReader"
GREY = np.arange(12 * 10, dtype=np.uint8).reshape(12, 10)
COLOUR = np.stack([GREY, GREY[::-1], np.full_like(GREY, 7)], axis=2)


def make(folder: Path, name: str) -> str:
    if name == "volume.nii.gz":
        nibabel.save(nibabel.Nifti1Image(GREY.T, np.diag([0.25, 0.5, 1, 1])), folder / name)
    else:
        Image.fromarray(COLOUR if "colour" in name else GREY).save(folder / name)
    return str(folder / name)


def loader(**options: Any) -> Compose:
    load = LoadImaged("image", reader=READER, **options)
    return Compose([load, EnsureChannelFirstd("image"), Transposed("image", indices=[0, 2, 1])])


@pytest.mark.parametrize("name", ["grey.png", "colour.png", "grey.bmp", "volume.nii.gz"])
@pytest.mark.parametrize("grey", [True, False])
def test_load_gives_what_images_reads(tmp_path: Path, name: str, grey: bool) -> None:
    path = make(tmp_path, name)
    expected = read_image(path).pixels
    expected = to_grey(expected)[None] if grey or expected.ndim == 2 else expected.transpose(2, 0, 1)
    image = loader(grey=grey)({"image": path})["image"]
    assert str(image.dtype) == "torch.float32"
    np.testing.assert_array_equal(image.numpy(), expected)


def test_spacing_becomes_the_affine(tmp_path: Path) -> None:
    image = loader()({"image": make(tmp_path, "volume.nii.gz")})["image"]
    assert image.affine.diagonal().tolist() == [0.25, 0.5, 1, 1]  # column first: MONAI's first axis is x
    assert image.meta["spacing_known"] == 1
    assert list(image.meta["spatial_shape"]) == [10, 12]
    image = loader()({"image": make(tmp_path, "grey.png")})["image"]
    assert image.affine.tolist() == np.eye(4).tolist() and image.meta["spacing_known"] == 0


@pytest.mark.parametrize("name", ["still.dcm", "still.mha", "still.mhd", "still.webp"])
def test_other_formats(tmp_path: Path, name: str) -> None:
    if name == "still.dcm":
        save_dicom(tmp_path / name, GREY[None], PixelSpacing=[0.5, 0.25])
    elif name == "still.webp":
        Image.fromarray(GREY).save(tmp_path / name, lossless=True)
    else:
        save_metaimage(tmp_path / name, GREY[None])
    image = loader()({"image": str(tmp_path / name)})["image"]
    np.testing.assert_array_equal(image.numpy(), GREY[None])
    assert image.affine.diagonal().tolist() == ([1, 1, 1, 1] if name == "still.webp" else [0.25, 0.5, 1, 1])


@pytest.mark.parametrize("name", ["grey.png", "colour.png"])
def test_saved_by_monai_stands_upright(tmp_path: Path, name: str) -> None:
    path = make(tmp_path, name)
    image = Compose([LoadImaged("image", reader=READER, grey=False), EnsureChannelFirstd("image")])({"image": path})
    save = SaveImage(
        output_dir=tmp_path, output_ext=".png", output_postfix="saved", separate_folder=False, resample=False,
        scale=None, output_dtype=np.uint8, print_log=False,
    )  # fmt: skip
    save(image["image"])
    saved = tmp_path / f"{Path(path).stem}_saved.png"
    np.testing.assert_array_equal(read_image(saved).pixels, read_image(path).pixels)


def test_masks_are_zero_and_one(tmp_path: Path) -> None:
    Image.fromarray((GREY > 50) * np.uint8(255)).save(tmp_path / "mask.png")
    mask = loader(kind="mask")({"image": str(tmp_path / "mask.png")})["image"]
    np.testing.assert_array_equal(mask.numpy()[0], (GREY > 50).astype(np.float32))


def refusal(load: Compose, image: object) -> ProPLError:
    """The error of ours behind the one that MONAI raises around it."""
    with pytest.raises((RuntimeError, ProPLError)) as caught:
        load({"image": image})
    cause = find_cause(caught.value)
    assert cause is not None
    return cause


def test_refused_files_do_not_reach_the_readers_of_monai(tmp_path: Path) -> None:
    grey = make(tmp_path, "grey.png")  # 120 values: no mask, but PILReader would load it
    assert "holds 120 values" in refusal(loader(kind="mask"), grey).fact
    pages = tmp_path / "pages.tif"
    Image.fromarray(GREY).save(pages, save_all=True, append_images=[Image.fromarray(GREY)])
    assert "2 frames" in refusal(loader(), str(pages)).fact
    assert "2 files are not one picture" in refusal(loader(), [grey, grey]).fact


def test_batches_collate(tmp_path: Path) -> None:
    items = [{"image": make(tmp_path, "grey.png")}, {"image": make(tmp_path, "volume.nii.gz")}]
    batch = next(iter(DataLoader(Dataset(items, loader()), batch_size=2)))
    assert batch["image"].shape == (2, 1, 12, 10)


def test_suffixes_and_kinds() -> None:
    reader = UltrasoundReader()
    assert reader.verify_suffix("a.NII.GZ") and reader.verify_suffix(["a.png", "b.tif"])
    assert reader.verify_suffix(["a.dcm", "a.mhd", "a.webp"])
    assert not reader.verify_suffix("a.avi")
    with pytest.raises(ProPLError, match="did you mean 'mask'"):
        UltrasoundReader(kind="masks")
