"""What is written down of a training: progress lines, metrics.jsonl, run.json."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.engines import Evaluator

from propl_monai.common.files import write_atomically
from propl_monai.common.ranks import is_writer
from propl_monai.common.run_record import RunRecord
from propl_monai.model.weights import FLAT_WEIGHTS, WEIGHTS
from propl_monai.training.checkpoints import KeepCheckpoints
from propl_monai.training.validation import validation_of

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


def _percent(values: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {100 * value:.1f}" for name, value in values.items())


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"


class RecordRun:
    """Writes run.json of a training: when it starts, and when it ends or fails. Attach it after `KeepCheckpoints`.

    Args:
        output_dir: where run.json goes.
        options: the settings of the run.
        inputs: files that it reads.
        counts: numbers of cases, by what they are for.
        datalist_sha256: see `Datalist.sha256`; the same for one datalist under any file name.
    """

    def __init__(
        self,
        output_dir: str,
        options: Mapping[str, Any],
        inputs: Sequence[str],
        counts: Mapping[str, int],
        datalist_sha256: str | None = None,
    ) -> None:
        self.folder, self.options, self.inputs = Path(output_dir), options, inputs
        self.about = {"cases": dict(counts), "datalist_sha256": datalist_sha256}

    def attach(self, engine: Engine) -> None:
        if is_writer():
            engine.add_event_handler(Events.STARTED, self._start)
            engine.add_event_handler(Events.COMPLETED, self._finish)
            engine.add_event_handler(Events.EXCEPTION_RAISED, self._fail)

    def _start(self, engine: Engine) -> None:
        self.record = RunRecord(self.folder / "run.json", "train", self.options, self.inputs)
        self.record.write("running", results=self.about)

    def _finish(self, engine: Engine) -> None:
        keeper: KeepCheckpoints = engine.keeper
        outputs = [keeper.model_dir / WEIGHTS, keeper.model_dir / FLAT_WEIGHTS, keeper.path, self.folder / METRICS]
        results = {
            **self.about,
            "parameters": sum(parameter.numel() for parameter in keeper.network.parameters()),
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
            self.record.write("failed", results={**self.about, "epochs": engine.state.epoch})
        raise error
