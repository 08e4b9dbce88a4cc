"""What is found of pictures: the figures of `Predictor`, once for each file; bad files by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from factories import small_predictor, speckle
from PIL import Image

from propl_monai.common.run_record import RunRecord
from propl_monai.errors import ProPLError
from propl_monai.images import Picture, read_image
from propl_monai.inference.inputs import find_inputs
from propl_monai.inference.journal import Journal
from propl_monai.inference.predictor import Predictor
from propl_monai.inference.ranking.look import LABELLED, Look, features_of
from propl_monai.inference.ranking.strategies import find_strategy

TASK = "thyroid nodule"


def look(predictor: Predictor, folder: Path, strategy: str) -> Look:
    journal = Journal(folder / "order.jsonl", {"strategy": strategy})
    return Look(predictor, TASK, find_strategy(strategy), journal, RunRecord(folder / "run.json", "rank", {}))


@pytest.mark.parametrize("kind", ["views", "dropout"])
def test_the_uncertainty_is_that_of_the_predictor(images: Path, tmp_path: Path, kind: str) -> None:
    predictor = small_predictor(batch=2, uncertainty_of=kind)
    found = look(predictor, tmp_path, f"uncertainty-{kind}")
    found.at(find_inputs([images], tmp_path / "order.csv"))
    a, cine, b = found.journal.read(["a", "cine", "deep er/b (1)"])
    assert (a["frames"], cine["frames"], b["frames"], found.looked) == (1, 3, 1, 3)
    own = predictor(images / "a.png", TASK, uncertainty=True).relative_uncertainty
    assert a["rows"][0]["uncertainty"] == pytest.approx(own, rel=1e-4) and set(a["rows"][0]) == {"uncertainty"}
    third = predictor(speckle(16, 22, 4), TASK, uncertainty=True).relative_uncertainty
    assert cine["rows"][2]["uncertainty"] == pytest.approx(third, rel=1e-4)


def test_features_are_those_of_the_predictor_and_labels_need_no_uncertainty(images: Path, tmp_path: Path) -> None:
    predictor = small_predictor(batch=2)
    found = look(predictor, tmp_path, "diversity")
    found.at([(images / "a.png", "a")])
    (entry,) = found.journal.read(["a"])
    own = predictor.pooled([predictor.prepare(read_image(images / "a.png"))])[0]
    assert np.abs(features_of(entry["rows"][0]) - own).max() < 1e-5 and "uncertainty" not in entry["rows"][0]
    other = tmp_path / "other"
    other.mkdir()
    again = look(predictor, other, "uncertainty-views")
    again.at([(images / "a.png", LABELLED + "a"), (images / "a.png", "a")])
    labelled, plain = again.journal.read([LABELLED + "a", "a"])
    assert labelled["rows"] == [{}] and set(plain["rows"][0]) == {"uncertainty"}


def test_chance_needs_no_network_but_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Predictor, "answer", lambda *_: pytest.fail("the network was asked"))
    Image.fromarray(speckle(12, 14)).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes((tmp_path / "good.png").read_bytes()[:60])
    found = look(small_predictor(), tmp_path, "random")
    found.at(find_inputs([tmp_path], tmp_path / "order.csv"))
    assert set(found.done) == {"good"} and [path.name for path in found.refused] == ["bad.png"]
    (finding,) = found.record.content["findings"]
    assert finding["path"].endswith("bad.png")


def test_a_network_without_features_is_refused(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = small_predictor()
    answer = predictor.answer
    monkeypatch.setattr(predictor, "answer", lambda *given: (answer(*given)[0], None))
    with pytest.raises(ProPLError, match="has no features that do not depend on the task"):
        look(predictor, tmp_path, "diversity").at([(images / "a.png", "a")])


def test_a_cine_is_cut_as_a_whole(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = small_predictor(crop_sector=True)
    boxes: list[object] = []
    prepare = predictor.prepare
    monkeypatch.setattr(
        predictor, "prepare", lambda picture, uncertain, box: boxes.append(box) or prepare(Picture(picture.pixels))
    )
    look(predictor, tmp_path, "diversity").at([(images / "cine.nii.gz", "cine")])
    assert len(boxes) == 3 and len(set(boxes)) == 1 and boxes[0] is not None
