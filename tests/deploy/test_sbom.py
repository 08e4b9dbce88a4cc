"""The parts list of a release."""

from __future__ import annotations

import json
from importlib.metadata import version

from propl_monai.deploy.sbom import sbom


def test_every_package_that_is_needed_is_listed_with_version_and_licence() -> None:
    parts = json.loads(sbom())
    assert (parts["bomFormat"], parts["specVersion"]) == ("CycloneDX", "1.6")
    found = {part["name"]: part for part in parts["components"]}
    for name in ("torch", "monai", "pydicom", "pillow", "numpy", "markupsafe"):  # the last: needed by what is needed
        assert found[name]["version"] == version(name)
        assert found[name]["purl"] == f"pkg:pypi/{name}@{version(name)}"
        assert found[name]["licenses"][0]["license"]["name"]
    assert "pytest" not in found, "an extra is no part of a release"
    needs = {entry["ref"]: entry["dependsOn"] for entry in parts["dependencies"]}
    assert found["pydicom"]["purl"] in needs[parts["metadata"]["component"]["bom-ref"]]
    assert needs.keys() == {part["bom-ref"] for part in (*parts["components"], parts["metadata"]["component"])}


def test_the_same_environment_gives_the_same_bytes() -> None:
    assert sbom() == sbom()
