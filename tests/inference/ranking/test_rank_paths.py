"""A folder in, a table out: every strategy, bad files, a stop and a second call, labelled pictures, other settings."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factories import small_predictor, speckle
from known_tools import known_for
from output_tools import rows
from PIL import Image

from propl_monai.errors import EXIT_BAD_INPUT, EXIT_OK, EXIT_PARTIAL, ProPLError
from propl_monai.images import read_image
from propl_monai.inference.predictor import Predictor
from propl_monai.inference.ranking.rank_paths import COLUMNS, rank_paths
from propl_monai.inference.ranking.strategies import STRATEGIES

Check = Callable[[Path], dict[str, Any]]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(7):
        Image.fromarray(speckle(20, 24, number)).save(folder / f"{number}.png")
    return folder


def names(path: Path) -> list[str]:
    return [Path(row["file"]).name for row in rows(path)]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_ranks_every_picture_once(
    strategy: str, pictures: Path, tmp_path: Path, check_run_json: Check
) -> None:
    predictor = small_predictor(batch=3, uncertainty_of=STRATEGIES[strategy].uncertainty_of or "views")
    out = tmp_path / "order.csv"
    found = rank_paths(predictor, [pictures], out, "TN", strategy)
    assert (found.ranked, found.files, found.skipped, found.refused, found.code) == (7, 7, 0, 0, EXIT_OK)
    table = rows(out)
    assert tuple(table[0]) == COLUMNS and [row["rank"] for row in table] == [str(rank) for rank in range(1, 8)]
    assert sorted(names(out)) == [f"{number}.png" for number in range(7)]
    assert all((Path(row["file"]).is_file(), row["frame"]) == (True, "") for row in table)
    scores = [float(row["score"]) for row in table]
    assert scores == sorted(scores, reverse=True) and len(set(scores)) >= 6
    record = check_run_json(tmp_path / "order.run.json")
    assert (record["verb"], record["status"], record["options"]["strategy"]) == ("rank", "finished", strategy)
    assert record["results"]["ranked"] == 7 and len(record["inputs"]) == 7
    first = out.read_bytes()
    again = rank_paths(predictor, [pictures], out, "TN", strategy)
    assert (again.files, again.skipped) == (0, 7) and out.read_bytes() == first
    assert rank_paths(predictor, [pictures], out, "TN", strategy, first=2).ranked == 2
    assert out.read_bytes() == b"\n".join(first.splitlines()[:3]) + b"\n"


def test_frames_of_a_cine_are_pictures(predictor: Predictor, images: Path, tmp_path: Path) -> None:
    found = rank_paths(predictor, [images], tmp_path / "order.csv", "LA")
    assert (found.ranked, found.files) == (5, 3)
    frames = sorted((Path(row["file"]).name, row["frame"]) for row in rows(tmp_path / "order.csv"))
    assert frames == [("a.png", ""), ("b (1).bmp", ""), *(("cine.nii.gz", str(number)) for number in (1, 2, 3))]


def test_bad_files_are_told_and_the_rest_is_ranked(
    predictor: Predictor, pictures: Path, tmp_path: Path, check_run_json: Check
) -> None:
    (pictures / "3b.png").touch()
    (pictures / "5b.jpg").write_bytes(b"<html>")
    seen: list[tuple[int, int]] = []
    out = tmp_path / "order.csv"
    found = rank_paths(predictor, [pictures], out, "TN", progress=lambda *told: seen.append(told))
    assert (found.ranked, found.refused, found.code) == (7, 2, EXIT_PARTIAL)
    assert seen == [(number, 9) for number in range(1, 10)]
    record = check_run_json(tmp_path / "order.run.json")
    assert record["status"] == "partial"
    assert [Path(one["path"]).name for one in record["findings"]] == ["3b.png", "5b.jpg"]
    nothing = rank_paths(predictor, [pictures / "3b.png"], tmp_path / "none.csv", "TN")
    assert (nothing.ranked, nothing.code) == (0, EXIT_BAD_INPUT) and rows(tmp_path / "none.csv") == []


def test_a_stop_loses_nothing(predictor: Predictor, pictures: Path, tmp_path: Path, check_run_json: Check) -> None:
    def stop(done: int, total: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    out, whole = tmp_path / "order.csv", tmp_path / "whole.csv"
    with pytest.raises(KeyboardInterrupt):
        rank_paths(predictor, [pictures], out, "TN", progress=stop)
    assert not out.exists() and check_run_json(tmp_path / "order.run.json")["status"] == "failed"
    found = rank_paths(predictor, [pictures], out, "TN")
    assert (found.files, found.skipped) == (3, 4)
    rank_paths(predictor, [pictures], whole, "TN")
    assert names(out) == names(whole)


def test_what_changed_is_looked_at_again(predictor: Predictor, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "order.csv"
    rank_paths(predictor, [pictures], out, "TN")
    Image.fromarray(speckle(20, 24, 99)).save(pictures / "3.png")
    Image.fromarray(speckle(20, 24, 98)).save(pictures / "new.png")
    (pictures / "0.png").unlink()
    found = rank_paths(predictor, [pictures], out, "TN")
    assert (found.ranked, found.files, found.skipped) == (7, 2, 5)


def test_one_table_has_one_meaning(predictor: Predictor, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "order.csv"
    rank_paths(predictor, [pictures], out, "TN")
    before = out.read_bytes()
    for task, strategy in (("TN", "diversity"), ("LA", "uncertainty-views")):
        with pytest.raises(ProPLError, match=r"holds results of other settings: (strategy|task) .*--overwrite"):
            rank_paths(predictor, [pictures], out, task, strategy)
    with pytest.raises(ProPLError, match="weights_sha256"):
        rank_paths(small_predictor(weights_sha256="1" * 64), [pictures], out, "TN")
    assert out.read_bytes() == before
    assert rank_paths(predictor, [pictures], out, "TN", "diversity", overwrite=True).files == 7


@pytest.mark.parametrize("strategy", ["random", "diversity"])
def test_labelled_pictures_are_left_out(predictor: Predictor, pictures: Path, tmp_path: Path, strategy: str) -> None:
    labelled = tmp_path / "labelled"
    labelled.mkdir()
    shutil.copy(pictures / "2.png", labelled / "copy.png")
    plain, out = tmp_path / "plain.csv", tmp_path / "order.csv"
    rank_paths(predictor, [pictures], plain, "TN", strategy)
    found = rank_paths(predictor, [pictures], out, "TN", strategy, labelled=[labelled])
    assert (found.ranked, found.labelled) == (6, 1) and "2.png" not in names(out)
    if strategy == "random":
        assert names(out) == [name for name in names(plain) if name != "2.png"]
        return
    read = [read_image(pictures / f"{number}.png") for number in range(7)]
    features = predictor.pooled([predictor.prepare(one) for one in read])
    distances = np.linalg.norm((features - features[2]) / features.std(0), axis=1)
    assert names(out)[0] == f"{distances.argmax()}.png"
    assert float(rows(out)[0]["score"]) == pytest.approx(distances.max(), rel=1e-3)


def test_chance_depends_on_seed_and_bytes_alone(predictor: Predictor, pictures: Path, tmp_path: Path) -> None:
    orders = []
    for seed in (0, 1):
        rank_paths(predictor, [pictures], tmp_path / f"{seed}.csv", "TN", "random", seed=seed)
        orders.append(names(tmp_path / f"{seed}.csv"))
    assert orders[0] != orders[1]
    (pictures / "0.png").unlink()
    rank_paths(predictor, [pictures], tmp_path / "fewer.csv", "TN", "random")
    assert names(tmp_path / "fewer.csv") == [name for name in orders[0] if name != "0.png"]


def test_pictures_in_doubt_are_named(
    pictures: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, check_run_json: Check
) -> None:
    predictor = small_predictor(batch=2)
    predictor.known = known_for(predictor, foreign=True, absent=("thyroid",))
    with caplog.at_level(logging.WARNING):
        rank_paths(predictor, [pictures], tmp_path / "order.csv", "TN")
    assert "look foreign" in caplog.text and "thyroid nodule looks absent: 7 pictures" in caplog.text
    row = rows(tmp_path / "order.csv")[0]
    assert (row["foreign"], row["absent"]) == ("True", "True") and 0 <= float(row["known"]) < 0.01
    assert len(check_run_json(tmp_path / "order.run.json")["results"]["foreign"]) == 7


def test_what_is_refused_before_anything_is_written(predictor: Predictor, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "order.csv"
    with pytest.raises(ProPLError, match=r"does not end in \.csv"):
        rank_paths(predictor, [pictures], out.with_suffix(".txt"), "TN")
    with pytest.raises(ProPLError, match="--first: 0 is below 1"):
        rank_paths(predictor, [pictures], out, "TN", first=0)
    with pytest.raises(ProPLError, match="needs uncertainty of dropout"):
        rank_paths(predictor, [pictures], out, "TN", "uncertainty-dropout")
    with pytest.raises(ProPLError, match="nowhere: does not exist"):
        rank_paths(predictor, [tmp_path / "nowhere"], out, "TN")
    with pytest.raises(ProPLError, match="unknown task"):
        rank_paths(predictor, [pictures], out, "nodul of nothing")
    assert not out.parent.exists()
