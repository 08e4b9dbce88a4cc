"""The pseudo-labels of one round on disk: one byte a pixel, with what made them, for resuming and for looking at them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from torch import Tensor

from propl_monai.common.files import file_sha256, sweep_orphans
from propl_monai.errors import ProPLError, first_line
from propl_monai.model.tensor_file import read_tensors, write_tensors

LEVELS = 255  # the byte that stands for 1
FOLDER = "pseudo_labels"  # in the output folder of a training


class Lesson(NamedTuple):
    """What B unlabelled pictures teach.

    Attributes:
        target: (B, 1, H, W) in [0, 1], the mean over the views, sharpened.
        certainty: (B, 1, H, W) in [0, 1], weight of a pixel, exp(-variance / temperature).
        picture_weight: (B,) in [0, 1], the squared agreement of the views.
    """

    target: Tensor
    certainty: Tensor
    picture_weight: Tensor


class PseudoLabels(NamedTuple):
    """Those of N unlabelled pictures, in the order of their data set; the names are the keys of a batch.

    Attributes:
        pseudo_label: (N, 1, H, W) uint8, the target's probability times 255.
        certainty: (N, 1, H, W) uint8, the weight of a pixel times 255.
        picture_weight: (N,) float32 in [0, 1].
    """

    pseudo_label: Tensor
    certainty: Tensor
    picture_weight: Tensor

    def of(self, index: int) -> dict[str, Tensor]:
        """Those of one picture, by key."""
        return {key: values[index] for key, values in self._asdict().items()}


def levels(share: Tensor) -> Tensor:
    """Numbers in [0, 1] as bytes."""
    return (share * LEVELS).round().to(torch.uint8).cpu()


def path_of(output_dir: Path, number: int) -> Path:
    """The file of a round, counted from 1."""
    return output_dir / FOLDER / f"round-{number}.safetensors"


def write(path: Path, labels: PseudoLabels, about: Mapping[str, Any]) -> None:
    """Write a file as a whole.

    Args:
        path: see `path_of`; the folder is made if missing.
        labels: of N pictures.
        about: what they depend on, for the header: "case_ids", N names, and the teacher with its options.
    """
    if path.parent.is_dir():
        sweep_orphans(path.parent)
    write_tensors(path, {key: values.contiguous() for key, values in labels._asdict().items()}, about)


def read(path: Path) -> tuple[dict[str, Any], PseudoLabels]:
    """The header and the pseudo-labels of a file."""
    try:
        about, tensors = read_tensors(path, *PseudoLabels._fields)
    except (OSError, SafetensorError, KeyError, ValueError, RecursionError) as error:
        fact = f"is no readable file of pseudo-labels ({first_line(error)})"
        raise ProPLError(
            path, fact, "delete it: a new run makes its own, and an interrupted one has to begin again"
        ) from error
    return about, PseudoLabels(*tensors)


def read_the_same(path: Path, sha256: bytes, case_ids: Sequence[str]) -> PseudoLabels:
    """The pseudo-labels that an interrupted run has learnt from: the file must be the very same.

    Args:
        path: of the file.
        sha256: of its bytes, 32 of them.
        case_ids: of the pictures at hand.
    """
    cure = "restore it, or begin again in another output_dir"
    if not path.is_file():
        raise ProPLError(path, "is missing, and the run to resume learns from it", cure)
    if bytes.fromhex(file_sha256(path)) != sha256:
        raise ProPLError(path, "is not the file that the run to resume has learnt from", cure)
    about, labels = read(path)
    if about.get("case_ids") != list(case_ids):
        raise ProPLError(path, "is of other unlabelled images than those at hand", "resume with the data of that run")
    return labels
