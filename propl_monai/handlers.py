"""What is kept of a training: progress lines, metrics.jsonl, the best and the last checkpoint, run.json."""

from __future__ import annotations

import json
import logging
import math
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.engines import Evaluator

from propl_monai.checkpoint import (
    FLAT_WEIGHTS,
    STATE,
    WEIGHTS,
    architecture,
    load_state,
    save_state,
    save_weights,
    sweep_orphans,
)
from propl_monai.errors import ProPLError
from propl_monai.files import write_atomically
from propl_monai.network import ProPL
from propl_monai.options import switch
from propl_monai.ranks import is_writer
from propl_monai.run_record import RunRecord
from propl_monai.validation import ValidationDice

METRICS = "metrics.jsonl"
logger = logging.getLogger(__name__)


class TrainingLog:
    """Lines with losses and remaining time, and one JSON object an epoch in `metrics.jsonl`.

    Attach it after the validation handler, so that an epoch's line holds its validation, and after `KeepCheckpoints`,
    which tells a resumed run where it stands.

    Args:
        output_dir: where metrics.jsonl goes.
        optimizer: whose learning rate is written down.
        validator: the evaluator that the validation handler runs.
        seconds: at least so long between two progress lines.
    """

    def __init__(
        self, output_dir: str, optimizer: torch.optim.Optimizer, validator: Evaluator | None = None, seconds: float = 10
    ) -> None:
        self.path = Path(output_dir) / METRICS
        self.optimizer, self.validator, self.seconds = optimizer, validator, seconds
        self.sums: dict[str, float] = {}
        self.counts: dict[str, int] = {}

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.EPOCH_STARTED, self._start_epoch)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._iteration)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._epoch)

    def _start(self, engine: Engine) -> None:
        """Keep the lines of the epochs that a resumed run stands on."""
        self._begun, self._shown, self._first = time.monotonic(), 0.0, engine.state.iteration
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        kept = [line for line in lines if _epoch_of(line) <= engine.state.epoch]
        if is_writer():
            write_atomically(self.path, "".join(line + "\n" for line in kept).encode())

    def _start_epoch(self, engine: Engine) -> None:
        self.sums, self.counts, self._epoch_begun = {}, {}, time.monotonic()

    def _iteration(self, engine: Engine) -> None:
        for key, value in engine.state.output.items():
            if isinstance(value, float) and math.isfinite(value):  # skipped steps are counted, not averaged
                self.sums[key] = self.sums.get(key, 0.0) + value
                self.counts[key] = self.counts.get(key, 0) + 1
        now, state = time.monotonic(), engine.state
        if now - self._shown < self.seconds or not is_writer():
            return
        self._shown = now
        done = state.iteration - self._first
        left = (state.max_epochs * state.epoch_length - state.iteration) * (now - self._begun) / done
        position = (state.iteration - 1) % state.epoch_length + 1
        means = "  ".join(f"{key} {value:.4f}" for key, value in self._means().items())
        logger.info(
            "epoch %d/%d  step %d/%d  %s  left %s",
            *(state.epoch, state.max_epochs, position, state.epoch_length, means, _clock(left)),
        )

    def _means(self) -> dict[str, float]:
        return {key: self.sums[key] / self.counts[key] for key in self.sums}

    def _epoch(self, engine: Engine) -> None:
        state = engine.state
        line: dict[str, Any] = {
            "epoch": state.epoch,
            "iteration": state.iteration,
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "skipped_steps": getattr(engine, "bad_steps", 0),
            **self._means(),
        }
        dice = validation_of(self.validator, state.epoch)
        if dice is not None:
            line["validation"] = {**dice.per_decoder, "best_decoder": dice.best_decoder}
            line["validation_tasks"] = dice.per_task[dice.best_decoder]
            logger.info("epoch %d  validation mDice %s", state.epoch, _percent(dice.per_decoder))
            logger.info("epoch %d  %s: %s", state.epoch, dice.best_decoder, _percent(dice.per_task[dice.best_decoder]))
        line["seconds"] = round(time.monotonic() - self._epoch_begun, 2)
        if is_writer():
            with self.path.open("a") as stream:
                stream.write(json.dumps(line) + "\n")


def _epoch_of(line: str) -> float:
    """The epoch of a line of metrics.jsonl; one that a kill has cut short is of an epoch that will be repeated."""
    try:
        return json.loads(line)["epoch"]
    except json.JSONDecodeError:
        return math.inf


def validation_of(validator: Evaluator | None, epoch: int) -> ValidationDice | None:
    """The validation of this epoch, or None where none was made."""
    if validator is None or validator.state.epoch != epoch:
        return None
    dice = getattr(validator.state, "validation_dice", None)
    return dice if dice is not None and dice.per_decoder else None


def _percent(values: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {100 * value:.1f}" for name, value in values.items())


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"


class KeepCheckpoints:
    """Best weights by validation mDice, with the decoder that reached it, and the state to resume from.

    The best weights go to `model_dir` (model.safetensors, model.pt), the resume state to `output_dir`. Without
    validation the last weights are kept. Attach it after the validation handler and before the log.

    Args:
        network, optimizer, lr_scheduler: what is saved and restored.
        output_dir, model_dir: folders.
        validator: the evaluator that the validation handler runs.
        resume: go on from `output_dir`, from the beginning when nothing is there yet.
        about: header entries for the weights, see `checkpoint.save_weights`.
        fingerprint: what must be equal for a resume to make sense, such as seed, epochs and datalist hash.
    """

    def __init__(
        self,
        network: ProPL,
        optimizer: torch.optim.Optimizer,
        lr_scheduler: Any,
        output_dir: str,
        model_dir: str,
        validator: Evaluator | None = None,
        resume: bool = False,
        about: Mapping[str, Any] | None = None,
        fingerprint: Mapping[str, Any] | None = None,
    ) -> None:
        self.network, self.optimizer, self.lr_scheduler = network, optimizer, lr_scheduler
        self.path, self.model_dir = Path(output_dir) / STATE, Path(model_dir)
        self.validator, self.resume = validator, switch("resume", resume)
        self.about = dict(about or {})
        bank = network.prompts.bank.sha256 if network.prompts else None
        self.fingerprint = {**(fingerprint or {}), **architecture(network), "prompt_bank_sha256": bank}
        self.best_score, self.best_epoch = -1.0, 0

    def attach(self, engine: Engine) -> None:
        engine.keeper = self  # `RecordRun` asks it for the best epoch
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._keep)

    def _start(self, engine: Engine) -> None:
        for folder in (self.path.parent, self.model_dir):
            if is_writer() and folder.is_dir():
                sweep_orphans(folder)
        self.fingerprint |= {"max_epochs": engine.state.max_epochs, "epoch_length": engine.state.epoch_length}
        if self.resume and self.path.exists():
            self._restore(engine)
        elif is_writer():
            self._make_room(engine)

    def _restore(self, engine: Engine) -> None:
        state = load_state(self.path)
        found = state["fingerprint"]
        differing = [
            f"{k} {found.get(k)!r} there, {v!r} here" for k, v in self.fingerprint.items() if found.get(k) != v
        ]
        if differing:
            cure = "resume with the options of that run, or choose another output_dir"
            raise ProPLError(self.path, "is of another run: " + "; ".join(differing), cure)
        if state["best_epoch"] and is_writer() and not (self.model_dir / WEIGHTS).exists():
            fact = f"lacks the best weights of the run in {self.path.parent}, of epoch {state['best_epoch']}"
            raise ProPLError(self.model_dir, fact, "resume with the model_dir of that run")
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.lr_scheduler.load_state_dict(state["lr_scheduler"])
        engine.grad_scaler.load_state_dict(state["grad_scaler"])
        engine.state.epoch, engine.state.iteration = state["epoch"], state["iteration"]
        engine.bad_steps = state["bad_steps"]
        self.best_score, self.best_epoch = state["best_score"], state["best_epoch"]
        logger.info("resumed after epoch %d, best validation mDice %.1f", state["epoch"], 100 * self.best_score)

    def _make_room(self, engine: Engine) -> None:
        """Never lose work: an unfinished run is not overwritten, earlier weights are moved aside."""
        if self.path.exists():
            state = load_state(self.path)
            if state["epoch"] < state["fingerprint"]["max_epochs"]:
                fact = f"holds a run that stopped after epoch {state['epoch']} of {state['fingerprint']['max_epochs']}"
                raise ProPLError(
                    self.path.parent, fact, "add --resume true to go on, or delete or choose another output_dir"
                )
            self.path.unlink()
        previous = self.model_dir / "previous"
        aside = previous / str(1 + sum(1 for _ in previous.glob("*")))
        for name in (WEIGHTS, FLAT_WEIGHTS):
            if (self.model_dir / name).exists():
                aside.mkdir(parents=True, exist_ok=True)
                shutil.move(self.model_dir / name, aside / name)
                logger.info("earlier %s moved to %s", name, aside)

    def _keep(self, engine: Engine) -> None:
        dice = validation_of(self.validator, engine.state.epoch)
        score = max(dice.per_decoder.values()) if dice else -1.0
        better = score > self.best_score if dice else self.best_score < 0
        if better:
            self.best_score, self.best_epoch = score, engine.state.epoch
            self.network.choose_decoder(dice.best_decoder if dice else "sd")
        if not is_writer():
            return
        if better:
            about = {**self.about, "epoch": engine.state.epoch, "validation_mdice": score if dice else None}
            save_weights(self.network, self.model_dir, about)
        save_state(self.path, self._state(engine))

    def _state(self, engine: Engine) -> dict[str, Any]:
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "lr_scheduler": self.lr_scheduler.state_dict(),
            "grad_scaler": engine.grad_scaler.state_dict(),
            "epoch": engine.state.epoch,
            "iteration": engine.state.iteration,
            "bad_steps": engine.bad_steps,
            "best_score": self.best_score,
            "best_epoch": self.best_epoch,
            "fingerprint": self.fingerprint,
        }


class RecordRun:
    """Writes run.json of a training: when it starts, and when it ends or fails. Attach it after `KeepCheckpoints`.

    Args:
        output_dir: where run.json goes.
        options: the settings of the run.
        inputs: files that it reads.
        counts: numbers of cases, by what they are for.
    """

    def __init__(
        self, output_dir: str, options: Mapping[str, Any], inputs: Sequence[str], counts: Mapping[str, int]
    ) -> None:
        self.folder, self.options, self.inputs, self.counts = Path(output_dir), options, inputs, dict(counts)

    def attach(self, engine: Engine) -> None:
        if is_writer():
            engine.add_event_handler(Events.STARTED, self._start)
            engine.add_event_handler(Events.COMPLETED, self._finish)
            engine.add_event_handler(Events.EXCEPTION_RAISED, self._fail)

    def _start(self, engine: Engine) -> None:
        self.record = RunRecord(self.folder / "run.json", "train", self.options, self.inputs)
        self.record.write("running", results={"cases": self.counts})

    def _finish(self, engine: Engine) -> None:
        keeper: KeepCheckpoints = engine.keeper
        outputs = [keeper.model_dir / WEIGHTS, keeper.model_dir / FLAT_WEIGHTS, keeper.path, self.folder / METRICS]
        results = {
            "cases": self.counts,
            "epochs": engine.state.epoch,
            "steps": engine.state.iteration,
            "seconds_of_all_epochs": self._seconds_of_epochs(),
            "skipped_steps": getattr(engine, "bad_steps", 0),
            "best_epoch": keeper.best_epoch,
            "best_validation_mdice": keeper.best_score if keeper.best_score >= 0 else None,
            "decoder": keeper.network.chosen_decoder,
        }
        self.record.write("finished", [path for path in outputs if path.exists()], results)

    def _seconds_of_epochs(self) -> float | None:
        """With those before a resume, which "seconds" of run.json cannot know."""
        path = self.folder / METRICS
        if not path.exists():
            return None
        return round(sum(json.loads(line)["seconds"] for line in path.read_text().splitlines()), 1)

    def _fail(self, engine: Engine, error: BaseException) -> None:
        if hasattr(self, "record"):
            self.record.finding(self.folder, f"{type(error).__name__}: {error}")
            self.record.write("failed", results={"cases": self.counts, "epochs": engine.state.epoch})
        raise error
