"""The command line of the bundle: `propl train` calls `python -m monai.bundle` as a user of MONAI does."""

from __future__ import annotations

import re
import runpy
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from propl_monai.common.config_values import as_argument, read_setting
from propl_monai.errors import ProPLError


def config_file(bundle: Path, name: str) -> Path:
    """The path of a config of a bundle, by name."""
    folder = bundle / "configs"
    path = folder / f"{name}.json"
    if not path.is_file():
        known = ", ".join(sorted(each.stem for each in folder.glob("*.json") if each.stem != "metadata"))
        cure = f"name one of its configs: {known}" if known else "name the folder of a bundle with --bundle"
        raise ProPLError(path, "does not exist", cure)
    return path


def bundle_arguments(
    run_id: str, bundle: Path, configs: Sequence[str | Path], settings: Mapping[str, Any]
) -> list[str]:
    """The arguments of `python -m monai.bundle`.

    Args:
        run_id: "training", "evaluating" or "inference".
        bundle: its folder.
        configs: names of configs of the bundle, or paths; later ones override earlier ones.
        settings: config keys and values that override all files; text among them is not evaluated.
    """
    files = [str(each if isinstance(each, Path) else config_file(bundle, each)) for each in configs]
    given = [part for key, value in settings.items() for part in (f"--{key}", as_argument(value))]
    return ["run", run_id, "--bundle_root", as_argument(bundle), "--config_file", str(files), *given]


def read_settings(bundle: Path, configs: Sequence[str], texts: Mapping[str, str]) -> dict[str, Any]:
    """The values of options that are given as text, see `read_setting`.

    Args:
        bundle, configs: see `bundle_arguments`.
        texts: by config key; keys of parts are joined by "#".
    """
    from monai.bundle import ConfigParser

    content = ConfigParser.load_config_files([config_file(bundle, name) for name in configs]) if texts else {}
    return {key: read_setting(key, text, _find(content, re.split("#|::", key))) for key, text in texts.items()}


def _find(node: Any, steps: Sequence[str]) -> Any:
    """What a path of keys leads to; None if it leads nowhere, which `bundle_start.check_keys` reports."""
    for step in steps:
        if isinstance(node, list) and step.isdecimal() and int(step) < len(node):
            node = node[int(step)]
        else:
            node = node.get(step) if isinstance(node, dict) else None
    return node


def run_bundle(arguments: Sequence[str]) -> None:
    """Run `python -m monai.bundle` with these arguments in this process, its check of keys included."""
    found = find_spec("monai.bundle.__main__")
    assert found is not None and found.origin is not None, "monai is a dependency"
    sys.argv = [found.origin, *arguments]
    runpy.run_module("monai.bundle", run_name="__main__", alter_sys=True)
