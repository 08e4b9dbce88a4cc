"""Pipelines from file to network and back: upright, aligned, reproducible, compact in the cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.transforms import Compose
from PIL import Image
from torch import Tensor

from propl_monai.data import transforms
from propl_monai.data.loaders import DrawnDataset
from propl_monai.errors import ProPLError, find_cause
from propl_monai.inference import postprocess

SIZE = (32, 32)


def save(path: Path, pixels: np.ndarray) -> str:
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    return str(path)


def dice(first: Any, second: Any) -> float:
    first, second = torch.as_tensor(first) > 0.5, torch.as_tensor(second) > 0.5
    return float(2 * (first & second).sum() / (first.sum() + second.sum()))


def ellipse(height: int, width: int, row: float, column: float, down: float, across: float) -> np.ndarray:
    """A mask whose centre and half axes are shares of height and width."""
    rows, columns = np.mgrid[:height, :width] + 0.5
    return ((rows / height - row) / down) ** 2 + ((columns / width - column) / across) ** 2 <= 1


@pytest.fixture
def item(tmp_path: Path) -> dict[str, Any]:
    """A picture that is its own mask: whatever moves one must move the other alike."""
    mask = ellipse(90, 130, 0.4, 0.6, 0.2, 0.3) * 255
    files = {"image": save(tmp_path / "image.png", mask), "label": save(tmp_path / "mask.png", mask)}
    return {**files, "task": "left atrium", "case_id": "LA/A/1"}


def drawn(pipeline: Compose, item: dict[str, Any], seed: int) -> dict[str, Any]:
    pipeline.set_random_state(seed=seed)
    result = pipeline(dict(item))
    assert isinstance(result, dict)
    return result


def test_load_gives_upright_pixels_and_an_aligned_mask(tmp_path: Path) -> None:
    pixels = np.arange(5 * 7).reshape(5, 7) * 7
    mask = np.zeros((5, 7))
    mask[0, 6] = mask[4, 1] = 255
    loaded: Any = Compose(transforms.load())(
        {"image": save(tmp_path / "a.png", pixels), "label": save(tmp_path / "m.png", mask)}
    )
    assert loaded["image"].shape == loaded["label"].shape == (1, 5, 7)
    assert np.array_equal(np.asarray(loaded["image"])[0], pixels)
    assert np.array_equal(np.asarray(loaded["label"])[0], mask / 255)


def test_to_grid_by_hand() -> None:
    """Halving [0 0 0 0 200 200 200 200]: a triangle of radius 2 has the weights 1/8 3/8 3/8 1/8, so 25 and 175."""
    step = torch.tensor([0.0] * 4 + [200.0] * 4).expand(1, 8, 8)
    result = transforms.ToGridd(("image", "label"), (4, 4))({"image": step, "label": (step > 0).float()})
    assert result["image"].dtype == torch.uint8 and result["label"].dtype == torch.bool
    assert result["image"][0].tolist() == [[0, 25, 175, 200]] * 4
    assert result["label"][0].tolist() == [[False, False, True, True]] * 4
    assert result["original_size"] == (8, 8)


def test_to_grid_keeps_the_original_size_and_neither_overflows_nor_needs_a_mask() -> None:
    sharp = torch.zeros(1, 9, 30)
    sharp[..., ::2] = 255
    result = transforms.ToGridd(("image", "label"), (18, 5), allow_missing_keys=True)({"image": sharp})
    assert result["image"].shape == (1, 18, 5) and result["original_size"] == (9, 30)
    assert set(result) == {"image", "original_size"}
    assert 100 < result["image"].float().mean() < 155  # a wrapped 256 would be 0


@pytest.mark.parametrize("size", [(301, 457), (97, 143), (643, 211), (223, 225), (57, 61)])
def test_round_trip_to_the_grid_and_back(size: tuple[int, int]) -> None:
    mask = torch.as_tensor(ellipse(*size, 0.45, 0.55, 0.25, 0.2)).float()[None]
    assert mask.sum() > 400
    there = transforms.ToGridd("label", (224, 224))({"label": mask})
    logits = there["label"].float() * 20 - 10
    back = postprocess.RestoreSized("pred")({"pred": logits, "original_size": there["original_size"]})
    assert back["pred"].shape == mask.shape
    assert dice(back["pred"] > 0, mask) >= 0.98


@pytest.mark.parametrize("augmentation", ["paper", "released"])
def test_a_view_is_a_function_of_its_seed(item: dict[str, Any], augmentation: str) -> None:
    pipeline = transforms.training(SIZE, "half", augmentation, photometric=0.5, strong_view=0.5)
    first, again, other = drawn(pipeline, item, 1), drawn(pipeline, item, 1), drawn(pipeline, item, 2)
    for key in ("image", "image_strong", "label"):
        assert torch.equal(first[key], again[key]), key
    assert not torch.equal(first["image"], other["image"])
    assert not torch.equal(first["image_strong"], other["image_strong"])


def test_image_and_mask_move_together(item: dict[str, Any]) -> None:
    still = drawn(transforms.training((96, 96), "half", "none"), item, 0)
    pipeline = transforms.training((96, 96), "half", "paper", rotation_degrees=30)
    moved = [drawn(pipeline, item, seed) for seed in range(8)]
    assert min(dice(view["image"] > 0, view["label"]) for view in moved) > 0.97
    assert min(dice(view["label"], still["label"]) for view in moved) < 0.9  # they did move
    assert all(set(view["label"].unique().tolist()) == {0.0, 1.0} for view in moved)


def test_released_zoom_moves_image_and_mask_together(item: dict[str, Any]) -> None:
    pipeline = transforms.training((96, 96), "half", "released")
    views = [drawn(pipeline, item, seed) for seed in range(40)]
    areas = {float(view["label"].sum()) for view in views}
    assert 2 <= len(areas) <= 15  # one in ten is zoomed, the others are as they were
    assert min(dice(view["image"] > 0, view["label"]) for view in views) > 0.97


def test_flip_mirrors_image_and_mask_left_to_right_and_only_so(item: dict[str, Any]) -> None:
    still = drawn(transforms.training(SIZE, "half", "none"), item, 0)
    mirrored = drawn(transforms.training(SIZE, "half", "none", flip=1.0, strong_view=0.5), item, 0)
    for key in ("image", "label"):
        assert torch.equal(mirrored[key], still[key].flip(-1)) and not torch.equal(mirrored[key], still[key]), key
    sometimes = [drawn(transforms.training(SIZE, "half", "none", flip=0.5), item, seed) for seed in range(16)]
    assert 2 <= sum(torch.equal(view["image"], still["image"]) for view in sometimes) <= 14


def test_strong_view_has_the_geometry_of_the_image(item: dict[str, Any]) -> None:
    pipeline = transforms.training((96, 96), "half", "paper", strong_view=0.5)

    def shape(view: Tensor) -> Tensor:
        return view > (view.quantile(0.02) + view.quantile(0.98)) / 2

    views = [drawn(pipeline, item, seed) for seed in range(6)]
    assert min(dice(shape(view["image_strong"]), shape(view["image"])) for view in views) > 0.95
    assert dice(shape(views[0]["image_strong"]), shape(views[1]["image"])) < 0.95
    assert all(not torch.equal(view["image"], view["image_strong"]) for view in views)


def test_unlabelled_items_pass_every_step(item: dict[str, Any]) -> None:
    del item["label"]
    for augmentation in transforms.AUGMENTATIONS:
        view = drawn(transforms.training(SIZE, "half", augmentation, photometric=1, strong_view=1), item, 0)
        assert set(view) == {"image", "image_strong", "task", "case_id"}
        assert type(view["image"]) is Tensor and view["image"].shape == (1, *SIZE)
        assert view["image"].dtype == torch.float32


def test_photometric_strength(item: dict[str, Any]) -> None:
    still = drawn(transforms.training(SIZE, "half", "none"), item, 0)
    zero = drawn(transforms.training(SIZE, "half", "none", photometric=0.0), item, 5)
    assert torch.equal(zero["image"], still["image"]) and set(zero) == {"image", "label", "task", "case_id"}
    pipeline = transforms.training(SIZE, "half", "none", photometric=1.0)
    changed = [drawn(pipeline, item, seed) for seed in range(5)]
    assert any(not torch.equal(view["image"], still["image"]) for view in changed)
    assert all(torch.equal(view["label"], still["label"]) for view in changed)


@pytest.mark.parametrize("option", ["photometric", "strong_view"])
@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan")])
def test_bad_strength_is_refused(option: str, strength: float) -> None:
    with pytest.raises(ProPLError, match="outside 0…1; give a number from 0"):
        transforms.training(SIZE, "half", **{option: strength})  # type: ignore[arg-type]


def test_normalisations() -> None:
    image = torch.tensor([[[0.0, 0.5], [0.5, 1.0]]])
    made = {kind: transforms.Normalised("image", kind)({"image": image})["image"] for kind in transforms.NORMALISATIONS}
    assert made["half"].flatten().tolist() == [-1.0, 0.0, 0.0, 1.0]
    assert made["imagenet"][0, 1, 1].item() == pytest.approx((1 - 0.449) / 0.226, abs=1e-6)
    assert made["z-score"].mean().item() == pytest.approx(0, abs=1e-6)
    assert made["z-score"].std().item() == pytest.approx(1, abs=1e-6)
    flat = transforms.Normalised("image", "z-score")({"image": torch.full((1, 4, 4), 0.3)})["image"]
    assert flat.abs().max().item() < 1e-4  # no division by the deviation 0


def test_unknown_names_are_refused_with_the_nearest() -> None:
    with pytest.raises(ProPLError, match="unknown normalisation 'imagnet'; did you mean 'imagenet'"):
        transforms.Normalised("image", "imagnet")
    with pytest.raises(ProPLError, match="unknown augmentation 'papr'; did you mean 'paper'"):
        transforms.training(SIZE, "half", "papr")


def test_the_cache_is_compact(item: dict[str, Any]) -> None:
    unlabelled = {key: value for key, value in item.items() if key != "label"}
    pipeline = transforms.training(SIZE, "half", photometric=0.5, strong_view=0.5)
    for cached in DrawnDataset([item, unlabelled], pipeline)._cache:
        assert cached["image"].dtype == torch.uint8 and cached["image"].shape == (1, *SIZE)
        assert "label" not in cached or cached["label"].dtype == torch.bool
        assert "image_strong" not in cached


def test_fresh_views_leave_the_cache_alone(item: dict[str, Any]) -> None:
    data = DrawnDataset([item], transforms.training(SIZE, "half", photometric=1.0, strong_view=1.0))
    before = data._cache[0]["image"].clone()
    views = [data[0, seed]["image"] for seed in range(4)]
    assert torch.equal(data._cache[0]["image"], before)
    assert torch.equal(data[0, 0]["image"], views[0]) and not torch.equal(views[0], views[1])


def test_validation_has_both_on_the_grid_and_nothing_random(item: dict[str, Any]) -> None:
    pipeline = transforms.validation(SIZE, "half")
    first, again = drawn(pipeline, item, 1), drawn(pipeline, item, 2)
    assert set(first) == {"image", "label", "task", "case_id"}
    assert first["image"].shape == first["label"].shape == (1, *SIZE)
    assert torch.equal(first["image"], again["image"])
    assert first["image"].min() == -1 and first["image"].max() == 1


def test_evaluation_keeps_the_mask_at_its_own_size(item: dict[str, Any]) -> None:
    item["pixel_spacing_mm"] = [0.5, 0.5]
    result = drawn(transforms.evaluation(SIZE, "half"), item, 0)
    assert result["image"].shape == (1, *SIZE) and result["label"].shape == (1, 90, 130)
    assert result["original_size"] == (90, 130) and result["pixel_spacing_mm"] == [0.5, 0.5]


def test_inference_needs_the_image_alone(item: dict[str, Any]) -> None:
    result = drawn(transforms.inference(SIZE, "half"), {"image": item["image"], "name": "a"}, 0)
    assert result["image"].shape == (1, *SIZE) and result["original_size"] == (90, 130) and result["name"] == "a"


def test_a_bad_file_is_named_through_monais_wrapping(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("not a picture")
    with pytest.raises(RuntimeError) as caught:
        transforms.inference(SIZE, "half")({"image": str(tmp_path / "a.png")})
    cause = find_cause(caught.value)
    assert cause is not None and "a.png" in cause.where and "plain text" in str(cause)


def test_items_without_names_get_them() -> None:
    item = {"image": "a/b.png"}
    assert transforms.Named("fetal head")(item) == {"image": "a/b.png", "case_id": "a/b.png", "task": "fetal head"}
    assert transforms.Named()(item) == {"image": "a/b.png", "case_id": "a/b.png"}
    own = {"image": "a/b.png", "case_id": "7", "task": "left atrium"}
    assert transforms.Named("fetal head")(own) == own


@pytest.mark.parametrize("augmentation", ["paper", "released", "none"])
def test_pseudo_labels_move_with_their_image(item: dict[str, Any], augmentation: str) -> None:
    """The picture is its own pseudo-label, and the certainty its negative; only geometry acts on them."""
    data = DrawnDataset([item], transforms.training((96, 96), "half", augmentation, flip=0.5, strong_view=1.0))
    levels = ((data.still(0)["image"] + 1) * 127.5).round().to(torch.uint8)
    data.add(0, {"pseudo_label": levels, "certainty": 255 - levels, "picture_weight": torch.tensor(1.0)})
    for seed in range(4):
        view = data[0, seed]
        torch.testing.assert_close(view["pseudo_label"].float() / 127.5 - 1, view["image"], rtol=0, atol=0.02)
        inside = (view["pseudo_label"] + view["certainty"].float()) > 254
        assert inside.float().mean() > 0.6 and type(view["certainty"]) is Tensor
        # Outside the picture, which only a smaller scale or a rotation shows, nothing is certain.
        assert bool(inside.all()) or augmentation == "paper"


def test_cutout_hides_a_box_of_the_view_that_photometric_changes_act_on(item: dict[str, Any]) -> None:
    item["image"] = save(Path(item["image"]).with_name("white.png"), np.full((90, 130), 255))
    views = transforms.TrainingViews((40, 40), "half", "none", strong_view=1e-6, cutout=1.0)
    hidden = (drawn(views, item, 0)["image"] == -1).float()
    assert 0.0025 <= hidden.mean() <= 0.16 and hidden[0].any(0).sum() * hidden[0].any(1).sum() == hidden.sum()
    unlabelled = drawn(views.unlabelled, {key: value for key, value in item.items() if key != "label"}, 0)
    assert (unlabelled["image"] == 1).all() and 0 < (unlabelled["image_strong"] == -1).float().mean() <= 0.16


@pytest.mark.parametrize("kind", ["photometric", "random"])
def test_a_second_strong_view_has_changes_of_its_own(item: dict[str, Any], kind: str) -> None:
    options: dict[str, Any] = {"strong_view": 1.0, "cutout": 1.0, "strong_kind": kind}
    one, two = (transforms.training(SIZE, "half", "none", **options, strong_views=count) for count in (1, 2))
    assert "image_strong_2" not in drawn(one, item, 0)
    seen = [drawn(two, item, seed) for seed in range(3)]
    assert all(view["image_strong_2"].shape == view["image"].shape for view in seen)
    assert all(not torch.equal(view["image_strong"], view["image_strong_2"]) for view in seen)
    with pytest.raises(ProPLError, match="strong_views: 3 is neither 1 nor 2"):
        transforms.training(SIZE, "half", strong_views=3)


def test_pictures_of_some_tasks_are_transposed_every_other_time() -> None:
    turn = transforms.RandTransposed(("image", "label"), ["left atrium"])
    turn.set_random_state(0)
    picture = torch.arange(16.0).reshape(1, 4, 4)
    for task, wanted in (("left atrium", {True, False}), ("fetal head", {False})):
        items = [turn({"image": picture, "label": picture, "task": task}) for _ in range(20)]
        assert all(torch.equal(one["image"], one["label"]) for one in items)
        assert {torch.equal(one["image"], picture.transpose(1, 2)) for one in items} == wanted


def test_only_a_square_grid_can_be_transposed() -> None:
    with pytest.raises(ProPLError, match="not square"):
        transforms.training((32, 64), "half", transposed_tasks=["LA"])
