"""The head of methods that compare positions: one vector per position of v2, from all four maps."""

from __future__ import annotations

import torch

from propl_monai.model.encoder import Features
from propl_monai.training.feature_head import FeatureHead

WIDTHS = (4, 6, 8, 10)


def features() -> Features:
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(2, width, 16 >> k, 24 >> k, generator=generator) for k, width in enumerate(WIDTHS)]
    return Features(*maps, 64, 96)


def test_every_map_has_a_say() -> None:
    torch.manual_seed(0)
    head, given = FeatureHead(WIDTHS, 5), features()
    found = head(given)
    assert found.shape == (2, 5, 8, 12)
    for key in ("v1", "v2", "v3", "v4"):
        assert not torch.equal(head(given._replace(**{key: torch.zeros_like(getattr(given, key))})), found)


def test_images_of_a_batch_do_not_mix() -> None:
    head, given = FeatureHead(WIDTHS, 5).train(), features()
    torch.testing.assert_close(head(given.changed(lambda maps: maps[1:])), head(given)[1:])
