"""The border is cut before the grid, in every pipeline; masks come back to the pixel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from propl_monai.data import transforms
from propl_monai.data.grid import to_grid
from propl_monai.data.sector_crop import CropSectord
from propl_monai.inference.postprocess import OUTSIDE, RestoreSized

HEIGHT, WIDTH, BOX = 200, 260, (40, 60, 170, 210)


@pytest.fixture
def item(tmp_path: Path) -> dict[str, Any]:
    """A bordered scan of columns that get brighter, whose right half is the target."""
    top, left, bottom, right = BOX
    pixels, mask = np.zeros((HEIGHT, WIDTH), np.uint8), np.zeros((HEIGHT, WIDTH), np.uint8)
    pixels[top:bottom, left:right] = np.linspace(60, 250, right - left).astype(np.uint8)
    mask[top:bottom, (left + right) // 2 : right] = 255
    Image.fromarray(pixels).save(tmp_path / "image.png")
    Image.fromarray(mask).save(tmp_path / "mask.png")
    return {"image": str(tmp_path / "image.png"), "label": str(tmp_path / "mask.png"), "task": "fetal head"}


def test_image_and_mask_are_cut_alike_and_the_box_is_kept(item: dict[str, Any]) -> None:
    loaded = transforms.Compose(transforms.load())(item)
    cut = CropSectord(("image", "label"))(loaded)
    assert cut["original_size"] == (HEIGHT, WIDTH)
    assert cut["sector_box"] == pytest.approx(BOX, abs=4)
    top, left, bottom, right = cut["sector_box"]
    assert torch.equal(torch.as_tensor(cut["image"]), torch.as_tensor(loaded["image"])[:, top:bottom, left:right])
    assert torch.equal(torch.as_tensor(cut["label"]), torch.as_tensor(loaded["label"])[:, top:bottom, left:right])


def test_training_validation_evaluation_and_inference_see_the_same(item: dict[str, Any]) -> None:
    size = (32, 32)
    views = {
        "training": transforms.training(size, "half", "none", crop_sector=True)(item),
        "unlabelled": transforms.TrainingViews(size, "half", "none", crop_sector=True).unlabelled(item),
        "validation": transforms.validation(size, "half", crop_sector=True)(item),
        "evaluation": transforms.evaluation(size, "half", crop_sector=True)(item),
        "inference": transforms.inference(size, "half", crop_sector=True)({"image": item["image"]}),
    }
    seen = {name: torch.as_tensor(view["image"]).as_subclass(torch.Tensor) for name, view in views.items()}
    for name, image in seen.items():
        assert torch.allclose(image, seen["training"]), name
    assert (seen["training"][0, :, 2] > -0.7).all()  # no black border is left
    plain = transforms.validation(size, "half")(item)["image"]
    assert (torch.as_tensor(plain)[0, :, 2] == -1).all()
    label = torch.as_tensor(views["training"]["label"])
    assert 0.4 < float(label.mean()) < 0.55
    assert views["evaluation"]["label"].shape == (1, HEIGHT, WIDTH)  # metrics are taken on the whole picture


def test_maps_come_back_into_place(item: dict[str, Any]) -> None:
    view = transforms.evaluation((130, 150), "half", crop_sector=True)(item)
    top, left, bottom, right = view["sector_box"]
    mask = torch.as_tensor(view["label"])[:, top:bottom, left:right].float()
    maps = (to_grid(mask * 255, (bottom - top, right - left)).float() / 255 - 0.5) * 8
    restored = RestoreSized("pred")({**view, "pred": maps})["pred"]
    assert restored.shape == (1, HEIGHT, WIDTH)
    assert torch.equal(restored > 0, torch.as_tensor(view["label"]).as_subclass(torch.Tensor) > 0)
    outside = torch.ones(1, HEIGHT, WIDTH, dtype=torch.bool)
    outside[:, top:bottom, left:right] = False
    assert (restored[outside] == OUTSIDE).all()


def test_the_default_is_as_it_was(item: dict[str, Any]) -> None:
    assert "sector_box" not in transforms.evaluation((32, 32), "half")(item)
    assert transforms.crop(("image",), False) == []
