"""The dynamic head, used by two networks: the convolutions that it stands for, and one set of weights per image."""

from __future__ import annotations

import torch
from torch.nn import functional

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
