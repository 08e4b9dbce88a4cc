"""Views by name: what each does to pixels, how exactly it is undone, and what is counted over several."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from propl_monai.errors import ProPLError
from propl_monai.model.uplc import mean_and_variance
from propl_monai.model.views import VIEWS, View, apply, check_views, covered, look, undo, view_of


def picture(*values: float) -> Tensor:
    return torch.tensor(values).reshape(1, 1, 1, -1)


def test_names() -> None:
    assert view_of("mirror") == View("mirror", 1.0) and view_of("scale 0.85") == View("scale", 0.85)
    assert view_of("gain 2") == View("gain", 2.0)
    assert check_views(list(VIEWS)) == VIEWS


@pytest.mark.parametrize(
    ("names", "fact"),
    [
        (["mirrored"], "unknown view 'mirrored'; did you mean 'mirror'"),
        (["mirror 2"], "'mirror 2' is not a view; write mirror"),
        (["gamma"], "'gamma' is not a view; write gamma 1.2, with a number from 0.25 to 4.0"),
        (["scale 9"], "'scale 9' is not a view"),
        (["gain -1"], "'gain -1' is not a view"),
        (["gain 1", "gain 1.0"], "holds a view twice"),
        (["scale 1.2", "scale 1.1"], "never shows the border of a picture; add 'as-is'"),
        ([], "is not a list of views"),
        ("as-is", "is not a list of views"),
    ],
)
def test_bad_lists_are_refused(names: list[str], fact: str) -> None:
    with pytest.raises(ProPLError, match=fact):
        check_views(names)


def test_grey_levels_by_hand() -> None:
    image = picture(0.0, 0.25, 0.64, 1.0)
    torch.testing.assert_close(apply("gamma 2", image), picture(0.0, 0.0625, 0.4096, 1.0))
    torch.testing.assert_close(apply("gamma 0.5", image), picture(0.0, 0.5, 0.8, 1.0))
    torch.testing.assert_close(apply("gain 2", image), picture(0.0, 0.5, 1.0, 1.0))
    torch.testing.assert_close(apply("gain 0.5", image), picture(0.0, 0.125, 0.32, 0.5))
    assert torch.equal(apply("as-is", image), image)
    assert torch.equal(apply("gamma 0.75", torch.full((1, 1, 4, 4), 0.3)), torch.full((1, 1, 4, 4), 0.3))


@pytest.mark.parametrize("name", [*VIEWS, "gain 1.2"])
def test_a_view_is_the_same_in_every_normalisation_and_leaves_its_input(name: str) -> None:
    torch.manual_seed(0)
    image = torch.rand(3, 1, 16, 12) * torch.tensor([1.0, 0.5, 0.2])[:, None, None, None]
    before = image.clone()
    shown = apply(name, image)
    torch.testing.assert_close(apply(name, (image - 0.449) / 0.226), (shown - 0.449) / 0.226, rtol=0, atol=2e-5)
    assert torch.equal(image, before)
    for number in range(3):  # no picture sees another
        torch.testing.assert_close(apply(name, image[number : number + 1])[0], shown[number])


def test_enlarged_by_two_by_hand() -> None:
    image = torch.arange(16.0).reshape(1, 1, 4, 4)
    # Output pixel 0 lies at -0.75 of the half width, and shows what was at -0.375: row 0.75.
    rows = torch.tensor([0.75, 1.25, 1.75, 2.25])
    torch.testing.assert_close(apply("scale 2", image)[0, 0], 4 * rows[:, None] + rows)
    middle = [False, True, True, False]
    assert covered("scale 2", 4, 4).tolist() == [[False] * 4, middle, middle, [False] * 4]


def test_what_lies_outside_a_shrunken_picture_is_black() -> None:
    image = torch.tensor([[-1.0, 3.0], [3.0, 3.0]]).repeat_interleave(4, 0).repeat_interleave(4, 1)
    shown = apply("scale 0.5", image[None, None])
    assert bool((shown[..., 0, :] == -1).all() and (shown[..., :, 7] == -1).all())
    assert shown[0, 0, 5, 5] == 3


def test_mirror_is_undone_exactly() -> None:
    torch.manual_seed(0)
    image = torch.rand(2, 1, 5, 7)
    assert torch.equal(undo("mirror", apply("mirror", image)), image)
    assert not torch.equal(apply("mirror", image), image)


@pytest.mark.parametrize("name", ["scale 0.85", "scale 1.15", "scale 0.5", "scale 2"])
def test_scale_is_undone_where_maps_are_linear(name: str) -> None:
    """Bilinear interpolation is exact there, but for a pixel at the border of what was seen."""
    rows, columns = torch.meshgrid(torch.linspace(-1, 1, 40), torch.linspace(-1, 1, 30), indexing="ij")
    maps = (0.3 * rows + 0.2 * columns + 0.5)[None, None]
    back = undo(name, apply(name, maps))
    inside = torch.nn.functional.pad(covered(name, 40, 30)[3:-3, 3:-3], (3, 3, 3, 3))
    inside &= inside.roll(1, 0) & inside.roll(-1, 0) & inside.roll(1, 1) & inside.roll(-1, 1)
    torch.testing.assert_close(back[0, 0][inside], maps[0, 0][inside], rtol=0, atol=1e-5)
    flat = torch.full_like(maps, 0.25)
    torch.testing.assert_close(undo(name, flat), flat, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["as-is", "mirror", "gamma 1.3", "gain 0.8", "scale 0.85"])
def test_only_enlarging_hides_pixels(name: str) -> None:
    assert bool(covered(name, 9, 12).all())
    # 20 pixels at 1.15: the outermost lies at 0.95 · 1.15 = 1.09, the next at 0.85 · 1.15 = 0.98.
    assert covered("scale 1.15", 20, 20)[10].tolist() == [False] + [True] * 18 + [False]


def answers(*maps: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda shown: torch.cat(maps)


def test_two_views_by_hand() -> None:
    image = torch.zeros(1, 1, 1, 4)
    # The mirrored view's map is turned back: 0.2, 0.9, 0.8, 0.
    seen = look(answers(picture(0.6, 0.9, 0.2, 0.0), picture(0.0, 0.8, 0.9, 0.2)), image, ["as-is", "mirror"])
    torch.testing.assert_close(seen.mean, picture(0.4, 0.9, 0.5, 0.0))
    torch.testing.assert_close(seen.variance, picture(0.04, 0.0, 0.09, 0.0))
    # Masks: {0, 1}, {1, 2}, and {1} of the mean: Dice 2/3 twice.
    torch.testing.assert_close(seen.agreement, torch.tensor([2 / 3]))


def test_a_pixel_counts_where_it_is_seen() -> None:
    first, second = torch.full((2, 1, 20, 20), 0.2), torch.full((2, 1, 20, 20), 0.6)
    seen = look(answers(first, second), torch.zeros(2, 1, 20, 20), ["as-is", "scale 1.15"])
    for index, mean, variance in (((0, 0), 0.2, 0.0), ((10, 10), 0.4, 0.04)):
        assert seen.mean[1, 0][index].item() == pytest.approx(mean)
        assert seen.variance[1, 0][index].item() == pytest.approx(variance, abs=1e-7)


def test_mean_and_variance_are_those_of_uplc_where_all_is_seen() -> None:
    torch.manual_seed(0)
    image, names = torch.rand(3, 1, 8, 8), ["as-is", "mirror", "gamma 1.3", "gain 0.8"]
    seen = look(lambda shown: shown.square(), image, names)
    mean, variance = mean_and_variance([undo(name, apply(name, image).square()) for name in names])
    torch.testing.assert_close(seen.mean, mean)
    torch.testing.assert_close(seen.variance, variance)


@pytest.mark.parametrize(
    ("first", "second", "agreement"),
    [(0.0, 0.0, 1.0), (1.0, 1.0, 1.0), (1.0, 0.0, 0.5), (1.0, 0.2, 0.5)],
    ids=["both empty", "equal", "the mean is empty", "the mean is full"],
)
def test_agreement_of_whole_masks(first: float, second: float, agreement: float) -> None:
    ones = torch.ones(1, 1, 2, 2)
    seen = look(answers(first * ones, second * ones), ones, ["as-is", "mirror"])
    assert seen.agreement.item() == agreement


def test_pictures_first_then_views() -> None:
    """Each picture keeps its own maps: the order of the batch is that of the prompts."""
    image = torch.tensor([1.0, 2.0])[:, None, None, None].expand(2, 1, 4, 4)
    asked: list[Tensor] = []

    def predict(shown: Tensor) -> Tensor:
        asked.append(shown[:, 0, 0, 0])
        return shown / 10

    seen = look(predict, image, ["as-is", "mirror", "gamma 1.3"])
    assert asked[0].tolist() == [1, 2, 1, 2, 1, 2]
    torch.testing.assert_close(seen.mean[:, 0, 0, 0], torch.tensor([0.1, 0.2]))
