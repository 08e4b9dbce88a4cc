"""Files of pseudo-labels: what is written comes back, and what does not fit is named."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from propl_monai.common.files import file_sha256
from propl_monai.errors import ProPLError
from propl_monai.training.pseudo_labels import PseudoLabels, levels, path_of, read, read_the_same, write

NAMES = ["LA/A/1", "LA/A/2"]


@pytest.fixture
def labels() -> PseudoLabels:
    torch.manual_seed(0)
    maps = levels(torch.rand(2, 2, 1, 4, 4))
    return PseudoLabels(maps[0], maps[1], torch.tensor([0.25, 1.0]))


@pytest.fixture
def path(tmp_path: Path, labels: PseudoLabels) -> Path:
    write(path_of(tmp_path, 1), labels, {"case_ids": NAMES, "temperature": 0.02})
    return path_of(tmp_path, 1)


def test_levels_are_rounded() -> None:
    assert levels(torch.tensor([0.0, 0.1, 0.5, 1.0])).tolist() == [0, 26, 128, 255]


def test_what_is_written_comes_back(path: Path, labels: PseudoLabels) -> None:
    about, found = read(path)
    assert path.name == "round-1.safetensors" and about == {"case_ids": NAMES, "temperature": 0.02}
    assert all(map(torch.equal, found, labels))
    one = found.of(1)
    assert set(one) == {"pseudo_label", "certainty", "picture_weight"} and one["picture_weight"].item() == 1.0
    assert torch.equal(one["certainty"], labels.certainty[1]) and one["certainty"].dtype == torch.uint8
    assert path.stat().st_size < 700  # a byte a pixel


def test_what_a_killed_process_left_is_swept(path: Path, labels: PseudoLabels) -> None:
    (path.parent / ".tmp-1-1").write_bytes(b"half")
    write(path_of(path.parents[1], 2), labels, {})
    assert {each.name for each in path.parent.iterdir()} == {"round-1.safetensors", "round-2.safetensors"}


def test_a_resumed_run_gets_the_very_same_file(path: Path, labels: PseudoLabels) -> None:
    sha256 = bytes.fromhex(file_sha256(path))
    assert all(map(torch.equal, read_the_same(path, sha256, NAMES), labels))
    with pytest.raises(ProPLError, match=r"round-1.*is of other unlabelled images"):
        read_the_same(path, sha256, NAMES[::-1])
    write(path, labels._replace(picture_weight=torch.zeros(2)), {"case_ids": NAMES})
    with pytest.raises(
        ProPLError, match=r"round-1.*is not the file that the run to resume has learnt from; restore it"
    ):
        read_the_same(path, sha256, NAMES)
    path.unlink()
    with pytest.raises(ProPLError, match=r"round-1.*is missing, and the run to resume learns from it; restore it"):
        read_the_same(path, sha256, NAMES)


@pytest.mark.parametrize("content", [b"", b"no safetensors at all", b"\xff" * 64])
def test_a_damaged_file_is_named(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(ProPLError, match=r"round-1\.safetensors: is no readable file of pseudo-labels"):
        read(path)
