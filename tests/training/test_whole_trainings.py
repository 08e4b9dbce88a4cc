"""Small trainings of the variants that a comparison needs: other methods, fixed epochs, one task, all labels."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from factories import KillAt, Killed
from ignite.engine import Engine, Events

from propl_monai.model.weights import load_network, load_state, read_header
from propl_monai.training.methods import METHODS
from propl_monai.training.methods.mean_teacher import MeanTeacherMethod
from propl_monai.training.methods.supervised import SupervisedMethod

Make = Callable[..., Any]  # `make_training` of conftest.py
TEACHER = partial(MeanTeacherMethod, cutmix=1.0)


def test_a_teacher_resumes_to_the_bit_with_epochs_of_fixed_length(make_training: Make, tmp_path: Path) -> None:
    options = {"make_method": TEACHER, "steps": 2, "epochs": 3}
    whole = make_training(tmp_path / "whole", **options)
    whole.trainer.run()
    first = make_training(tmp_path / "halves", **options, extra_handlers=(KillAt(5),))
    with pytest.raises(Killed):
        first.trainer.run()
    torch.manual_seed(1234)  # a new process starts from other random states
    second = make_training(tmp_path / "halves", **options, resume=True)
    second.trainer.run()
    assert second.trainer.state.iteration == whole.trainer.state.iteration == 6
    states = [load_state(one.output_dir / "checkpoint_last.pt")["method"] for one in (whole, second)]
    assert states[0].keys() == states[1].keys() and any(key.startswith("teacher.") for key in states[0])
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert int(states[0]["teacher.n_averaged"]) == 6
    assert second.metrics() == whole.metrics()
    assert (second.model_dir / "model.pt").read_bytes() == (whole.model_dir / "model.pt").read_bytes()


@pytest.mark.parametrize("name", ["versemi", "vclipseg"])
def test_a_method_with_a_network_of_its_own_resumes_to_the_bit(make_training: Make, tmp_path: Path, name: str) -> None:
    """VerSemi is stopped in its second stage; of VCLIPSeg the projector comes back too, which is no part of the network."""
    options = {"make_method": METHODS[name], "network_name": name, "steps": 2, "epochs": 3}
    whole = make_training(tmp_path / "whole", **options)
    whole.trainer.run()
    with pytest.raises(Killed):
        make_training(tmp_path / "halves", **options, extra_handlers=(KillAt(5),)).trainer.run()
    torch.manual_seed(1234)
    second = make_training(tmp_path / "halves", **options, resume=True)
    second.trainer.run()
    states = [load_state(one.output_dir / "checkpoint_last.pt")["method"] for one in (whole, second)]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    lines = second.metrics()
    assert lines == whole.metrics() and "pseudo" in lines[-1] and "main" in lines[-1]["validation"]
    network, _ = load_network(second.model_dir / "model.safetensors")
    assert network.name == name


def test_the_teacher_is_what_is_validated_and_kept(make_training: Make, tmp_path: Path) -> None:
    training = make_training(tmp_path, make_method=TEACHER, epochs=1)
    training.trainer.run()
    (line,) = training.metrics()
    assert set(line["validation"]) == {"sd", "best_decoder"} and {"supervised", "pseudo", "pseudo_weight"} <= set(line)
    kept, header = load_network(training.model_dir / "model.safetensors")
    assert header["decoder"] == "sd"
    name, found = next(iter(kept.named_parameters()))
    assert torch.equal(found, training.method.predictor.get_parameter(name))
    assert not torch.equal(found, training.method.network.get_parameter(name))
    assert training.evaluator.network is training.method.predictor


class Poison:
    """A NaN in every labelled batch after the second."""

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_STARTED, self.spoil)

    def spoil(self, engine: Engine) -> None:
        if engine.state.iteration > 2:
            engine.state.batch["labelled"]["image"][0, 0, 0, 0] = float("nan")


class Remember:
    """The teacher after each step."""

    def __init__(self) -> None:
        self.states: list[dict[str, torch.Tensor]] = []

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.keep)

    def keep(self, engine: Engine) -> None:
        teacher: Any = engine
        self.states.append({key: value.clone() for key, value in teacher.method.teacher.state_dict().items()})


def test_a_skipped_step_leaves_the_teacher_alone(make_training: Make, tmp_path: Path) -> None:
    remember = Remember()
    training = make_training(tmp_path, make_method=TEACHER, epochs=1, steps=4, extra_handlers=(Poison(), remember))
    training.trainer.run()
    assert training.trainer.bad_steps == 2
    second, third, fourth = remember.states[1:]
    assert any(not torch.equal(remember.states[0][key], value) for key, value in second.items())
    assert all(torch.equal(value, third[key]) and torch.equal(value, fourth[key]) for key, value in second.items())


def test_labels_alone_for_a_fixed_number_of_steps(make_training: Make, tmp_path: Path) -> None:
    training = make_training(tmp_path, make_method=SupervisedMethod, use_unlabelled=False, epochs=2, steps=5)
    training.trainer.run()
    assert training.cohort.unlabelled == [] and training.trainer.state.iteration == 10
    assert [line["iteration"] for line in training.metrics()] == [5, 10]
    assert training.metrics()[-1]["learning_rate"] == 0  # the schedule ends with the last step


def test_all_labels_leave_nothing_unlabelled(make_training: Make, tmp_path: Path) -> None:
    training = make_training(tmp_path, make_method=SupervisedMethod, labelled_fraction="1", epochs=1)
    training.trainer.run()
    assert training.cohort.counts["unlabelled"] == 0
    assert training.trainer.state.iteration == -(-training.cohort.counts["labelled"] // 2)
    assert read_header(training.model_dir / "model.safetensors")["decoder"] == "sd"


def test_one_task_alone(make_training: Make, tmp_path: Path) -> None:
    training = make_training(tmp_path, tasks=["fetal head"], epochs=1)
    training.trainer.run()
    items = training.cohort.labelled + training.cohort.unlabelled + training.cohort.validation
    assert {item["task"] for item in items} == {"fetal head"} and training.cohort.unlabelled
    assert set(training.metrics()[0]["validation_tasks"]) == {"fetal head"}
    network, _ = load_network(training.model_dir / "model.safetensors")
    with torch.no_grad():
        assert network(torch.rand(1, 1, 32, 32), task="fetal head").shape == (1, 1, 32, 32)
