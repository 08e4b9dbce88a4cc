"""FiLM: starts as the network without it, acts in every block, and keeps apart what threads and copies do."""

from __future__ import annotations

import copy
import re
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from factories import TINY_ENCODER

from propl_monai.errors import ProPLError
from propl_monai.model.encoder import VisionEncoder
from propl_monai.model.networks import film as film_module
from propl_monai.model.networks.film import Film, residual_blocks

IMAGE = torch.rand(2, 1, 64, 64)
TASKS = ["left atrium", "fetal head"]


@pytest.fixture
def film() -> Film:
    torch.manual_seed(0)
    return Film(TINY_ENCODER).eval()


def moved(film: Film) -> Film:
    """With maps that are no longer 0."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in film.film.parameters():
            parameter.normal_(0, 0.1)
    return film


def test_at_the_start_the_task_changes_nothing(film: Film) -> None:
    with torch.no_grad():
        features = film.features(IMAGE, TASKS)
        plain = film.encoder(IMAGE)
    assert all(map(torch.equal, features[:4], plain[:4]))


def test_scale_and_shift_of_a_block_by_hand(film: Film) -> None:
    """Of the last block, the only one that is not the identity: v4 · (1 + γ) + β, of each image's own task."""
    moved(film)
    with torch.no_grad():
        for one in film.film.maps[:-1]:
            for parameter in one.parameters():
                parameter.zero_()
        found, plain = film.features(IMAGE, TASKS), film.encoder(IMAGE)
        text = film.text(TASKS, 2).mean(1)
        text = (text - text.mean(1, keepdim=True)) / (text.var(1, unbiased=False, keepdim=True) + 1e-5).sqrt()
        gamma, beta = film.film.maps[-1](text).chunk(2, 1)
    assert torch.equal(found.v3, plain.v3)
    torch.testing.assert_close(found.v4, plain.v4 * (1 + gamma[..., None, None]) + beta[..., None, None])


@pytest.mark.parametrize("name", [TINY_ENCODER, "test_convnext", "test_resnet"])
def test_every_residual_block_is_modulated(name: str) -> None:
    """One map each, of its width, and each of them alone changes the logits."""
    encoder = VisionEncoder(name)
    blocks = residual_blocks(encoder.backbone)
    film = moved(Film(name)).eval()
    assert len(blocks) == len(film.film.maps) >= 4
    with torch.no_grad():
        whole = film(IMAGE, task=TASKS)
        for one in film.film.maps:
            weights = one.state_dict()
            one.load_state_dict({key: torch.zeros_like(value) for key, value in weights.items()})
            assert not torch.equal(film(IMAGE, task=TASKS), whole)
            one.load_state_dict(weights)


def test_tensors_of_the_encoder_keep_their_names(film: Film) -> None:
    assert film.encoder.state_dict().keys() == VisionEncoder(TINY_ENCODER).state_dict().keys()


def test_a_copy_has_maps_of_its_own(film: Film) -> None:
    """As an average of weights is: hooks must call the copy's maps, not the original's."""
    other = copy.deepcopy(moved(film))
    with torch.no_grad():
        before = other(IMAGE, task=TASKS)
        for parameter in film.film.parameters():
            parameter.zero_()
        assert torch.equal(other(IMAGE, task=TASKS), before)
        assert not torch.equal(film(IMAGE, task=TASKS), before)


def test_threads_that_share_a_network_do_not_mix_their_tasks(film: Film) -> None:
    moved(film)

    def predict(task: str) -> torch.Tensor:
        with torch.no_grad():
            return film(IMAGE, task=task)

    wanted = {task: predict(task) for task in TASKS}
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda number: predict(TASKS[number % 2]), range(24)))
    assert all(torch.equal(one, wanted[TASKS[number % 2]]) for number, one in enumerate(found))


def test_an_encoder_without_blocks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(film_module, "BLOCK", re.compile("of another library"))
    with pytest.raises(ProPLError, match=f"encoder '{TINY_ENCODER}': has no residual blocks"):
        Film(TINY_ENCODER)
