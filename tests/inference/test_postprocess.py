"""Maps back to the size of the picture, and the masks and probabilities made from them."""

from __future__ import annotations

import torch

from propl_monai.inference import postprocess


def test_restore_is_centred() -> None:
    """Doubling [0 1]: pixel centres fall at -1/4, 1/4, 3/4, 5/4 of the input's, clamped to the first and last."""
    maps = torch.tensor([[[0.0, 1.0], [0.0, 1.0]]])
    result = postprocess.RestoreSized("pred")({"pred": maps, "original_size": [torch.tensor(2), torch.tensor(4)]})
    assert result["pred"][0].tolist() == [[0.0, 0.25, 0.75, 1.0]] * 2


def test_probabilities_are_split_from_variances() -> None:
    maps = torch.tensor([0.0, 100.0, 0.1, 0.2]).reshape(4, 1, 1)
    result = postprocess.Probabilitiesd("pred", 2)({"pred": maps})
    assert result["probability"].flatten().tolist() == [0.5, 1.0]
    assert torch.equal(result["uncertainty"], maps[2:]) and torch.equal(result["pred"], maps[:2])
    assert "uncertainty" not in postprocess.Probabilitiesd("pred", 2)({"pred": maps[:2]})


def test_viewers_get_the_first_mask_with_x_first() -> None:
    probability = torch.tensor([[[0.4, 0.5, 0.6], [0.9, 0.0, 1.0]], [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]])
    result = postprocess.ViewerMask()({"pred": torch.zeros(2, 2, 3), "probability": probability})
    assert result["pred"].dtype == torch.uint8
    assert result["pred"].tolist() == [[0, 1], [0, 0], [1, 1]]
    assert torch.equal(result["probability"], probability)
