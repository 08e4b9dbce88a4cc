"""Trainings in cycles: what each sees, how its learning rate falls, and that a stop anywhere changes nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from factories import KillAt, Killed
from ignite.engine import Engine, Events

from propl_monai.common.files import file_sha256
from propl_monai.errors import ProPLError
from propl_monai.model.weights import load_state
from propl_monai.training.methods.mean_teacher import MeanTeacherMethod
from propl_monai.training.methods.propl_views import ProPLViewsMethod
from propl_monai.training.pseudo_labels import path_of, read, write
from propl_monai.training.rounds import DecayInRounds, Rounds, cycle_ends

Make = Callable[..., Any]  # `make_training` of conftest.py
VIEWS = ["as-is", "mirror", "scale 1.15"]
OFFLINE = partial(ProPLViewsMethod, teacher="offline", views=VIEWS, cutmix=0.5, supervise_pd=True)
EMA = partial(ProPLViewsMethod, teacher="ema", views=VIEWS)
TWO_ROUNDS: dict[str, Any] = {"make_method": OFFLINE, "rounds": 2, "epochs": 6, "steps": 2}


def test_cycles_are_as_long_as_each_other() -> None:
    assert cycle_ends(6, 2) == [2, 4, 6] and cycle_ends(5, 1) == [2, 5] and cycle_ends(3, 0) == [3]
    assert cycle_ends(3, 2) == [1, 2, 3]


@pytest.mark.parametrize(("epochs", "rounds", "fact"), [(2, 2, "2 epochs are too few"), (2, -1, "-1 is no number")])
def test_cycles_that_cannot_be(epochs: int, rounds: int, fact: str) -> None:
    with pytest.raises(ProPLError, match=fact):
        cycle_ends(epochs, rounds)


def test_the_learning_rate_falls_to_nothing_in_each_cycle() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=2.0)
    schedule = DecayInRounds(optimizer, epochs=5, steps=2, rounds=1, power=1.0)
    rates = []
    for _ in range(10):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([2, 1.5, 1, 0.5, *(2 * left / 6 for left in (6, 5, 4, 3, 2, 1))])
    assert optimizer.param_groups[0]["lr"] == 0


class Diary:
    """What each step saw, and the optimizer's momentum before it."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int]] = []
        self.fresh: list[bool] = []

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_STARTED, self.note)

    def note(self, engine: Any) -> None:
        counts = [
            len(engine.state.batch[key]["image"]) if engine.state.batch[key] else 0
            for key in ("labelled", "unlabelled")
        ]
        self.seen.append((counts[0], counts[1]))
        self.fresh.append(not engine.optimizer.state)


@pytest.fixture(scope="module")
def whole(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """An uninterrupted training of two rounds. Read it, do not change it."""
    from factories import build_training

    diary = Diary()
    training = build_training(phantoms, tmp_path_factory.mktemp("whole"), **TWO_ROUNDS, extra_handlers=(diary,))
    training.trainer.run()
    training.diary = diary
    return training


def test_what_a_cycle_sees_and_begins_with(whole: Any) -> None:
    assert whole.diary.seen == [(4, 0)] * 4 + [(2, 2)] * 8
    assert whole.diary.fresh == [True, False, False, False] * 3
    keys = [{"pseudo", "certainty", "picture_weight"} & set(line) for line in whole.metrics()]
    assert [len(found) for found in keys] == [0, 0, 3, 3, 3, 3]
    assert [line["iteration"] for line in whole.metrics()] == [2, 4, 6, 8, 10, 12]


def test_the_files_say_what_was_learnt_from(whole: Any) -> None:
    abouts = []
    for number in (1, 2):
        about, labels = read(path_of(whole.output_dir, number))
        assert about["case_ids"] == [item["case_id"] for item in whole.cohort.unlabelled]
        assert (about["round"], about["views"], about["temperature"]) == (number, VIEWS, 0.02)
        assert labels.pseudo_label.shape == (len(whole.cohort.unlabelled), 1, 32, 32)
        assert labels.certainty.max() == 255 and bool((labels.picture_weight >= 0).all())
        abouts.append((about["teacher_sha256"], labels))
    assert abouts[0][0] != abouts[1][0] and not torch.equal(abouts[0][1].pseudo_label, abouts[1][1].pseudo_label)
    kept = load_state(whole.output_dir / "checkpoint_last.pt")["method"]["pseudo_labels_sha256"]
    assert bytes(kept.tolist()).hex() == file_sha256(path_of(whole.output_dir, 2))


def assert_the_same(one: Any, other: Any) -> None:
    states = [load_state(each.output_dir / "checkpoint_last.pt") for each in (one, other)]
    for part in ("method", "lr_scheduler"):
        assert states[0][part].keys() == states[1][part].keys()
    assert all(torch.equal(value, states[1]["method"][key]) for key, value in states[0]["method"].items())
    assert states[0]["lr_scheduler"] == states[1]["lr_scheduler"]
    assert one.metrics() == other.metrics()
    assert (one.model_dir / "model.pt").read_bytes() == (other.model_dir / "model.pt").read_bytes()


@pytest.mark.parametrize("at", [4, 5, 7], ids="step {}".format)
def test_resumed_equals_uninterrupted(make_training: Make, whole: Any, tmp_path: Path, at: int) -> None:
    """Killed in cycle 0 (4), in the first epoch after pseudo-labels were made (5), in the second one (7)."""
    first = make_training(tmp_path, **TWO_ROUNDS, extra_handlers=(KillAt(at),))
    with pytest.raises(Killed):
        first.trainer.run()
    torch.manual_seed(1234)  # a new process starts from other random states
    second = make_training(tmp_path, **TWO_ROUNDS, resume=True)
    second.trainer.run()
    assert_the_same(second, whole)
    for number in (1, 2):
        paths = [path_of(each.output_dir, number) for each in (whole, second)]
        assert paths[0].read_bytes() == paths[1].read_bytes()


def stop(make_training: Make, folder: Path, at: int) -> None:
    with pytest.raises(Killed):
        make_training(folder, **TWO_ROUNDS, extra_handlers=(KillAt(at),)).trainer.run()


def test_pseudo_labels_are_made_once(make_training: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A killed run that had made them before its first epoch of a cycle ended reads them, as does one in the middle."""
    caplog.set_level(logging.INFO)
    stop(make_training, tmp_path, 5)
    made = [record for record in caplog.messages if record.startswith("round 1: pseudo-labels of")]
    assert len(made) == 1
    make_training(tmp_path, **TWO_ROUNDS, resume=True).trainer.run()
    assert sum(record.startswith("round 1: pseudo-labels of") for record in caplog.messages) == 1
    assert sum(record.startswith("round 2: pseudo-labels of") for record in caplog.messages) == 1


def test_pseudo_labels_of_another_teacher_are_made_again(make_training: Make, whole: Any, tmp_path: Path) -> None:
    training = make_training(tmp_path, **TWO_ROUNDS)
    about, labels = read(path_of(whole.output_dir, 2))
    write(path_of(training.output_dir, 1), labels, about | {"round": 1})  # as an earlier run in this folder left them
    training.trainer.run()
    assert_the_same(training, whole)


@pytest.mark.parametrize("damage", ["missing", "other"])
def test_a_round_cannot_go_on_without_its_file(make_training: Make, whole: Any, tmp_path: Path, damage: str) -> None:
    stop(make_training, tmp_path, 7)
    training = make_training(tmp_path, **TWO_ROUNDS, resume=True)
    path = path_of(training.output_dir, 1)
    path.unlink()
    if damage == "other":
        path.write_bytes(path_of(whole.output_dir, 2).read_bytes())
    with pytest.raises(ProPLError, match=r"round-1\.safetensors: is .*; restore it, or begin again"):
        training.trainer.run()


def test_an_averaged_teacher_in_cycles_resumes_to_the_bit(make_training: Make, tmp_path: Path) -> None:
    options = {"make_method": EMA, "rounds": 1, "epochs": 4, "steps": 2}
    diary = Diary()
    one = make_training(tmp_path / "whole", **options, extra_handlers=(diary,))
    one.trainer.run()
    with pytest.raises(Killed):
        make_training(tmp_path / "halves", **options, extra_handlers=(KillAt(7),)).trainer.run()
    torch.manual_seed(1234)
    two = make_training(tmp_path / "halves", **options, resume=True)
    two.trainer.run()
    assert_the_same(two, one)
    assert diary.seen == [(4, 0)] * 4 + [(2, 2)] * 4 and "uncertainty" in one.metrics()[-1]
    assert not (one.output_dir / "pseudo_labels").exists()


def test_labels_alone_in_cycles(make_training: Make, tmp_path: Path) -> None:
    diary = Diary()
    options = {"make_method": OFFLINE, "rounds": 1, "epochs": 2, "steps": 2, "use_unlabelled": False}
    training = make_training(tmp_path, **options, extra_handlers=(diary,))
    training.trainer.run()
    assert diary.seen == [(2, 0)] * 4 and diary.fresh == [True, False, True, False]
    assert not (training.output_dir / "pseudo_labels").exists()


def test_streams_of_any_length(make_training: Make, tmp_path: Path) -> None:
    """One pass over the longer stream is an epoch; its number of steps stays while labelled pictures are alone."""
    diary = Diary()
    options = {"make_method": OFFLINE, "rounds": 1, "epochs": 2, "tasks": ["fetal head", "breast cancer"]}
    training = make_training(tmp_path, **options, extra_handlers=(diary,))
    training.trainer.run()
    assert (len(training.cohort.labelled), len(training.cohort.unlabelled)) == (4, 2)
    assert diary.seen == [(4, 0), (4, 0), (2, 2), (2, 2)]


def test_another_method_in_cycles(make_training: Make, tmp_path: Path) -> None:
    diary = Diary()
    training = make_training(
        tmp_path, make_method=MeanTeacherMethod, rounds=1, epochs=2, steps=1, extra_handlers=(diary,)
    )
    training.trainer.run()
    assert diary.seen == [(4, 0), (2, 2)] and diary.fresh == [True, True]


def test_too_few_epochs_are_refused_before_anything_runs(make_training: Make, tmp_path: Path) -> None:
    with pytest.raises(ProPLError, match="2 epochs are too few for 5 rounds"):
        make_training(tmp_path, make_method=OFFLINE, epochs=2, extra_handlers=(Rounds(5),))
