"""The data of a plan: unpacked once, listed and verified."""

from __future__ import annotations

from pathlib import Path

from benchmarks.gpu.plan import Plan
from benchmarks.pack import unpack
from propl_monai.data.datalist import Datalist
from propl_monai.datasets.cohort import DATALIST
from propl_monai.datasets.sources.registry import read_source
from propl_monai.datasets.verification.verify import verify_now


def root_of(plan: Plan) -> Path:
    """The folder of the pictures; an archive is unpacked once."""
    data = Path(plan.data)
    return unpack(data, Path(plan.work) / "data") if data.is_file() else data


def list_of(plan: Plan) -> Path:
    """The file of the cases, with the record of their verification beside it.

    The list inside the folder counts, if there is one: its splits and labelled pictures are those of the original.
    """
    root, file = root_of(plan), Path(plan.work) / DATALIST
    inside = root / DATALIST
    datalist = Datalist.read(inside, root) if inside.is_file() else read_source("folder", str(root))
    datalist.write(file)
    verify_now(datalist, file)
    return file


def cases_of(plan: Plan) -> Datalist:
    """The cases of `list_of`."""
    return Datalist.read(list_of(plan), root_of(plan))
