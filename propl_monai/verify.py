"""Check the files of a datalist before anything is computed from them, and tell every fault in one pass."""

from __future__ import annotations

from pathlib import Path

from propl_monai.cases import summarise
from propl_monai.datalist import Datalist
from propl_monai.errors import ProPLError
from propl_monai.images import image_size


def check_files(datalist: Datalist) -> list[ProPLError]:
    """Every image and mask that is missing, has no readable header, or differs in size from its partner.

    Reads headers only. A file that several cases share is opened once, and a fault of it is told once.
    """
    sizes: dict[str, tuple[int, int] | None] = {}
    problems: list[ProPLError] = []

    def size_of(name: str) -> tuple[int, int] | None:
        if name not in sizes:
            try:
                sizes[name] = image_size(Path(datalist.root, name))
            except ProPLError as problem:
                sizes[name] = None
                problems.append(problem)
        return sizes[name]

    for case in datalist.cases:
        image = size_of(case.image)
        mask = size_of(case.mask) if case.mask is not None else None
        if image and mask and image != mask:
            fact = f"is {mask[0]} x {mask[1]} (height x width), its image {case.image} is {image[0]} x {image[1]}"
            cure = "export the mask again in the image's size, or drop the case"
            problems.append(ProPLError(Path(datalist.root, str(case.mask)), fact, cure))
    return problems


def require_files(datalist: Datalist) -> None:
    """Stop when `check_files` finds anything.

    Raises:
        ProPLError: the first few faults and their number.
    """
    problems = check_files(datalist)
    if problems:
        raise summarise(f"files of {datalist.name}", problems)
