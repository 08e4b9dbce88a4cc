"""The bundle folder that belongs to this package, wherever it was installed."""

from __future__ import annotations

import hashlib
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


def trusted_bundle(given: Path | None, trust: str = "") -> Path:
    """The bundle to run, see `chosen_bundle`: its configs are programs, so those of strangers are refused.

    Args:
        given: what the user named.
        trust: the SHA-256 of the configs that the user trusts, see `configs_sha256`; those of the package need none.
    """
    folder = chosen_bundle(given)
    if (
        given is None or not (folder / "configs").is_dir()
    ):  # the latter is refused by name where its config is looked for
        return folder
    found = configs_sha256(folder)
    if found not in (trust.strip().lower(), configs_sha256(packaged_bundle())):
        fact = f"holds other configs than this package, and a config is a program (sha256 {found})"
        if trust:
            fact += f", not the ones of sha256 {trust}"
        raise ProPLError(folder / "configs", fact, f"read them; if you trust them, add --trust {found}")
    return folder


def configs_sha256(bundle: Path) -> str:
    """The SHA-256 of the names and bytes of all files in `configs`, in the order of their names."""
    digest = hashlib.sha256()
    for path in sorted((bundle / "configs").rglob("*"), key=lambda path: path.as_posix()):
        if path.is_file() and "__pycache__" not in path.parts:
            content = path.read_bytes()
            name = path.relative_to(bundle).as_posix()
            digest.update(f"{name}\0{len(content)}\0".encode("utf-8", "surrogateescape") + content)
    return digest.hexdigest()


def chosen_bundle(given: Path | None) -> Path:
    """The bundle that a user named, or the packaged one: as a relative path where it lies below the working folder."""
    folder = given or packaged_bundle()
    here = Path.cwd()
    return folder.relative_to(here) if given is None and folder.is_relative_to(here) else folder
