"""The picture of the README: plain pictures in the first column, and the masks that the network gave beside them."""

from __future__ import annotations

import importlib.util
from types import ModuleType

import numpy as np
import pytest
from factories import ROOT, small_predictor

import propl_monai
from propl_monai.datasets.phantoms.phantom import ANATOMIES, make_phantom
from propl_monai.inference.predictor import Predictor

SCRIPT = ROOT / "benchmarks" / "picture.py"


@pytest.fixture(scope="module")
def picture() -> ModuleType:
    spec = importlib.util.spec_from_file_location("picture", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_task_has_a_tile_with_its_mask(picture: ModuleType) -> None:
    predictor = small_predictor()
    pixels = np.asarray(picture.draw(predictor)).astype(int)
    size, gap = picture.TILE, picture.GAP
    for row, (anatomy, names) in enumerate(reversed(ANATOMIES.items())):
        top = picture.HEAD + row * (picture.NAME + size + gap) + picture.NAME
        tiles = [pixels[top : top + size, gap + column * (size + gap) :][:, :size] for column in range(len(names) + 1)]
        tinted = [float((np.ptp(tile, axis=2) > 8).mean()) for tile in tiles]
        assert tinted[0] == 0 and tiles[0].std() > 20
        image = make_phantom(anatomy, 0, 0, 192, picture.UNSEEN).image
        for share, found, name in zip(tinted[1:], predictor(image, list(names)), names, strict=True):
            assert name == found.task
            # The line around a mask lies outside it; a grey tint colours nothing.
            assert share == pytest.approx(0 if name == "thyroid nodule" else found.mask.mean(), abs=0.05)


def test_the_first_things_that_a_python_user_wants_are_at_the_top() -> None:
    assert propl_monai.Predictor is Predictor
    assert {"Predictor", "Prediction", "read_image", "read_frames", "measure"} <= set(propl_monai.__all__)
