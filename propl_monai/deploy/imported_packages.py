"""Which packages the vendored copy in a bundle folder imports, read from its source, without running it."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

PACKAGE = "propl_monai"
OURS = re.compile(rf"{PACKAGE}(?:\.\w+)*")


def unnamed_packages(folder: Path, named: Iterable[str]) -> list[tuple[str, str]]:
    """PyPI packages that the bundle cannot do without and that a list does not name.

    Starts at the parts that the configs name, and follows what a module imports when it is loaded; what it imports
    inside a function, or inside `try`, it can do without.

    Args:
        folder: of the bundle, with the package inside.
        named: PyPI names.

    Returns:
        (package, module of ours that imports it), sorted; the module's own name where no installed package has it.
    """
    known = {_normal(name) for name in named}
    owners = packages_distributions()
    missing: dict[str, str] = {}
    for module in sorted(_reached(folder)):
        for name in _imports(folder, module):
            top = name.split(".")[0]
            if top == PACKAGE or top in sys.stdlib_module_names:
                continue
            distributions = sorted({_normal(owner) for owner in owners.get(top, [top])})
            if not known & set(distributions):
                missing.setdefault(distributions[0], module)
    return sorted(missing.items())


def _reached(folder: Path) -> set[str]:
    configs = "\n".join(path.read_text(encoding="utf-8") for path in sorted((folder / "configs").glob("*.json")))
    waiting, reached = set(OURS.findall(configs)), set()
    while waiting:
        module = _existing(folder, waiting.pop())
        if module and module not in reached:
            reached.add(module)
            waiting |= {name for name in _imports(folder, module) if name.startswith(PACKAGE)}
            waiting.add(module.rpartition(".")[0])  # to import a module is to import the packages that it lies in
    return reached


def _imports(folder: Path, module: str) -> Iterator[str]:
    """Full names that a module imports when it is loaded, and names of ours in its strings, which MONAI resolves."""
    tree = ast.parse(_file(folder, module).read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
    for text in ast.walk(tree):
        if isinstance(text, ast.Constant) and isinstance(text.value, str) and OURS.fullmatch(text.value):
            yield text.value


def _existing(folder: Path, name: str) -> str:
    """The module that a dotted name belongs to, without the names in it; empty for a foreign one."""
    while name and not _file(folder, name).is_file():
        name = name.rpartition(".")[0]
    return name


def _file(folder: Path, module: str) -> Path:
    path = folder.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_name(f"{path.name}.py")


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
