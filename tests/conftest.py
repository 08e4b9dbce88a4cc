"""What many tests share: one small phantom data set, a network, the schema of run.json, and a whole small training.

Imports of torch stand inside the fixtures, so that tests of torch-free modules start at once. torch has one thread in every
process of the tests: their pictures are too small for more, and the number of threads changes the last digits of a training.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import propl_monai

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is loaded


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in the plain layout: eight tasks, eight pictures of 64 × 64 each. Read it, do not change it."""
    from propl_monai.datasets.phantoms.write_phantoms import write_phantoms

    folder = tmp_path_factory.mktemp("data") / "phantoms"
    write_phantoms(folder, cases_per_task=8, size=64)
    return folder


@pytest.fixture(scope="session")
def network() -> Any:
    """A `ProPL` with random weights, in eval mode. Read it, do not change it."""
    import torch

    from propl_monai.model.network import ProPL

    torch.manual_seed(0)
    return ProPL("tf_efficientnet_lite0", default_task="left atrium").eval()


@pytest.fixture(scope="session")
def check_run_json() -> Callable[[Path], dict[str, Any]]:
    """Reads a run.json, checks it against the schema, and returns its content."""
    import jsonschema

    schema = json.loads((Path(propl_monai.__file__).parent / "common" / "run.schema.json").read_text())

    def check(path: Path) -> dict[str, Any]:
        content = json.loads(path.read_text(), parse_constant=_refuse)
        jsonschema.validate(content, schema)
        return content

    return check


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


@pytest.fixture
def make_training(phantoms: Path) -> Callable[..., Any]:
    """Builds a `factories.Training` on the phantoms."""
    from factories import build_training

    def make(folder: Path, **options: Any) -> Any:
        return build_training(phantoms, folder, **options)

    return make
