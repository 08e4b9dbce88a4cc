"""The head of methods that compare positions: one vector per position of v2, from all four maps."""

from __future__ import annotations

import torch

from propl_monai.model.encoder import Features
from propl_monai.training.feature_head import FeatureHead, MemoryBank

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


def test_a_bank_forgets_the_oldest_and_comes_back() -> None:
    bank = MemoryBank(2, 3, 1)
    assert len(bank.of(0)) == 0
    bank.push(0, torch.tensor([[1.0], [2.0]]))
    bank.push(0, torch.tensor([[3.0], [4.0]]))
    assert sorted(bank.of(0).flatten().tolist()) == [2, 3, 4] and len(bank.of(1)) == 0
    bank.push(1, torch.arange(5.0)[:, None])
    assert sorted(bank.of(1).flatten().tolist()) == [2, 3, 4]
    other = MemoryBank(2, 3, 1)
    other.load_state_dict(bank.state_dict())
    for one in (bank, other):
        one.push(0, torch.tensor([[9.0]]))
    assert torch.equal(bank.of(0), other.of(0)) and sorted(bank.of(0).flatten().tolist()) == [3, 4, 9]
