"""A folder that replaces another as a whole: what stands there is safe, and a killed process leaves nothing for long."""

from __future__ import annotations

from pathlib import Path

import pytest

from propl_monai.common.replace_folder import require_replaceable, staging_for, take_place
from propl_monai.errors import ProPLError


def put(folder: Path, text: str) -> Path:
    folder.mkdir()
    (folder / "a.txt").write_text(text)
    return folder


def test_the_new_folder_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    home = put(tmp_path / "home", "old")
    with staging_for(home) as staging:
        put(staging, "new")
        assert (home / "a.txt").read_text() == "old"
        assert take_place(staging, home) == home
    assert (home / "a.txt").read_text() == "new" and [path.name for path in tmp_path.iterdir()] == ["home"]


def test_what_was_not_finished_is_removed(tmp_path: Path) -> None:
    home = put(tmp_path / "home", "old")
    with pytest.raises(KeyboardInterrupt), staging_for(home) as staging:
        put(staging, "new")
        raise KeyboardInterrupt
    assert (home / "a.txt").read_text() == "old" and [path.name for path in tmp_path.iterdir()] == ["home"]


def test_a_kill_between_the_two_renamings_loses_nothing(tmp_path: Path) -> None:
    put(tmp_path / ".tmp-home", "new")
    put(tmp_path / ".tmp-old-home", "old")
    with staging_for(tmp_path / "home") as staging:
        assert not staging.exists()
    assert (tmp_path / "home" / "a.txt").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


def test_a_new_folder_that_is_not_there_leaves_the_old_one(tmp_path: Path) -> None:
    home = put(tmp_path / "home", "old")
    with pytest.raises(ProPLError, match="home: cannot be replaced"), staging_for(home) as staging:
        take_place(staging, home)
    assert (home / "a.txt").read_text() == "old"


def test_only_ours_and_empty_folders_are_replaceable(tmp_path: Path) -> None:
    require_replaceable(tmp_path / "nothing", ours=False)
    full = put(tmp_path / "full", "x")
    require_replaceable(full, ours=True)
    with pytest.raises(ProPLError, match="was not made by this package"):
        require_replaceable(full, ours=False)
    (tmp_path / "empty").mkdir()
    require_replaceable(tmp_path / "empty", ours=False)
