"""All sources by name, and the facts of each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from propl_monai.data.datalist import Datalist
from propl_monai.datasets.sources import busi, camus, ddti, hc18, hmc_qu, mmotu, tg3k, tn3k, udiat, unlabelled
from propl_monai.datasets.sources.base import Source
from propl_monai.datasets.sources.folder import MASKS, read_folder
from propl_monai.errors import unknown

SOURCES: dict[str, Source] = {
    module.SOURCE.name: module.SOURCE
    for module in (busi, udiat, hc18, camus, hmc_qu, mmotu, tn3k, tg3k, ddti, unlabelled)
}
IN_PLACE: dict[str, Callable[[Path], Datalist]] = {"folder": read_folder}  # training reads these layouts as they are


def read_source(name: str, root: str | Path) -> Datalist:
    """Read a folder in a layout that needs no preparation."""
    if name not in IN_PLACE:
        raise unknown("source", "layout", name, IN_PLACE)
    return IN_PLACE[name](Path(root))


def facts() -> list[dict[str, Any]]:
    """The facts of every source, as JSON values."""
    keys = ("name", "title", "tasks", "group", "licence", "citation", "holds", "exclusions", "options")
    plain = {
        "name": "folder",
        "title": "your own: <TASK>/<SOURCE>/{images,masks} and manifest.csv",
        **{"tasks": [], "group": "column group of manifest.csv, else the picture itself"},
        **{"licence": "yours", "citation": "", "holds": {}, "exclusions": [], "options": {"masks": MASKS[0]}},
    }
    rows = [{key: getattr(source, key) for key in keys} for source in SOURCES.values()]
    return [plain, *({**row, "tasks": list(row["tasks"]), "exclusions": list(row["exclusions"])} for row in rows)]
