"""The dynamic head, used by two networks: the convolutions that it stands for, and one set of weights per image."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional
from worked import wave

from propl_monai.model.networks.dynamic_head import COUNT, DynamicDecoder, dynamic_head


def test_it_equals_the_convolutions_of_each_image() -> None:
    """The originals reshape the batch into groups, or loop over samples and classes."""
    torch.manual_seed(0)
    maps, parameters = torch.randn(3, 8, 5, 7), torch.randn(3, COUNT)
    assert COUNT == 153
    found = dynamic_head(maps, parameters)
    for image, own, logits in zip(maps, parameters, found, strict=True):
        first, second, third = own.split((72, 72, 9))
        hidden = functional.conv2d(image[None], first[:64].reshape(8, 8, 1, 1), first[64:]).relu()
        hidden = functional.conv2d(hidden, second[:64].reshape(8, 8, 1, 1), second[64:]).relu()
        expected = functional.conv2d(hidden, third[:8].reshape(1, 8, 1, 1), third[8:])
        torch.testing.assert_close(logits[None], expected, rtol=1e-4, atol=1e-4)


def test_the_controller_sees_image_and_wish() -> None:
    decoder = DynamicDecoder((8, 8, 8, 16), 4, "light")
    assert decoder.controller.in_features == 20 and decoder.controller.out_features == COUNT


def interleaved(parameters: torch.Tensor, weights: tuple[int, ...], biases: tuple[int, ...]) -> list[torch.Tensor]:
    """What released codes write as all weights and then all biases, as weights and biases of each layer."""
    parts = parameters.split([*weights, *biases], 1)
    return [part for pair in zip(parts[: len(weights)], parts[len(weights) :], strict=True) for part in pair]


def test_the_numbers_of_the_released_codes() -> None:
    """ljwztc/CLIP-Driven-Universal-Model at 43c1239; jianpengz/DoDNet at f06ce1b (organ, the first of its two outputs);
    maxwell0027/VerSemi at e331a7b (two classes of the organ: the probability of the second)."""
    maps = wave(2, 8, 1, 3)
    clip = torch.cat(interleaved(wave(2, 153, phase=1), (64, 64, 8), (8, 8, 1)), 1)
    expected = [-1.768596, 0.063964, -0.205381, -0.673466, -0.396979, -0.592927]
    assert dynamic_head(maps, clip).flatten().tolist() == pytest.approx(expected, abs=1e-5)

    *hidden, weight, bias = interleaved(wave(2, 162, phase=1), (64, 64, 16), (8, 8, 2))
    dodnet = torch.cat([*hidden, weight[:, :8], bias[:, :1]], 1)
    expected = [-2.669260, -4.911908, -1.629121, -7.146994, 1.248778, -9.657236]
    assert dynamic_head(maps, dodnet).flatten().tolist() == pytest.approx(expected, abs=1e-5)

    *hidden, weight, bias, _, _ = interleaved(wave(2, 180, phase=1), (64, 64, 16, 16), (8, 8, 2, 2))
    versemi = torch.cat([*hidden, weight[:, 8:] - weight[:, :8], bias[:, 1:] - bias[:, :1]], 1)
    expected = [0.958645, 0.768669, 0.454786, 0.993778, 0.348114, 0.985014]
    assert dynamic_head(maps, versemi).sigmoid().flatten().tolist() == pytest.approx(expected, abs=1e-5)
