"""The training engine: hands a labelled and an unlabelled batch to a method, and keeps the parameters finite."""

from __future__ import annotations

import logging
from typing import Any, cast

import torch
from ignite.engine import Engine, Events
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents
from monai.utils.enums import CommonKeys
from torch import Tensor, distributed, nn

from propl_monai.common.ranks import holds_everywhere, rank_and_count, unwrap
from propl_monai.data.loaders import PairedLoader
from propl_monai.errors import ProPLError, unknown
from propl_monai.training.methods.base import Method

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
LARGEST_RUN_OF_BAD_STEPS = 20

logger = logging.getLogger(__name__)


class SemiSupervisedTrainer(SupervisedTrainer):
    """A MONAI trainer of two streams. All MONAI and ignite handlers work with it; `engine.state.output` is the dict that the
    method returned, with "loss" as a float, and "image", "label" and "pred" of the labelled batch.

    Every epoch starts from random states that depend on (seed, epoch) only, so that a resumed run equals one that was never
    interrupted.

    Args:
        device: where to train.
        max_epochs: passes over the longer stream.
        train_data_loader: the paired streams.
        method: a `propl_monai.training.methods.base.Method`; may be wrapped by `DistributedDataParallel`.
        optimizer: over the method's parameters.
        seed: of the run; None for that of the loader.
        precision: "fp32", "bf16" (CUDA or CPU), or "fp16" (CUDA, with loss scaling).
        train_handlers: MONAI or ignite handlers.
    """

    def __init__(
        self,
        device: torch.device | str,
        max_epochs: int,
        train_data_loader: PairedLoader,
        method: nn.Module,
        optimizer: torch.optim.Optimizer,
        seed: int | None = None,
        precision: str = "fp32",
        train_handlers: list | None = None,
    ) -> None:
        if precision not in PRECISIONS:
            raise unknown("precision", "precision", precision, PRECISIONS)
        if precision == "fp16" and torch.device(device).type != "cuda":
            raise ProPLError("precision", "fp16 needs CUDA", "use bf16 or fp32 on this device")
        self.method, self.precision = method, precision
        self.seed = train_data_loader.seed if seed is None else seed
        self.bad_steps = self._bad_in_a_row = 0
        self.grad_scaler = torch.amp.GradScaler(torch.device(device).type, enabled=precision == "fp16")
        super().__init__(
            device=torch.device(device),
            max_epochs=max_epochs,
            train_data_loader=train_data_loader,
            network=unwrap(method).network,
            optimizer=optimizer,
            loss_function=lambda *_: None,  # the method computes it
            train_handlers=None,
            decollate=False,
        )
        self.add_event_handler(Events.EPOCH_STARTED, self._begin_epoch)
        self.add_event_handler(Events.EPOCH_COMPLETED, self._share_buffers)
        self._register_handlers(train_handlers or [])

    def _begin_epoch(self, engine: Engine) -> None:
        epoch = engine.state.epoch
        rank, _ = rank_and_count()
        torch.manual_seed((self.seed * 1009 + rank) * 100_003 + epoch)  # dropout, on every device
        self.data_loader.set_epoch(epoch)

    def _share_buffers(self, engine: Engine) -> None:
        """All ranks validate what rank 0 saves: BatchNorm statistics are exchanged only at the next forward."""
        if rank_and_count()[1] > 1:
            for buffer in self.method.buffers():
                distributed.broadcast(buffer, 0)

    def _iteration(self, engine: Engine, batchdata: dict[str, Any]) -> dict[str, Any]:
        labelled, unlabelled = (_to(batchdata[name], self.state.device) for name in ("labelled", "unlabelled"))
        progress = (engine.state.iteration - 1) / max(1, self.state.max_epochs * self.state.epoch_length)
        self.method.train()
        # A skipped step must leave no trace, but BatchNorm keeps a NaN in its running statistics for ever.
        self._buffers_before = [buffer.clone() for buffer in self.method.buffers()]
        self.optimizer.zero_grad(set_to_none=True)
        dtype = PRECISIONS[self.precision]
        with torch.autocast(self.state.device.type, dtype=dtype, enabled=dtype is not None):
            losses = self.method(labelled, unlabelled, progress)
        engine.state.output = self._output(losses, labelled)
        engine.fire_event(IterationEvents.FORWARD_COMPLETED)
        engine.fire_event(IterationEvents.LOSS_COMPLETED)
        self._descend(losses["loss"], batchdata)
        engine.fire_event(IterationEvents.BACKWARD_COMPLETED)
        engine.fire_event(IterationEvents.MODEL_COMPLETED)
        return engine.state.output

    def _descend(self, loss: Tensor, batchdata: dict[str, Any]) -> None:
        """One optimizer step, unless loss or gradient is not finite: such a step would poison the whole network."""
        self.grad_scaler.scale(loss).backward()
        self.grad_scaler.unscale_(self.optimizer)
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        # An infinite bound clips nothing: this only computes the norm, on the device, in one call.
        norm = nn.utils.clip_grad_norm_(parameters, float("inf"))
        finite = bool(torch.isfinite(norm)) and bool(torch.isfinite(loss))
        # Ranks share the gradient, but not the loss: if one of them skips a step, all must.
        if holds_everywhere(finite, loss.device):
            self.grad_scaler.step(self.optimizer)
            cast(Method, unwrap(self.method)).after_step()
            self._bad_in_a_row = 0
        else:
            self._skip(batchdata)
        self.grad_scaler.update()

    def _skip(self, batchdata: dict[str, Any]) -> None:
        self.bad_steps += 1
        self._bad_in_a_row += 1
        for buffer, before in zip(self.method.buffers(), self._buffers_before, strict=True):
            buffer.copy_(before)
        cases = [case for batch in batchdata.values() if batch for case in batch.get("case_id", [])]
        logger.warning("step %d skipped: loss or gradient is not finite (%s)", self.state.iteration, ", ".join(cases))
        if self._bad_in_a_row > LARGEST_RUN_OF_BAD_STEPS:
            raise ProPLError(
                f"step {self.state.iteration}",
                f"{self._bad_in_a_row} steps in a row had a loss or gradient that is not finite, last on {cases}",
                "lower learning_rate, use precision fp32, or look at these images",
            )

    @staticmethod
    def _output(losses: dict[str, Tensor], labelled: dict | None) -> dict[str, Any]:
        scalars = {key: value.detach().float() for key, value in losses.items() if key != "logits"}
        # One transfer from the device per step instead of one per figure.
        output: dict[str, Any] = dict(zip(scalars, torch.stack(list(scalars.values())).tolist(), strict=True))
        if labelled:
            output[CommonKeys.IMAGE], output[CommonKeys.LABEL] = labelled["image"], labelled["label"]
            output[CommonKeys.PRED] = losses.get("logits")
        return output


def _to(batch: dict[str, Any] | None, device: torch.device) -> dict[str, Any] | None:
    if batch is None:
        return None
    return {k: v.to(device, non_blocking=True) if isinstance(v, Tensor) else v for k, v in batch.items()}
