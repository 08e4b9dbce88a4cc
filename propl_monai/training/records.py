"""The records of a training: progress lines, metrics.jsonl, run.json."""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from ignite.engine import Engine, Events

from propl_monai.common.files import write_atomically
from propl_monai.common.ranks import is_writer
from propl_monai.common.run_record import RunRecord
from propl_monai.errors import ProPLError
from propl_monai.model.weights import FLAT_WEIGHTS, WEIGHTS
from propl_monai.training.checkpoints import KeepCheckpoints
from propl_monai.training.validation import validation_of

METRICS = "metrics.jsonl"
COLLAPSED = 1e-3  # of the pixels of pseudo-labels; the smallest targets cover a hundredth of their pictures
logger = logging.getLogger(__name__)


class TrainingLog:
    """Logs losses and remaining time, and writes one JSON object per epoch to `metrics.jsonl`.

    Warns of pseudo-labels that hold no foreground for a whole epoch, or nothing else: they teach nothing.

    Attach it after the validation handler, so that the line of an epoch holds its validation, and after `KeepCheckpoints`,
    which restores the epoch of a resumed run and gives the folder.

    Args:
        seconds: shortest time between two progress lines.
    """

    def __init__(self, seconds: float = 10) -> None:
        self.seconds = seconds

    def attach(self, engine: Engine) -> None:
        self.path = engine.keeper.folder / METRICS
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.EPOCH_STARTED, self._start_epoch)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._iteration)
        engine.keeper.before_saving.append(self._epoch)

    def _start(self, engine: Engine) -> None:
        """Keep the lines of the epochs that a resumed run builds on."""
        self._begun, self._shown, self._first = time.monotonic(), 0.0, engine.state.iteration
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        kept = [line for line in lines if _epoch_of(line) <= engine.state.epoch]
        if is_writer():
            write_atomically(self.path, "".join(line + "\n" for line in kept).encode())

    def _start_epoch(self, engine: Engine) -> None:
        self._epoch_begun = time.monotonic()
        self.sums: dict[str, float] = {}
        self.counts: dict[str, int] = {}

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
            *(state.epoch, state.max_epochs, position, state.epoch_length, means, timedelta(seconds=int(left))),
        )

    def _means(self) -> dict[str, float]:
        return {key: self.sums[key] / self.counts[key] for key in self.sums}

    def _epoch(self, engine: Engine) -> None:
        state = engine.state
        line: dict[str, Any] = {
            "epoch": state.epoch,
            "iteration": state.iteration,
            "learning_rate": engine.optimizer.param_groups[0]["lr"],
            "skipped_steps": getattr(engine, "bad_steps", 0),
            **self._means(),
        }
        dice = validation_of(engine.keeper.validator, state.epoch)
        if dice is not None:
            line["validation"] = {**dice.per_decoder, "best_decoder": dice.best_decoder}
            line["validation_tasks"] = dice.per_task[dice.best_decoder]
            logger.info("epoch %d  validation mDice %s", state.epoch, _percent(dice.per_decoder))
            logger.info("epoch %d  %s: %s", state.epoch, dice.best_decoder, _percent(dice.per_task[dice.best_decoder]))
        foreground = line.get("pseudo_foreground", 0.5)
        if not COLLAPSED <= foreground <= 1 - COLLAPSED:
            told = (
                "epoch %d  the pseudo-labels have collapsed: %.2g %% of their pixels are foreground; see docs/method.md"
            )
            logger.warning(told, state.epoch, 100 * foreground)
        line["seconds"] = round(time.monotonic() - self._epoch_begun, 2)
        try:
            with self.path.open("a") as stream:
                stream.write(json.dumps(line) + "\n")
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            fact = f"cannot be written ({error.strerror})"
            raise ProPLError(self.path, fact, "check the folder, its permissions and the free space") from error


def _epoch_of(line: str) -> float:
    """The epoch of a line of metrics.jsonl; infinite for a line that a kill has cut short, whose epoch will be repeated."""
    try:
        return json.loads(line)["epoch"]
    except json.JSONDecodeError:
        return math.inf


def _percent(values: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {100 * value:.1f}" for name, value in values.items())


class RecordRun:
    """Writes run.json of a training when it starts, ends or fails.

    Attach it after `KeepCheckpoints`, which gives the folder, the options and the cohort.
    """

    def attach(self, engine: Engine) -> None:
        self.keeper: KeepCheckpoints = engine.keeper
        cohort = self.keeper.cohort
        self.about = {"cases": cohort.counts, "datalist_sha256": cohort.sha256} if cohort else {}
        if is_writer():
            engine.add_event_handler(Events.STARTED, self._start)
            engine.add_event_handler(Events.COMPLETED, self._finish)
            engine.add_event_handler(Events.EXCEPTION_RAISED, self._fail)

    def _start(self, engine: Engine) -> None:
        inputs = self.keeper.cohort.inputs if self.keeper.cohort else []
        self.record = RunRecord(self.keeper.folder / "run.json", "train", self.keeper.options, inputs)
        self.record.write("running", results=self.about)

    def _finish(self, engine: Engine) -> None:
        keeper, metrics = self.keeper, self.keeper.folder / METRICS
        outputs = [keeper.model_dir / WEIGHTS, keeper.model_dir / FLAT_WEIGHTS, keeper.path, metrics]
        # With those before a resume, which "seconds" of run.json does not count.
        seconds = [json.loads(line)["seconds"] for line in metrics.read_text().splitlines()] if metrics.exists() else []
        results = {
            **self.about,
            "parameters": sum(parameter.numel() for parameter in keeper.network.parameters()),
            "epochs": engine.state.epoch,
            "steps": engine.state.iteration,
            "seconds_of_all_epochs": round(sum(seconds), 1) if seconds else None,
            "skipped_steps": getattr(engine, "bad_steps", 0),
            "best_epoch": keeper.best_epoch,
            "best_validation_mdice": keeper.best_mdice,
            "decoder": keeper.network.chosen_decoder,
        }
        self.record.write("finished", [path for path in outputs if path.exists()], results)

    def _fail(self, engine: Engine, error: BaseException) -> None:
        if hasattr(self, "record"):
            self.record.fail(self.keeper.folder, error, results={**self.about, "epochs": engine.state.epoch})
        raise error
