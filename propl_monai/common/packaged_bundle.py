"""The bundle folder that belongs to this package, wherever it was installed."""

from __future__ import annotations

from pathlib import Path

from propl_monai.errors import ProPLError

KNOWN = "known.safetensors"  # beside weights: what the scores of their predictions are computed from
PACKAGE = Path(__file__).resolve().parents[1]


def packaged_bundle(package: Path = PACKAGE) -> Path:
    """The folder with configs, docs and, if they are shipped, `models/model.safetensors`.

    It is inside an installed wheel, beside the package in a checkout, and around it in a release.
    """
    for folder in (package / "bundle", package.parent / "bundle", package.parent):
        if (folder / "configs" / "metadata.json").is_file():
            return folder
    raise ProPLError(package, "has no bundle folder", "install the package again, with pip from a wheel or a checkout")


def chosen_bundle(given: Path | None) -> Path:
    """The bundle that a user named, or the packaged one: as a relative path where it lies below the working folder."""
    folder = given or packaged_bundle()
    here = Path.cwd()
    return folder.relative_to(here) if given is None and folder.is_relative_to(here) else folder
