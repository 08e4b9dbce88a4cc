"""A prediction in parts: which file is whose, who may write beside whom, and that the parts make the whole."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factories import small_predictor, speckle
from picture_samples import save_nifti
from PIL import Image
from typer.testing import CliRunner

from propl_monai.cli import app
from propl_monai.common.files import TEMPORARY_PREFIX
from propl_monai.common.run_record import JOURNAL
from propl_monai.errors import EXIT_BAD_INPUT, EXIT_OK, ProPLError
from propl_monai.inference.predict_folder import predict_paths
from propl_monai.inference.predictor import Predictor
from propl_monai.inference.shards import Shard, lock_results

Check = Callable[[Path], dict[str, Any]]
NAMES = [f"deep er/{number:04d}" for number in range(10_000)]


def test_every_file_is_of_one_shard() -> None:
    parts = [Shard(number, 10) for number in range(1, 11)]
    owners = {name: [part for part in parts if part.holds(name)] for name in NAMES}
    assert all(len(found) == 1 for found in owners.values())
    sizes = Counter(found[0].number for found in owners.values())
    assert len(sizes) == 10 and min(sizes.values()) > 900 and max(sizes.values()) < 1100
    assert all(Shard(1, 1).holds(name) for name in NAMES)


def test_the_owner_never_changes() -> None:
    """Of `echo -n "deep er/0000" | sha256sum` and the next two, the first 16 digits, modulo 7, counted from 1."""
    expected = [digits % 7 + 1 for digits in (0xE3C4FC4AC28584FE, 0x799E366C304E0FB0, 0x67E497467F63593D)]
    assert [next(n for n in range(1, 8) if Shard(n, 7).holds(name)) for name in NAMES[:3]] == expected == [4, 6, 5]
    assert Shard(1, 1).holds("a\udcff")  # a file name that is not UTF-8


def test_words() -> None:
    assert Shard.parse("2/5") == Shard(2, 5) and str(Shard(2, 5)) == "2/5"
    for text in ("0/5", "6/5", "2", "2/0", "-1/5", "2/5/7", "a/b", "²/5", ""):
        with pytest.raises(ProPLError, match=r"--shard: .* is no part of a whole; give I/N, such as 2/5"):
            Shard.parse(text)


def test_who_may_write_beside_whom(tmp_path: Path) -> None:
    with lock_results(tmp_path, Shard(1, 2)):
        with lock_results(tmp_path, Shard(2, 2)):
            assert (tmp_path / "shards" / "2-of-2").is_dir()
        for other in (Shard(1, 2), None):
            with pytest.raises(ProPLError, match="by another process"), lock_results(tmp_path, other):
                pass
    with lock_results(tmp_path, None), pytest.raises(ProPLError), lock_results(tmp_path, Shard(1, 2)):
        pass
    with lock_results(tmp_path, None):
        pass


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return small_predictor(batch=1)  # no file's result depends on the others, so all is equal to the byte


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Eleven stills in two folders, and a cine of three frames."""
    folder = tmp_path / "in"
    (folder / "deep er").mkdir(parents=True)
    for number in range(11):
        place = folder / "deep er" if number % 2 else folder
        Image.fromarray(speckle(20 + number, 31, number)).save(place / f"{number:02d}.png")
    save_nifti(folder / "cine.nii.gz", np.stack([speckle(16, 22, seed) for seed in (2, 3, 4)]), seconds=0.04)
    return folder


def results(folder: Path) -> dict[str, bytes]:
    """All files but journals and run.json, and what the shards alone have."""
    kept = (path for path in folder.rglob("*") if path.is_file() and path.name not in ("run.json", JOURNAL))
    named = ((path.relative_to(folder).as_posix(), path) for path in kept)
    return {name: path.read_bytes() for name, path in named if not name.startswith("shards/")}


def entries(journal: Path) -> dict[str, dict[str, Any]]:
    first, *others = [json.loads(line) for line in journal.read_text().splitlines()]
    assert first["format"] == "propl-predictions/1"
    return {line["name"]: line for line in others}


PARTS = [Shard(number, 3) for number in (1, 2, 3)]


def test_parts_make_the_whole(predictor: Predictor, images: Path, tmp_path: Path, check_run_json: Check) -> None:
    options: dict[str, Any] = {"measurements": True, "overlay": True}
    once = predict_paths(predictor, [images], tmp_path / "once", "LA", **options)
    out = tmp_path / "out"
    parts = [predict_paths(predictor, [images], out, "LA", shard=part, **options) for part in PARTS]
    assert [part.code for part in parts] == [EXIT_OK] * 3 and min(part.done for part in parts) > 0
    assert sum(part.done for part in parts) == once.done == 12
    assert sum(part.pictures for part in parts) == once.pictures == 14
    tables = [(part.folder(out) / "measurements.csv").read_text().splitlines()[1:] for part in PARTS]
    assert not (out / "measurements.csv").exists() and not (out / JOURNAL).exists()
    for part in PARTS:
        record = check_run_json(part.folder(out) / "run.json")
        assert record["options"]["shard"] == str(part) and record["status"] == "finished"
        assert all(Path(path).is_file() for path in record["outputs"])
    whole = predict_paths(predictor, [images], out, "LA", **options)
    assert (whole.done, whole.skipped, whole.pictures, whole.code) == (0, 12, 0, EXIT_OK)
    assert results(out) == results(tmp_path / "once")
    assert entries(out / JOURNAL) == entries(tmp_path / "once" / JOURNAL)
    assert sorted(chain.from_iterable(tables)) == sorted((out / "measurements.csv").read_text().splitlines()[1:])
    assert list(out.glob("shards/*/" + JOURNAL)) == []  # taken over
    assert "shard" not in check_run_json(out / "run.json")["options"]


def test_a_part_is_done_once(predictor: Predictor, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = predict_paths(predictor, [images], out, "LA", shard=PARTS[0])
    again = predict_paths(predictor, [images], out, "LA", shard=PARTS[0])
    assert (again.done, again.skipped) == (0, first.done)
    Image.fromarray(speckle(9, 9)).save(images / "new.png")
    later = [predict_paths(predictor, [images], out, "LA", shard=part) for part in PARTS]
    assert later[0].skipped == first.done  # no other file has moved to another part
    assert sum(part.done for part in later) == 13 - first.done
    predict_paths(predictor, [images], out, "LA")
    after = [predict_paths(predictor, [images], out, "LA", shard=Shard(number, 2)) for number in (1, 2)]
    assert [part.done for part in after] == [0, 0] and sum(part.skipped for part in after) == 13


def test_the_whole_does_what_a_part_has_left(predictor: Predictor, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = predict_paths(predictor, [images], out, "LA", shard=PARTS[1]).done
    whole = predict_paths(predictor, [images], out, "LA")
    assert (whole.done, whole.skipped) == (12 - done, done)
    assert len(entries(out / JOURNAL)) == 12


def test_parts_at_the_same_time(predictor: Predictor, images: Path, tmp_path: Path) -> None:
    """The second begins and ends while the first is at work; what the first is writing stays."""
    out = tmp_path / "out"
    others: list[int] = []

    def second(done: int, total: int) -> None:
        if not others:
            (out / f"{TEMPORARY_PREFIX}1-half.png").write_bytes(b"of another process")
            others.append(predict_paths(predictor, [images], out, "LA", shard=PARTS[1]).done)
            with pytest.raises(ProPLError, match="is being written to by another process"):
                predict_paths(predictor, [images], out, "LA")

    predict_paths(predictor, [images], out, "LA", shard=PARTS[0], progress=second)
    assert others[0] > 0 and (out / f"{TEMPORARY_PREFIX}1-half.png").exists()
    assert predict_paths(predictor, [images], out, "LA").done == sum(
        PARTS[2].holds(name) for name in entries(out / JOURNAL)
    )
    assert not (out / f"{TEMPORARY_PREFIX}1-half.png").exists()


def test_bad_files_and_parts_without_files(predictor: Predictor, tmp_path: Path, check_run_json: Check) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "bad.png").write_bytes(b"")
    found = [predict_paths(predictor, [tmp_path / "in"], tmp_path / "out", "LA", shard=part) for part in PARTS]
    owner = next(number for number, part in enumerate(PARTS) if part.holds("bad"))
    assert [part.code for part in found] == [EXIT_BAD_INPUT if number == owner else EXIT_OK for number in range(3)]
    empty = next(part for part in PARTS if not part.holds("bad"))
    assert check_run_json(empty.folder(tmp_path / "out") / "run.json")["results"]["files"] == 0


def test_parts_of_other_settings_are_not_mixed(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    predict_paths(small_predictor(batch=1), [images], out, "LA", shard=PARTS[0])
    strict = small_predictor(batch=1, threshold=0.9)
    for shard in (PARTS[0], None):
        with pytest.raises(ProPLError, match=r"results of other settings: threshold 0.5 there, 0.9 now"):
            predict_paths(strict, [images], out, "LA", shard=shard)
    assert len(entries(PARTS[0].folder(out) / JOURNAL)) > 0  # a refused run takes nothing over
    assert predict_paths(strict, [images], out, "LA", overwrite=True).done == 12
    with pytest.raises(ProPLError, match=r"threshold 0.9 there, 0.5 now"):
        predict_paths(small_predictor(batch=1), [images], out, "LA", shard=PARTS[0])


def test_the_option(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["predict", str(tmp_path), "-o", "out", "-t", "LA", "--shard", "4/3"])
    assert isinstance(done.exception, ProPLError) and "'4/3' is no part of a whole" in str(done.exception)
