"""What is kept of a training: the best weights, and the state to resume from."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from ignite.engine import Engine, Events
from monai.engines import Evaluator
from torch import nn

from propl_monai.common.files import sweep_orphans
from propl_monai.common.options import switch
from propl_monai.common.ranks import is_writer, unwrap
from propl_monai.errors import ProPLError
from propl_monai.model.weights import STATE, WEIGHTS, architecture, copy_aside, load_state, save_state, save_weights
from propl_monai.training.methods.base import Method
from propl_monai.training.validation import validation_of

logger = logging.getLogger(__name__)


class KeepCheckpoints:
    """Best weights by validation mDice, with the decoder that reached it, and the state to resume from.

    The best weights go to `model_dir` (model.safetensors, model.pt), the resume state to `output_dir`. Without
    validation the last weights are kept. Attach it after the validation handler and before the log.

    Args:
        method, optimizer, lr_scheduler: what is saved and restored; of the method, which may be wrapped by
            `DistributedDataParallel`, the predictor's weights are kept as the result, and all it holds to resume from.
        output_dir, model_dir: folders.
        validator: the evaluator that the validation handler runs.
        resume: go on from `output_dir`, from the beginning when nothing is there yet.
        about: header entries for the weights, see `checkpoint.save_weights`.
        fingerprint: what must be equal for a resume to make sense, such as seed, epochs and datalist hash.
    """

    def __init__(
        self,
        method: nn.Module,
        optimizer: torch.optim.Optimizer,
        lr_scheduler: Any,
        output_dir: str,
        model_dir: str,
        validator: Evaluator | None = None,
        resume: bool = False,
        about: Mapping[str, Any] | None = None,
        fingerprint: Mapping[str, Any] | None = None,
    ) -> None:
        self.method, self.optimizer, self.lr_scheduler = cast(Method, unwrap(method)), optimizer, lr_scheduler
        self.network = self.method.predictor
        self.path, self.model_dir = Path(output_dir) / STATE, Path(model_dir)
        self.validator, self.resume = validator, switch("resume", resume)
        self.about = dict(about or {})
        bank = self.network.prompts.bank.sha256 if self.network.prompts else None
        self.fingerprint = {**(fingerprint or {}), **architecture(self.network), "prompt_bank_sha256": bank}
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
        self.method.load_state_dict(state["method"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.lr_scheduler.load_state_dict(state["lr_scheduler"])
        engine.grad_scaler.load_state_dict(state["grad_scaler"])
        engine.state.epoch, engine.state.iteration = state["epoch"], state["iteration"]
        engine.bad_steps = state["bad_steps"]
        self.best_score, self.best_epoch = state["best_score"], state["best_epoch"]
        logger.info("resumed after epoch %d, best validation mDice %.1f", state["epoch"], 100 * self.best_score)

    def _make_room(self, engine: Engine) -> None:
        """Never lose work: an unfinished run is not overwritten, earlier weights are copied aside."""
        if self.path.exists():
            state = load_state(self.path)
            if state["epoch"] < state["fingerprint"]["max_epochs"]:
                fact = f"holds a run that stopped after epoch {state['epoch']} of {state['fingerprint']['max_epochs']}"
                raise ProPLError(
                    self.path.parent, fact, "add --resume true to go on, or delete or choose another output_dir"
                )
            self.path.unlink()
        # They stay in place until the first epoch replaces them: MONAI Label predicts with them meanwhile.
        for copy in copy_aside(self.model_dir):
            logger.info("earlier %s copied to %s", copy.name, copy.parent)

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
