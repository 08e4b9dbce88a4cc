"""What is kept of a training: a resumed run is the uninterrupted one, nothing good is overwritten, all is written down."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from factories import TASKS, KillAt, Killed, build_training, same_bits
from ignite.engine import Engine, Events

from propl_monai.errors import ProPLError
from propl_monai.model.weights import load_network, load_state, read_header
from propl_monai.training.records import TrainingLog

Make = Callable[..., Any]  # `make_training` of conftest.py
STEPS = 3  # an epoch of the small training


@pytest.fixture(scope="module")
def whole(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A training of three epochs that nobody disturbed. Read its files, do not change them."""
    training = build_training(phantoms, tmp_path_factory.mktemp("whole"))
    assert len(training.trainer.data_loader) == STEPS
    training.trainer.run()
    return training


@pytest.mark.parametrize("stop,workers", [(STEPS + 2, 0), (2 * STEPS + 1, 2)], ids=["epoch 2", "epoch 3, 2 workers"])
def test_resumed_equals_uninterrupted(make_training: Make, whole: Any, tmp_path: Path, stop: int, workers: int) -> None:
    first = make_training(tmp_path, num_workers=workers, extra_handlers=(KillAt(stop),))
    with pytest.raises(Killed):
        first.trainer.run()
    assert load_state(first.output_dir / "checkpoint_last.pt")["epoch"] == (stop - 1) // STEPS
    torch.manual_seed(1234)  # a new process starts from other random states
    second = make_training(tmp_path, num_workers=workers, resume=True)
    second.trainer.run()
    assert second.trainer.state.iteration == 3 * STEPS
    states = [load_state(one.output_dir / "checkpoint_last.pt") for one in (whole, second)]
    assert states[0].keys() == states[1].keys()
    for key in states[0]:
        assert same_bits(states[0][key], states[1][key]), key
    assert second.metrics() == whole.metrics()
    for name in ("model.safetensors", "model.pt"):
        assert (second.model_dir / name).read_bytes() == (whole.model_dir / name).read_bytes(), name


def test_another_seed_trains_another_network(make_training: Make, whole: Any, tmp_path: Path) -> None:
    """Or the test above could not fail."""
    other = make_training(tmp_path, seed=1, epochs=1)
    other.trainer.run()
    assert other.metrics()[0]["loss"] != whole.metrics()[0]["loss"]


def test_metrics_tell_an_epoch_a_line(whole: Any) -> None:
    lines = whole.metrics()
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    assert [line["iteration"] for line in lines] == [STEPS, 2 * STEPS, 3 * STEPS]
    # The rate of the next step: 0.01 (1 - 3/9)^0.9 after the first epoch, 0 after the last.
    assert [line["learning_rate"] for line in lines] == pytest.approx([0.01 * (2 / 3) ** 0.9, 0.01 * (1 / 3) ** 0.9, 0])
    for line in lines:
        assert line["skipped_steps"] == 0
        assert {"loss", "supervised", "pseudo", "uncertainty", "pseudo_foreground"} <= set(line)
        scores = line["validation"]
        best = scores[scores["best_decoder"]]
        assert best == max(scores[name] for name in ("sd", "pd", "mean"))
        assert set(line["validation_tasks"]) == set(TASKS)
        assert sum(line["validation_tasks"].values()) / len(TASKS) == pytest.approx(best)
    raw = [json.loads(line) for line in (whole.output_dir / "metrics.jsonl").read_text().splitlines()]
    assert all(line["seconds"] > 0 for line in raw)


def test_run_json_of_a_training(whole: Any, check_run_json: Callable[[Path], dict[str, Any]]) -> None:
    record = check_run_json(whole.output_dir / "run.json")
    options = {"preset": "test", "seed": 0, "labelled_fraction": "1/16", "epochs": 3, "resume": False}
    assert (record["verb"], record["status"], record["options"]) == ("train", "finished", options)
    results = record["results"]
    scores = [line["validation"][line["validation"]["best_decoder"]] for line in whole.metrics()]
    assert results["best_validation_mdice"] == max(scores)
    assert results["best_epoch"] == 1 + scores.index(max(scores))
    assert results["decoder"] == whole.metrics()[results["best_epoch"] - 1]["validation"]["best_decoder"]
    assert (results["epochs"], results["steps"], results["skipped_steps"]) == (3, 3 * STEPS, 0)
    assert results["cases"] == whole.cohort.counts
    assert [Path(path).name for path in record["outputs"]] == [
        "model.safetensors",
        "model.pt",
        "checkpoint_last.pt",
        "metrics.jsonl",
    ]
    assert [Path(entry["path"]).name for entry in record["inputs"]] == ["datalist.json", "datalist.verified.json"]


def test_weights_are_those_of_the_best_epoch(whole: Any) -> None:
    header = read_header(whole.model_dir / "model.safetensors")
    record = json.loads((whole.output_dir / "run.json").read_text())["results"]
    assert header["epoch"] == record["best_epoch"] and header["validation_mdice"] == record["best_validation_mdice"]
    network, _ = load_network(whole.model_dir / "model.safetensors")
    assert network.chosen_decoder == header["decoder"] == record["decoder"]
    # Its validation, made again from the file, is the one that was written down.
    whole.network.load_state_dict(network.state_dict())
    whole.evaluator.run(1)
    assert whole.evaluator.state.metrics["mdice"] == record["best_validation_mdice"]


class Score:
    """Replaces what the validation found, epoch by epoch."""

    def __init__(self, training: Any, scores: dict[int, dict[str, float]]) -> None:
        self.evaluator, self.scores = training.evaluator, scores
        self.evaluator.add_event_handler(Events.COMPLETED, self.replace)

    def replace(self, engine: Engine) -> None:
        engine.state.validation_dice.per_decoder = self.scores[engine.state.epoch]


def test_a_worse_model_never_replaces_a_better_one_even_after_a_resume(make_training: Make, tmp_path: Path) -> None:
    scores = {1: {"sd": 0.2, "pd": 0.6, "mean": 0.5}, 2: {"sd": 0.55, "pd": 0.1, "mean": 0.2}}
    rest = {3: {"sd": 0.59, "pd": 0.0, "mean": 0.0}, 4: {"sd": 0.59, "pd": 0.0, "mean": 0.61}}
    first = make_training(tmp_path, epochs=4, extra_handlers=(KillAt(2 * STEPS + 1),))
    Score(first, scores)
    with pytest.raises(Killed):
        first.trainer.run()
    best = (first.model_dir / "model.safetensors").read_bytes()
    assert read_header(first.model_dir / "model.safetensors")["epoch"] == 1
    assert read_header(first.model_dir / "model.safetensors")["decoder"] == "pd"

    second = make_training(tmp_path, epochs=4, resume=True, extra_handlers=(KillAt(3 * STEPS + 1),))
    Score(second, rest)
    with pytest.raises(Killed):
        second.trainer.run()
    assert (second.model_dir / "model.safetensors").read_bytes() == best

    third = make_training(tmp_path, epochs=4, resume=True)
    Score(third, rest)
    third.trainer.run()
    header = read_header(third.model_dir / "model.safetensors")
    assert (header["epoch"], header["decoder"], header["validation_mdice"]) == (4, "mean", 0.61)


def test_an_unfinished_run_is_not_overwritten(make_training: Make, tmp_path: Path) -> None:
    first = make_training(tmp_path, extra_handlers=(KillAt(STEPS + 1),))
    with pytest.raises(Killed):
        first.trainer.run()
    files = [path for folder in (first.output_dir, first.model_dir) for path in folder.iterdir()]
    before = {path: path.read_bytes() for path in files}
    with pytest.raises(ProPLError) as caught:
        make_training(tmp_path).trainer.run()
    assert caught.value.where == str(first.output_dir)
    assert "stopped after epoch 1 of 3" in caught.value.fact and "--resume true" in caught.value.cure
    assert {path: path.read_bytes() for path in files} == before


def test_weights_of_a_finished_run_are_moved_aside(make_training: Make, tmp_path: Path) -> None:
    first = make_training(tmp_path, epochs=1)
    first.trainer.run()
    names = ("model.safetensors", "model.pt")
    earlier = {name: (first.model_dir / name).read_bytes() for name in names}
    (first.model_dir / ".tmp-1-model.pt").touch()
    (first.output_dir / ".tmp-1-checkpoint_last.pt").touch()
    second = make_training(tmp_path, epochs=1, seed=1)
    second.trainer.run()
    assert {name: (first.model_dir / "previous" / "1" / name).read_bytes() for name in names} == earlier
    assert all((first.model_dir / name).read_bytes() != earlier[name] for name in names)
    assert len(second.metrics()) == 1
    assert not list(tmp_path.rglob(".tmp-*"))  # what a killed process left is swept


def test_a_finished_run_resumed_stays_as_it_is(make_training: Make, tmp_path: Path) -> None:
    first = make_training(tmp_path, epochs=1)
    first.trainer.run()
    before = {path.name: path.read_bytes() for path in first.model_dir.iterdir()}
    again = make_training(tmp_path, epochs=1, resume=True)
    again.trainer.run()
    assert {path.name: path.read_bytes() for path in first.model_dir.iterdir()} == before
    assert again.metrics() == first.metrics() and len(again.metrics()) == 1


def test_resume_where_nothing_is_begins(make_training: Make, tmp_path: Path) -> None:
    training = make_training(tmp_path, epochs=1, resume=True)
    training.trainer.run()
    assert len(training.metrics()) == 1


@pytest.mark.parametrize(
    "options,difference",
    [
        ({"seed": 1}, "seed 0 there, 1 here"),
        ({"labelled_fraction": "1/2"}, "labelled_fraction '1/16' there, '1/2' here"),
        ({"epochs": 5}, "max_epochs 3 there, 5 here"),
    ],
    ids=["seed", "labelled fraction", "epochs"],
)
def test_resume_of_another_run_is_refused(
    make_training: Make, whole: Any, tmp_path: Path, options: dict[str, Any], difference: str
) -> None:
    training = make_training(tmp_path, resume=True, **options)
    (training.output_dir / "checkpoint_last.pt").hardlink_to(whole.output_dir / "checkpoint_last.pt")
    with pytest.raises(ProPLError) as caught:
        training.trainer.run()
    assert "checkpoint_last.pt" in caught.value.where and difference in caught.value.fact
    assert "resume with the options of that run" in caught.value.cure


def test_resume_on_other_data_is_refused(make_training: Make, whole: Any, tmp_path: Path) -> None:
    training = make_training(tmp_path, resume=True)
    state = load_state(whole.output_dir / "checkpoint_last.pt")
    state["fingerprint"]["datalist_sha256"] = "0" * 64
    torch.save(state, training.output_dir / "checkpoint_last.pt")
    with pytest.raises(ProPLError, match="datalist_sha256 '0000"):
        training.trainer.run()


def test_a_damaged_state_is_named(make_training: Make, whole: Any, tmp_path: Path) -> None:
    training = make_training(tmp_path, resume=True)
    content = (whole.output_dir / "checkpoint_last.pt").read_bytes()
    (training.output_dir / "checkpoint_last.pt").write_bytes(content[: len(content) // 2])
    with pytest.raises(ProPLError, match=r"checkpoint_last\.pt: cannot be read"):
        training.trainer.run()


class Fail:
    """Raises a plain error in the second epoch."""

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_STARTED(once=2), self.fail)

    def fail(self, engine: Engine) -> None:
        raise ValueError("out of luck")


def test_run_json_of_a_failed_training(
    make_training: Make, tmp_path: Path, check_run_json: Callable[[Path], dict[str, Any]]
) -> None:
    training = make_training(tmp_path, extra_handlers=(Fail(),))
    with pytest.raises(ValueError, match="out of luck"):
        training.trainer.run()
    record = check_run_json(training.output_dir / "run.json")
    assert record["status"] == "failed" and record["findings"][0]["message"] == "ValueError: out of luck"


class Watch:
    """Reads run.json while the training runs."""

    def __init__(self, read: Callable[[], dict[str, Any]]) -> None:
        self.read = read

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_STARTED, self.look)

    def look(self, engine: Engine) -> None:
        self.found = self.read()


def test_run_json_of_a_running_training(
    make_training: Make, tmp_path: Path, check_run_json: Callable[[Path], dict[str, Any]]
) -> None:
    watch = Watch(lambda: check_run_json(tmp_path / "run" / "run.json"))
    make_training(tmp_path, epochs=1, extra_handlers=(watch,)).trainer.run()
    assert watch.found["status"] == "running" and watch.found["results"]["cases"]["labelled"] > 0


def test_nothing_unlabelled_leaves_decoder_sd(make_training: Make, tmp_path: Path) -> None:
    training = make_training(tmp_path, epochs=1, use_unlabelled=False)
    training.trainer.run()
    (line,) = training.metrics()
    assert set(line["validation"]) == {"sd", "best_decoder"} and "pseudo" not in line
    assert read_header(training.model_dir / "model.safetensors")["decoder"] == "sd"


class Poison:
    """One NaN in the second labelled batch."""

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_STARTED(once=2), self.spoil)

    def spoil(self, engine: Engine) -> None:
        engine.state.batch["labelled"]["image"][0, 0, 0, 0] = float("nan")


def test_a_nan_in_an_image_leaves_a_sound_network_and_valid_files(
    make_training: Make, tmp_path: Path, check_run_json: Callable[[Path], dict[str, Any]]
) -> None:
    training = make_training(tmp_path, epochs=1, extra_handlers=(Poison(),))
    training.trainer.run()
    assert all(bool(torch.isfinite(value).all()) for value in training.network.state_dict().values())
    (line,) = training.metrics()
    assert line["skipped_steps"] == 1 and line["loss"] > 0  # NaN would not be
    assert check_run_json(training.output_dir / "run.json")["results"]["skipped_steps"] == 1


def test_without_validation_the_last_weights_are_kept(whole: Any, tmp_path: Path) -> None:
    from propl_monai.training.checkpoints import KeepCheckpoints

    scheduler = torch.optim.lr_scheduler.ConstantLR(whole.optimizer)
    keeper = KeepCheckpoints(scheduler, str(tmp_path), str(tmp_path))
    engine = Engine(lambda *_: None)
    engine.method, engine.optimizer = whole.method, whole.optimizer
    engine.grad_scaler, engine.bad_steps = torch.amp.GradScaler("cpu", enabled=False), 0
    keeper.attach(engine)
    engine.run([0], max_epochs=2)
    header = read_header(tmp_path / "model.safetensors")
    assert (header["epoch"], header["validation_mdice"], header["decoder"]) == (2, None, "sd")


def test_a_resumed_run_says_its_best_score_if_there_is_one(
    make_training: Make, whole: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    training = make_training(tmp_path, resume=True)
    state = load_state(whole.output_dir / "checkpoint_last.pt")
    said = []
    for score in (0.625, -1.0):
        torch.save(state | {"best_score": score, "best_epoch": 0}, training.output_dir / "checkpoint_last.pt")
        with caplog.at_level("INFO", logger="propl_monai.training.checkpoints"):
            training.trainer.keeper._start(training.trainer)
        said.append(caplog.records[-1].getMessage())
    assert said == ["resumed after epoch 3, best validation mDice 62.5", "resumed after epoch 3, without validation"]


def log_on(path: Path, lines: str, epoch: int) -> list[str]:
    """What is left of metrics.jsonl when a run starts behind `epoch`."""
    (path / "metrics.jsonl").write_text(lines)
    engine = Engine(lambda *_: None)
    engine.state.epoch = epoch
    engine.keeper = SimpleNamespace(folder=path, before_saving=[])
    log = TrainingLog()
    log.attach(engine)
    log._start(engine)
    return (path / "metrics.jsonl").read_text().splitlines()


def test_lines_of_repeated_epochs_and_half_lines_go(tmp_path: Path) -> None:
    lines = '{"epoch": 1}\n{"epoch": 2}\n{"epoch": 3, "lo'
    assert log_on(tmp_path, lines, 2) == ['{"epoch": 1}', '{"epoch": 2}']
    assert log_on(tmp_path, lines, 1) == ['{"epoch": 1}']
    assert log_on(tmp_path, lines, 0) == []


def test_progress_lines(make_training: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="propl_monai.training.records"):
        make_training(tmp_path, epochs=1).trainer.run()
    told = [record.getMessage() for record in caplog.records]
    steps = [line for line in told if line.startswith("epoch 1/1  step ")]
    assert [line.split("  ")[1] for line in steps] == ["step 1/3", "step 2/3", "step 3/3"]
    assert all(re.search(r"  loss \d\.\d{4}  left 0:00:\d\d$", line) for line in steps)
    assert steps[-1].endswith("left 0:00:00")
    assert any(line.startswith("epoch 1  validation mDice sd ") for line in told)


class KilledAtSaving:
    """Ends a training as the state of its second epoch is to be saved."""

    def attach(self, engine: Engine) -> None:
        keeper: Any = engine
        keeper.keeper.before_saving.append(self.kill)

    def kill(self, engine: Engine) -> None:
        if engine.state.epoch == 2:
            raise Killed


def test_a_kill_between_record_and_state_loses_no_line(make_training: Make, whole: Any, tmp_path: Path) -> None:
    first = make_training(tmp_path, extra_handlers=(KilledAtSaving(),))
    with pytest.raises(Killed):
        first.trainer.run()
    assert [line["epoch"] for line in first.metrics()] == [1, 2]
    assert load_state(first.output_dir / "checkpoint_last.pt")["epoch"] == 1
    second = make_training(tmp_path, resume=True)
    second.trainer.run()
    assert second.metrics() == whole.metrics()


def test_a_record_that_cannot_be_written_names_its_file(make_training: Make, tmp_path: Path) -> None:
    class Block:
        def attach(self, engine: Engine) -> None:
            engine.add_event_handler(Events.EPOCH_STARTED(once=1), self.block)

        def block(self, engine: Engine) -> None:
            (tmp_path / "run" / "metrics.jsonl").unlink()
            (tmp_path / "run" / "metrics.jsonl").mkdir()

    with pytest.raises(ProPLError, match=r"metrics\.jsonl: cannot be written \(Is a directory\)"):
        make_training(tmp_path, extra_handlers=(Block(),)).trainer.run()


@pytest.mark.parametrize(("share", "told"), [(0.0, True), (0.0005, True), (0.01, False), (0.9999, True)])
def test_pseudo_labels_that_collapse_are_told(
    make_training: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture, share: float, told: bool
) -> None:
    class Replace:
        def attach(self, engine: Engine) -> None:
            engine.add_event_handler(Events.EPOCH_STARTED, lambda: replace(engine))

    def replace(engine: Any) -> None:
        step = engine.method.step
        engine.method.step = lambda *given: {**step(*given), "pseudo_foreground": torch.tensor(share)}

    training = make_training(tmp_path, tasks=("left atrium",), steps=1, epochs=1, extra_handlers=(Replace(),))
    training.trainer.run()
    assert ("the pseudo-labels have collapsed" in caplog.text) == told
