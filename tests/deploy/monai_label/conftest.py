"""A bundle with weights, small enough to be trained here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

SIZE = (32, 32)
ABOUT = {"spatial_size": list(SIZE), "normalisation": "half", "preset": "test"}


@pytest.fixture(scope="session")
def one_thread() -> Iterator[None]:
    """One thread for torch: pictures of 32 × 32 only lose by more, and sums come out the same in every process."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def served_folder(phantoms: Path, tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Path:
    """A folder with `models/`: weights that a short training on all eight tasks has written. Copy it to change it."""
    from small_training import build_training

    from propl_monai.model.weights import save_weights
    from propl_monai.tasks import NAMES

    folder = tmp_path_factory.mktemp("served")
    training = build_training(phantoms, folder, epochs=8, labelled_fraction="1/1", tasks=NAMES)
    training.trainer.run()
    save_weights(training.network.eval(), folder / "models", ABOUT)
    return folder


@pytest.fixture
def served_network(served_folder: Path) -> Any:
    """The network of that folder, to be changed, and the header of its weights."""
    from propl_monai.model.weights import WEIGHTS, load_network

    return load_network(served_folder / "models" / WEIGHTS)
