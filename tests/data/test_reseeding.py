"""Seeds item by item: the draws of MONAI's own way."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from monai.transforms.compose import Compose, OneOf
from monai.transforms.intensity.array import RandGaussianNoise, RandScaleIntensity
from monai.transforms.transform import Randomizable

from propl_monai.data.reseeding import Reseeder
from propl_monai.data.transforms import training

EVERYTHING = training(
    (32, 32), "half", flip=0.5, photometric=1.0, strong_view=1.0, strong_views=2, cutout=0.5, transposed_tasks=["LA"]
)
RELEASED = training((32, 32), "half", augmentation="released", strong_view=1.0, strong_kind="random")


def draws(compose: Compose) -> list[float]:
    """The next draw of every generator below a transform."""
    found, seen = [], set()

    def visit(value: Any) -> None:
        if isinstance(value, Randomizable) and id(value) not in seen:
            seen.add(id(value))
            found.append(float(value.R.random_sample()))
            visit(vars(value))
        elif isinstance(value, dict):
            visit(list(value.values()))
        elif isinstance(value, list | tuple):
            for one in value:
                visit(one)

    visit(compose)
    return found


@pytest.mark.parametrize("compose", [EVERYTHING, RELEASED], ids=["everything", "released"])
def test_draws_are_those_of_monai(compose: Compose) -> None:
    reseed = Reseeder(compose)
    for seed in (3, 2**32 + 5, 3):
        compose.set_random_state(seed=seed)
        wanted = draws(compose)
        reseed(seed)
        assert draws(compose) == wanted and len(wanted) >= 4
        reseed(seed + 1)
        assert draws(compose) != wanted
        reseed(seed)
        assert draws(compose) == wanted


def test_a_compose_in_a_step_draws_its_own_seeds() -> None:
    inner = OneOf([RandGaussianNoise(prob=0.5), RandScaleIntensity(0.5, prob=0.5)])
    compose, picture = Compose([inner, RandGaussianNoise(prob=0.5)]), torch.ones(1, 4, 4)
    reseed = Reseeder(compose)
    for seed in range(8):
        compose.set_random_state(seed=seed)
        wanted = compose(picture)
        reseed(seed)
        np.testing.assert_array_equal(compose(picture), wanted)
