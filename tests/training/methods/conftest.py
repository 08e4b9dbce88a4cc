"""A small network with random weights, for the tests of methods."""

from __future__ import annotations

import copy

import pytest
import torch
from factories import TINY_ENCODER

from propl_monai import ProPL


@pytest.fixture(scope="module")
def start() -> ProPL:
    torch.manual_seed(0)
    return ProPL(TINY_ENCODER)


@pytest.fixture
def net(start: ProPL) -> ProPL:
    return copy.deepcopy(start)
