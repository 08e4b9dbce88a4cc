"""The parts list (SBOM) of a release in CycloneDX 1.6: every package that the release needs, with version and licence.

It lists what is installed, so it says with what a release was built and checked. The same environment gives the same bytes:
there is no time and no random number in it. Form: https://cyclonedx.org/docs/1.6/json/
"""

from __future__ import annotations

import json
from collections import defaultdict
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PACKAGE = "propl_monai"


def sbom(package: str = PACKAGE) -> bytes:
    """The list of a package as JSON, its dependencies sorted by name."""
    needs: dict[str, set[str]] = defaultdict(set)
    found: dict[str, Distribution] = {}
    known: set[tuple[str, frozenset[str]]] = set()
    waiting = [(canonicalize_name(package), frozenset[str]())]
    while waiting:
        name, extras = wanted = waiting.pop()
        if wanted in known:
            continue
        known.add(wanted)
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:  # what torch needs for a GPU, on a machine without one
            continue
        for each in _needed(found[name], extras):
            needs[name].add(canonicalize_name(each.name))
            waiting.append((canonicalize_name(each.name), frozenset(each.extras)))
    root = canonicalize_name(package)
    content = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": _component(found[root], "application")},
        "components": [_component(found[name], "library") for name in sorted(found) if name != root],
        "dependencies": [
            {
                "ref": _purl(found[name]),
                "dependsOn": [_purl(found[each]) for each in sorted(needs[name]) if each in found],
            }
            for name in sorted(found)
        ],
    }
    return (json.dumps(content, indent=1) + "\n").encode()


def _needed(package: Distribution, extras: frozenset[str]) -> list[Requirement]:
    """What it requires on this machine with these extras."""
    requirements = [Requirement(text) for text in package.requires or ()]
    chosen = ["", *extras]
    return [
        each for each in requirements if each.marker is None or any(each.marker.evaluate({"extra": e}) for e in chosen)
    ]


def _purl(package: Distribution) -> str:
    return f"pkg:pypi/{canonicalize_name(package.name)}@{package.version}"


def _component(package: Distribution, kind: str) -> dict[str, Any]:
    licence = _licence(package)
    licences = {"licenses": [{"license": {"name": licence}}]} if licence else {}
    return {
        **{"type": kind, "bom-ref": _purl(package), "name": canonicalize_name(package.name)},
        **{"version": package.version, "purl": _purl(package), **licences},
    }


def _licence(package: Distribution) -> str:
    """As the package states it: an SPDX expression, else a classifier, else the first line of its licence field."""
    facts = package.metadata.json
    classes = [text for text in facts.get("classifier", []) if text.startswith("License ::")]
    named = "; ".join(text.rsplit(" :: ", 1)[1] for text in classes)
    lines = str(facts.get("license", "")).strip().splitlines()
    return str(facts.get("license_expression", "")) or named or (lines[0][:80] if lines else "")
