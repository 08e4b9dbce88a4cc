"""A small predictor and pictures for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from factories import small_predictor, speckle
from picture_samples import save_nifti
from PIL import Image

from propl_monai.inference.predictor import Predictor


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return small_predictor(batch=2)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Two stills and a cine of three frames, in two folders."""
    folder = tmp_path / "in"
    (folder / "deep er").mkdir(parents=True)
    Image.fromarray(speckle(20, 31)).save(folder / "a.png")
    Image.fromarray(speckle(25, 18, 1, colour=True)).save(folder / "deep er" / "b (1).bmp")
    save_nifti(folder / "cine.nii.gz", np.stack([speckle(16, 22, seed) for seed in (2, 3, 4)]), seconds=0.04)
    return folder
