"""Items of the phantoms, and the script that makes a bundle for the generic app."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from factories import ROOT

from propl_monai.tasks import find

BUNDLE = ROOT / "bundle"


def phantom_items(phantoms: Path, code: str, count: int) -> list[dict]:
    """MONAI items of one task from the plain layout."""
    images = sorted((phantoms / code / "PHANTOM" / "images").iterdir())[:count]
    task = find(code).name
    return [
        {"image": str(path), "label": str(path.parents[1] / "masks" / path.name), "task": task, "case_id": path.stem}
        for path in images
    ]


def write_bundle(*arguments: Any) -> None:
    """`write_bundle` of `labelling/bundle_for_monaibundle.py`."""
    spec = importlib.util.spec_from_file_location("script", ROOT / "labelling" / "bundle_for_monaibundle.py")
    assert spec and spec.loader
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.write_bundle(*arguments)
