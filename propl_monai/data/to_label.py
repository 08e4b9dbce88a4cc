"""Which pictures of a datalist wait for a label of a task, and which have one."""

from __future__ import annotations

from pathlib import Path

from propl_monai.data.datalist import Datalist
from propl_monai.errors import ProPLError


def to_label(datalist: Datalist, task: str) -> tuple[list[Path], list[Path]]:
    """The train pictures of a task without a mask, and those with one; each once, in the order of the datalist.

    Args:
        datalist: of any tasks. Held-out pictures are left alone: a label of theirs teaches nothing.
        task: name, code or slug.
    """
    cases = datalist.select("train", [task]).cases
    waiting, labelled = (
        [datalist.root / case.image for case in cases if bool(case.mask) is has] for has in (False, True)
    )
    if not waiting:
        fact = f"every train picture of {cases[0].task} has a mask"
        raise ProPLError(datalist.name, fact, "add pictures without masks, or name a folder of them")
    return waiting, labelled
