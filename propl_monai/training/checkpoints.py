"""What is kept of a training: the best weights, and the state to resume from."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from ignite.engine import Engine, Events
from monai.engines import Evaluator

from propl_monai.common.files import sweep_orphans
from propl_monai.common.options import switch
from propl_monai.common.ranks import is_writer, unwrap
from propl_monai.datasets.cohort import GivenItems, TrainingCohort
from propl_monai.errors import ProPLError
from propl_monai.model.weights import STATE, WEIGHTS, architecture, copy_aside, load_state, save_state, save_weights
from propl_monai.training.methods.base import Method
from propl_monai.training.validation import validation_of

logger = logging.getLogger(__name__)

NO_SCORE = -1.0
IN_HEADER = (  # of the weights
    *("preset", "spatial_size", "normalisation", "crop_sector", "labelled_fraction", "seed", "leave_out"),
)
MAY_CHANGE = ("prompts", "resume", "dataset_dir", "device", "allow_unverified")  # between a run and its continuation


class KeepCheckpoints:
    """Keeps the best weights by validation mDice, with the decoder that reached it, and the state to resume from.

    The best weights go to `model_dir` (model.safetensors, model.pt), the resume state to `output_dir`. Without validation
    the last weights are kept. What is kept of the method, which may be wrapped by `DistributedDataParallel`: the weights of
    its predictor as the result, and everything it holds to resume from. Attach it after the validation handler and before
    `TrainingLog` and `RecordRun`, which read their folder, options and cohort from it.

    Args:
        lr_scheduler: saved and restored with the method and the optimizer of the trainer.
        output_dir, model_dir: folders.
        validator: the evaluator that the validation handler runs.
        options: settings of the run, see `run_options`; with `resume` the run continues from `output_dir`, or starts if
            nothing is there yet.
        cohort: the cases of the run.

    Attributes:
        before_saving: called with the engine at the end of each epoch, before the state is saved. What they record of the
            epoch is there if the run can be resumed after it, and a resumed run takes back what a kill left too much.
    """

    def __init__(
        self,
        lr_scheduler: Any,
        output_dir: str,
        model_dir: str,
        validator: Evaluator | None = None,
        options: Mapping[str, Any] | None = None,
        cohort: TrainingCohort | GivenItems | None = None,
    ) -> None:
        self.lr_scheduler, self.validator, self.cohort = lr_scheduler, validator, cohort
        self.folder, self.model_dir = Path(output_dir), Path(model_dir)
        self.path = self.folder / STATE
        self.options = dict(options or {})
        self.resume = switch("resume", self.options.get("resume", False))
        self.best_score, self.best_epoch = NO_SCORE, 0
        self.before_saving: list[Callable[[Engine], None]] = []

    @property
    def best_mdice(self) -> float | None:
        """The validation mDice of the kept weights, 0 to 1; None without validation."""
        return None if self.best_score == NO_SCORE else self.best_score

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer, whose method and optimizer are saved and restored."""
        self.method, self.optimizer = cast(Method, unwrap(engine.method)), engine.optimizer
        self.network = self.method.predictor
        self.options["epochs"] = engine.state.max_epochs
        data = {"datalist_sha256": self.cohort.sha256 if self.cohort else None}
        self.about = {key: self.options[key] for key in IN_HEADER if key in self.options} | data
        self.fingerprint = {key: value for key, value in self.options.items() if key not in MAY_CHANGE} | data
        self.fingerprint |= {**architecture(self.network), "prompt_bank_sha256": self.network.prompt_bank_sha256}
        engine.keeper = self
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._keep)

    def _start(self, engine: Engine) -> None:
        for folder in (self.folder, self.model_dir):
            if is_writer() and folder.is_dir():
                sweep_orphans(folder)
        self.fingerprint |= {"max_epochs": engine.state.max_epochs, "epoch_length": engine.state.epoch_length}
        if self.resume and self.path.exists():
            self._restore(engine)
        elif is_writer():
            self._make_room(engine)

    def _restore(self, engine: Engine) -> None:
        state = load_state(self.path)
        found = {"network": "propl", **state["fingerprint"]}  # states from before there was a choice do not say so
        differing = [
            f"{k} {found.get(k)!r} there, {v!r} here" for k, v in self.fingerprint.items() if found.get(k) != v
        ]
        if differing:
            cure = "resume with the options of that run, or choose another output_dir"
            raise ProPLError(self.path, "is of another run: " + "; ".join(differing), cure)
        if state["best_epoch"] and is_writer() and not (self.model_dir / WEIGHTS).exists():
            fact = f"lacks the best weights of the run in {self.folder}, of epoch {state['best_epoch']}"
            raise ProPLError(self.model_dir, fact, "resume with the model_dir of that run")
        self.method.load_state_dict(state["method"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.lr_scheduler.load_state_dict(state["lr_scheduler"])
        engine.grad_scaler.load_state_dict(state["grad_scaler"])
        engine.state.epoch, engine.state.iteration = state["epoch"], state["iteration"]
        engine.bad_steps = state["bad_steps"]
        self.best_score, self.best_epoch = state["best_score"], state["best_epoch"]
        best = "without validation" if self.best_mdice is None else f"best validation mDice {100 * self.best_mdice:.1f}"
        logger.info("resumed after epoch %d, %s", state["epoch"], best)

    def _make_room(self, engine: Engine) -> None:
        """Never lose work: an unfinished run is not overwritten, earlier weights are copied aside."""
        if self.path.exists():
            state = load_state(self.path)
            if state["epoch"] < state["fingerprint"]["max_epochs"]:
                fact = f"holds a run that stopped after epoch {state['epoch']} of {state['fingerprint']['max_epochs']}"
                cure = "add --resume true to continue it, or delete or choose another output_dir"
                raise ProPLError(self.folder, fact, cure)
            self.path.unlink()
        # They stay in place until the first epoch replaces them: MONAI Label predicts with them meanwhile.
        for copy in copy_aside(self.model_dir):
            logger.info("earlier %s copied to %s", copy.name, copy.parent)

    def _keep(self, engine: Engine) -> None:
        dice = validation_of(self.validator, engine.state.epoch)
        score = max(dice.per_decoder.values()) if dice else NO_SCORE
        better = score > self.best_score if dice else self.best_mdice is None
        if better:
            self.best_score, self.best_epoch = score, engine.state.epoch
            self.network.choose_decoder(dice.best_decoder if dice else self.method.decoders[0])
        if not is_writer():
            return
        if better:
            about = {**self.about, "epoch": engine.state.epoch, "validation_mdice": score if dice else None}
            save_weights(self.network, self.model_dir, about)
        for record in self.before_saving:
            record(engine)
        save_state(self.path, self._state(engine))

    def _state(self, engine: Engine) -> dict[str, Any]:
        return {
            "method": self.method.state_dict(),
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
