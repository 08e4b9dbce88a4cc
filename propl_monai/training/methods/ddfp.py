"""DDFP: a normalising flow learns where features are dense, and the strong view is moved to where they are not."""

from __future__ import annotations

from importlib import import_module
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from propl_monai.errors import ProPLError
from propl_monai.model.networks.base import Segmenter
from propl_monai.training.averages import averaged
from propl_monai.training.batch_norm import unrecorded_statistics
from propl_monai.training.confidence import check_threshold, confident, hard
from propl_monai.training.cutmix import draw_for, taught_view
from propl_monai.training.methods.base import Batch, Method
from propl_monai.training.methods.weak_to_strong import mixed, weak_probability

HIDDEN = 256  # of the flow's two networks
NOISE = 0.05  # added to the vectors that the flow learns from


class DDFPMethod(Method):
    """L = L_x + λ (½ L_u + ½ L_p) + L_flow; L_p is L_u with features moved by ε against the gradient of their density.

    Wang et al., CVPR 2024. L_u: an EMA teacher's confident labels for the strong view, with CutMix. L_flow: the negative
    log-likelihood, for each dimension, of detached vectors of v3 under a flow of two affine couplings (zuko) whose base has a
    Gaussian of unit variance for background and foreground of each task: labelled vectors know their class, unlabelled ones
    have the mixture of both. Its gradient reaches the flow alone, so that one optimizer serves both; the code has two.

    There the features of the ASPP, at stride 16, are moved so that the density of the decoder's features falls. Networks here
    have no such places in common, so the flow reads what is moved, v3, also at stride 16, normalised position by position.
    The code's ε = 4 is an absolute length; here it is a share of the mean length of the vectors.
    The config says that the means are fixed, the script learns them: here they are learnt. BatchNorm takes statistics of the
    perturbed pass apart, and does not record them, for which the code has a second set. Low-confidence pixels have weight 0.

    Args:
        network: the student, trained in place; one that gives features.
        confidence: τ; 0.5 lets every pixel count.
        unlabelled_weight: λ.
        epsilon: ε; 0 moves nothing.
        warmup: share of the training after which features are moved; the flow learns from the beginning.
        cutmix: probability that an image of the strong view gets a box of another of its task, see `cutmix`.
        decay: of the teacher, see `averages.averaged`.
    """

    name = "ddfp"

    def __init__(
        self,
        network: Segmenter,
        confidence: float = 0.95,
        unlabelled_weight: float = 1.0,
        epsilon: float = 0.3,
        warmup: float = 0.05,
        cutmix: float = 0.5,
        decay: float = 0.999,
    ) -> None:
        super().__init__(network)
        self.confidence, self.unlabelled_weight = check_threshold(self.name, confidence), unlabelled_weight
        self.epsilon, self.warmup, self.cutmix = epsilon, warmup, cutmix
        self.teacher = averaged(network, decay)
        self.density = TaskDensity(network.widths[2], max(1, len(network.task_names)))

    def step(self, labelled: Batch | None, unlabelled: Batch | None, progress: float) -> dict[str, Tensor]:
        """Losses of one pair of batches; see `Method.step`.

        Returns:
            "loss", its parts "supervised", "pseudo", "pseudo_moved" and "flow", "confident" (share of the pixels),
            "pseudo_foreground", and "logits" of the labelled batch.
        """
        drawing = draw_for(unlabelled, self.cutmix) if unlabelled else None
        views, batches = ([labelled["image"]], [labelled]) if labelled else ([], [])
        if unlabelled:
            views.append(taught_view(unlabelled, drawing))
            batches.append(unlabelled)
        image, tasks, decoder = torch.cat(views), self.tasks_of(batches), self.decoders[0]
        features = self.network.features(image, tasks)
        logits = self.network.logits(features, tasks, decoder)
        count = len(labelled["image"]) if labelled else 0
        numbers = self.network.numbers(tasks, len(image))
        label = labelled["label"].to(logits) if labelled else None
        flow = self.density.loss(features.v3.detach(), numbers, label)
        result: dict[str, Tensor] = {"flow": flow.detach()}
        losses = [flow]
        if labelled:
            losses.append(self.on_labels(logits[:count], labelled, result))
        if unlabelled:
            probability = weak_probability(self, cast(Segmenter, self.teacher.module), unlabelled)
            target, certain = mixed(drawing, hard(probability), confident(probability, self.confidence))
            pseudo = moved = self.loss(logits[count:], target, certain)
            if progress >= self.warmup:
                strong = features.changed(lambda maps: maps[count:])
                strong = strong._replace(v3=strong.v3 + self.density.descent(strong.v3, numbers[count:], self.epsilon))
                with unrecorded_statistics(self.network):
                    there = self.network.logits(strong, self.tasks_of([unlabelled]), decoder)
                moved = self.loss(there, target, certain)
            losses.append(self.unlabelled_weight * (pseudo + moved) / 2)
            result["pseudo"], result["pseudo_moved"] = pseudo.detach(), moved.detach()
            result["confident"], result["pseudo_foreground"] = certain.mean(), target.mean()
        result["loss"] = torch.stack(losses).sum()
        return result


class TaskDensity(nn.Module):
    """The density of the vectors of a map, as a flow to Gaussians of background and foreground of each task.

    Args:
        width: of the map.
        count: of tasks, K.
    """

    def __init__(self, width: int, count: int) -> None:
        super().__init__()
        try:
            zuko: Any = import_module("zuko")
        except ModuleNotFoundError as error:
            raise ProPLError("zuko", "is not installed", "pip install 'propl-monai[flow]'") from error
        self.flow = zuko.flows.NICE(width, transforms=2, hidden_features=(HIDDEN,)).transform
        self.means = nn.Parameter(torch.randn(count, 2, width))

    def log_density(self, vectors: Tensor, numbers: Tensor) -> Tensor:
        """Vectors (N, C) and their tasks (N,) to log-densities (N, 2) for each dimension, of background and foreground."""
        with torch.autocast(vectors.device.type, enabled=False):
            z, volume = self.flow().call_and_ladj(functional.layer_norm(vectors.float(), vectors.shape[1:]))
            gaussian = -0.5 * (z[:, None] - self.means[numbers]).square().sum(2)
            return (gaussian + volume[:, None]) / vectors.shape[1]

    def loss(self, maps: Tensor, numbers: Tensor, label: Tensor | None) -> Tensor:
        """Negative log-likelihood of maps (B, C, h, w) of tasks (B,); the first of them have labels (L, 1, H, W)."""
        vectors, of_vector = _vectors(maps, numbers)
        both = self.log_density(vectors + NOISE * torch.randn_like(vectors), of_vector)
        likelihood = _mixture(both, maps.shape[1])
        if label is not None:
            kind = functional.interpolate(label, maps.shape[-2:], mode="nearest").flatten().long()
            known = both[: len(kind)].gather(1, kind[:, None])[:, 0]
            likelihood = torch.cat((known, likelihood[len(kind) :]))
        return -likelihood.mean()

    def descent(self, maps: Tensor, numbers: Tensor, epsilon: float) -> Tensor:
        """The step of each vector, (B, C, h, w), that lowers its density; ε times as long as vectors are on average."""
        with torch.enable_grad():
            start = maps.detach().requires_grad_()
            density = _mixture(self.log_density(*_vectors(start, numbers)), maps.shape[1])
            (gradient,) = torch.autograd.grad(density.sum(), start)
        return -epsilon * maps.detach().norm(dim=1).mean() * functional.normalize(gradient, dim=1)


def _vectors(maps: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
    """Maps (B, C, h, w) as vectors (B · h · w, C), and the task of each."""
    positions = maps.shape[2] * maps.shape[3]
    return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1]), numbers.repeat_interleave(positions)


def _mixture(both: Tensor, width: int) -> Tensor:
    """Log-density for each dimension of the even mixture of two, (N, 2), given for each dimension of `width`."""
    return (torch.logsumexp(width * both, 1) - torch.log(torch.tensor(2.0))) / width
