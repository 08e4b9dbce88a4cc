"""The README stays one page that CI runs, links lead somewhere, and lists that repeat the code agree with it."""

from __future__ import annotations

import configparser
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = sorted(path.parent.name for path in ROOT.glob("propl_monai/*/__init__.py"))
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/*.md", "docs/results/README.md", "datalists/README.md")
    for path in ROOT.glob(pattern)
)


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def section(title: str) -> str:
    found = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", text("README.md"), re.MULTILINE | re.DOTALL)
    assert found, title
    return found.group(1)


def test_the_readme_is_one_page() -> None:
    assert len(text("README.md").splitlines()) <= 150


@pytest.mark.parametrize("title", ["Quick start", "Tests"])
def test_what_ci_runs_is_one_block_of_three_lines(title: str) -> None:
    (block,) = re.findall(r"^```\w*\n(.*?)^```", section(title), re.MULTILINE | re.DOTALL)
    assert 1 <= len(block.splitlines()) <= 3
    assert f'commands "{title}"' in text(".ci/run")


def test_the_map_names_every_room_and_files_that_exist() -> None:
    rows = [line for line in section("Map").splitlines() if line.startswith("| `")]
    assert sorted(re.findall(r"^\| `(\w+)/` \|", "\n".join(rows), re.MULTILINE)) == ROOMS
    files = [
        (room, name)
        for row in rows
        for room in re.findall(r"^\| `(\w+/)", row)
        for name in re.findall(r"`(\S+\.py)`", row)
    ]
    assert len(files) >= 10
    assert [name for room, name in files if not (ROOT / "propl_monai" / room / name).is_file()] == []


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files(page: str) -> None:
    links = re.findall(r"\]\((?!\w+:|#)([^)#\s]+)", text(page))
    assert [link for link in links if not (ROOT / page).parent.joinpath(link).exists()] == []


def test_the_site_has_every_page_and_room() -> None:
    nav = set(re.findall(r"[\w/]+\.md", text("mkdocs.yml").partition("\nnav:")[2]))
    own = {path.name for path in (ROOT / "docs").glob("*.md")}
    assert own | {f"api/{room}.md" for room in ROOMS} <= nav


def test_the_oldest_versions_are_the_lower_bounds() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    extras = setup["options.extras_require"]
    listed = "\n".join((setup["options"]["install_requires"], extras["test"], extras["compact"]))
    bounds = dict(re.findall(r"^([\w-]+)[>=]=([\d.]+)", listed, re.MULTILINE))
    pinned = dict(re.findall(r"^([\w-]+)==([\d.]+)$", text("constraints/oldest.txt"), re.MULTILINE))
    checkers = {"ruff", "mypy"}  # these judge the code; they do not run with it

    def numbers(version: str) -> list[int]:
        return [int(part) for part in re.sub(r"(\.0)+$", "", version).split(".")]

    assert {name: numbers(bounds[name]) for name in bounds.keys() - checkers} == {
        name: numbers(version) for name, version in pinned.items()
    }


def test_the_light_install_has_the_bounds_of_setup_cfg() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    whole = {line.strip() for line in setup["options"]["install_requires"].splitlines() if not line.startswith("#")}
    light = [line for line in text("requirements-light.txt").splitlines() if not line.startswith("#")]
    assert len(light) > 8 and set(light) - {"numpy"} <= whole  # torch and others bring NumPy to the whole package
    assert not {"torch", "monai", "timm", "transformers"} & {re.split("[<>=]", line)[0] for line in light}
