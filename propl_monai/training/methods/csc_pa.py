"""CSC-PA: features refined by other images and by remembered edges teach a masked view, and neighbours must agree."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from propl_monai.common.options import switch
from propl_monai.model.networks.base import Segmenter
from propl_monai.training.confidence import entropy, hard
from propl_monai.training.feature_head import FeatureHead, MemoryBank
from propl_monai.training.methods.base import Batch, Method

WIDTH = 64  # of the vectors that are compared
GRID = 28  # positions of a side, at most: attention costs the fourth power of it
PATCHES = 9  # of a side of the image: 57 of 513 px in the paper
MASKED, KEPT = 0.7, 0.7  # shares of the patches, see `draw_mask`
TEMPERATURE = 0.1  # of cosines


class CSCPAMethod(Method):
    """L = L_sup(f(x_l), y) + L_sup(g(x_l), y) + λ · L_sup(f(masked x_u), g(x_u)) + μ · L_aff, g with refined features.

    Ding et al., CVPR 2025. FPA: maps of correlation with an image's own prototypes attend to those of an image of the other
    stream. EPA: positions attend to a memory of the task's features on reliable edges. PAL (L_aff): how much of a position's
    surroundings is foreground, weighted by likeness of features, must agree with labels, and for masked images with the clean
    view. Patches are masked, rather those that g is sure of (`draw_mask`); pixels of high entropy teach nothing, and the mean
    loss of the others is weighted by total over kept.

    In the code f does not exist: training predicts by g, and validation, of one image at a time, skips FPA and EPA, so that
    it sees another network than was trained. Here both paths learn from labels, g makes the pseudo-labels, and f predicts.
    Its affinities are detached on both sides, so that PAL teaches nothing (`released_affinity`): here those of the student
    have a gradient. Its likeness is a cosine over the sum of all eight, here their softmax; its divergence takes rows of
    the image as distributions, here foreground and background of each position. Its attention takes the values from its
    own branch, here from the other; the softmax of EPA runs over rows of the image, here over the memory; 129 × 129
    positions are 28 × 28 here, and k-nearest-neighbour graphs of the prototypes are left out. Partners have the image's
    task. Its two optimizer steps, clean and masked, are one sum.

    Args:
        network: trained in place; one that gives features.
        unlabelled_weight: λ.
        affinity_weight: μ.
        refine: FPA and EPA; without them g is f.
        released_affinity: detach affinities, as the code does.
        drop: share of the unlabelled pixels, those of the highest entropy, that teach nothing; it falls to 0.
        bank: vectors of edges in the memory of each task.
    """

    name = "csc_pa"

    def __init__(
        self,
        network: Segmenter,
        unlabelled_weight: float = 1.0,
        affinity_weight: float = 1.0,
        refine: bool = True,
        released_affinity: bool = False,
        drop: float = 0.2,
        bank: int = 256,
    ) -> None:
        super().__init__(network)
        self.unlabelled_weight, self.affinity_weight, self.drop = unlabelled_weight, affinity_weight, drop
        self.refine = switch("refine", refine)
        self.released_affinity = switch("released_affinity", released_affinity)
        self.head = FeatureHead(network.widths, WIDTH)
        self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.back = nn.Conv2d(WIDTH, network.widths[3], 1)
        self.bank = MemoryBank(max(1, len(network.task_names)), bank, WIDTH)

    def step(self, labelled: Batch | None, unlabelled: Batch | None, progress: float) -> dict[str, Tensor]:
        """Losses of one pair of batches; see `Method.step`.

        Returns:
            "loss", its parts "supervised", "refined", "pseudo" and "affinity", "pseudo_foreground", and "logits" of the
            labelled batch.
        """
        batches = [batch for batch in (labelled, unlabelled) if batch]
        tasks, decoder = self.tasks_of(batches), self.decoders[0]
        features = self.network.features(torch.cat([batch["image"] for batch in batches]), tasks)
        plain = self.network.logits(features, tasks, decoder)
        numbers, count = self.network.numbers(tasks, len(plain)), len(labelled["image"]) if labelled else 0
        vectors = self.head(features)
        refined = plain
        if self.refine:
            other = functional.interpolate(
                self.refined(vectors, numbers, count), features.v4.shape[-2:], mode="bilinear"
            )
            refined = self.network.logits(features._replace(v4=features.v4 + self.back(other)), tasks, decoder)
        probability = refined.detach().float().sigmoid()
        result: dict[str, Tensor] = {}
        losses: list[Tensor] = []
        near: list[Tensor] = []
        reliable: list[Tensor] = []
        if labelled:
            label = labelled["label"].to(plain)
            losses.append(self.on_labels(plain[:count], labelled, result))
            losses.append(self.loss(refined[:count], label))
            result["refined"] = losses[-1].detach()
            reliable.append(hard(probability[:count]) == label)
            found = self._affinity(vectors[:count], plain[:count].sigmoid())
            near.append(agreement(found, surroundings(_resized(label, vectors)).mean(1)))
        if unlabelled:
            target, doubt = hard(probability[count:]), entropy(probability[count:])
            reliable.append(doubt <= doubt.flatten().quantile(1 - self.drop * (1 - progress)))
            kept = reliable[-1].to(target)
            mask = draw_mask(probability[count:], progress)
            seen = self.network.features(unlabelled["image"] * mask, self.tasks_of([unlabelled]))
            student = self.network.logits(seen, self.tasks_of([unlabelled]), decoder)
            pseudo = self.loss(student, target, kept / kept.mean()) / kept.mean()
            losses.append(self.unlabelled_weight * pseudo)
            result["pseudo"], result["pseudo_foreground"] = pseudo.detach(), target.mean()
            clean = self._affinity(vectors[count:], probability[count:]).detach()
            near.append(agreement(self._affinity(self.head(seen), student.sigmoid()), clean))
        affinity = torch.stack(near).mean()
        losses.append(self.affinity_weight * affinity)
        result["affinity"], result["loss"] = affinity.detach(), torch.stack(losses).sum()
        sure = _resized(torch.cat(reliable).float(), vectors)
        self._remember(vectors.detach(), _resized(hard(probability), vectors), sure, numbers)
        return result

    def refined(self, vectors: Tensor, numbers: Tensor, count: int) -> Tensor:
        """FPA and EPA of vectors (B, C, h, w), on a grid of at most 28 × 28: what is added to them, (B, C, g, g').

        Args:
            vectors: of the head.
            numbers: (B,), of tasks.
            count: how many images, the first ones, are labelled; partners are of the other kind, or the image itself.
        """
        size = (min(vectors.shape[2], GRID), min(vectors.shape[3], GRID))
        x = functional.adaptive_avg_pool2d(vectors, size).flatten(2)  # (B, C, N)
        prototypes = x.softmax(2) @ x.transpose(1, 2)  # (B, C, C): where each channel is strong, what is found there
        maps = (functional.normalize(prototypes, dim=2) @ functional.normalize(x, dim=1)).transpose(1, 2)  # (B, N, C)
        theirs = maps[partners(numbers, count)]
        found = maps + functional.scaled_dot_product_attention(self.query(maps), self.key(theirs), self.value(theirs))
        edges = []
        for one, number in zip(x.transpose(1, 2), numbers.tolist(), strict=True):
            memory = self.bank.of(number)
            likeness = functional.normalize(one, dim=1) @ functional.normalize(memory, dim=1).T / TEMPERATURE
            edges.append(likeness.softmax(1) @ memory if len(memory) else torch.zeros_like(one))
        return (found + torch.stack(edges)).transpose(1, 2).unflatten(2, size)

    def _affinity(self, vectors: Tensor, probability: Tensor) -> Tensor:
        """The share of foreground around each position, by likeness, (B, h, w) in [0, 1]."""
        unit = functional.normalize(vectors, dim=1)
        near = functional.unfold(functional.pad(unit, (1, 1, 1, 1)), 3).unflatten(1, (unit.shape[1], 9))
        cosines = torch.einsum("bcn,bckn->bkn", unit.flatten(2), near).unflatten(2, unit.shape[-2:])
        weight = (cosines[:, AROUND] / TEMPERATURE).softmax(1)
        share = (weight * surroundings(_resized(probability, vectors))).sum(1)
        return share.detach() if self.released_affinity else share

    def _remember(self, vectors: Tensor, mask: Tensor, reliable: Tensor, numbers: Tensor) -> None:
        """Push the vectors of reliable edges, those with both classes around them, to the memory of their task."""
        around = surroundings((mask > 0.5).to(vectors)).sum(1)
        edge = (around > 0) & (around < len(AROUND)) & (reliable[:, 0] > 0.5)
        for number in numbers.unique().tolist():
            own = (numbers == number)[:, None, None] & edge
            self.bank.push(number, vectors.permute(0, 2, 3, 1)[own])


AROUND = [0, 1, 2, 3, 5, 6, 7, 8]  # the eight neighbours in a window of 3 × 3


def surroundings(maps: Tensor) -> Tensor:
    """The eight neighbours of each position of maps (B, 1, h, w), as (B, 8, h, w); those of the border are repeated."""
    padded = functional.pad(maps, (1, 1, 1, 1), mode="replicate")
    return functional.unfold(padded, 3)[:, AROUND].unflatten(2, maps.shape[-2:])


def agreement(found: Tensor, wanted: Tensor) -> Tensor:
    """Mean Kullback-Leibler divergence of shares found from those wanted, of one shape, in [0, 1]; 0 where they agree."""
    found, wanted = (one.float().clamp(1e-4, 1 - 1e-4) for one in (found, wanted))
    return (wanted * (wanted / found).log() + (1 - wanted) * ((1 - wanted) / (1 - found)).log()).mean()


def partners(numbers: Tensor, count: int) -> Tensor:
    """For each image of a batch one of the other kind with its task, at random, or itself; (B,)."""
    labelled = torch.arange(len(numbers)) < count
    tasks = numbers.cpu()
    fitting = (tasks[:, None] == tasks) & (labelled[:, None] != labelled)
    chosen = torch.rand(fitting.shape).masked_fill(~fitting, -1).argmax(1)
    return torch.where(fitting.any(1), chosen, torch.arange(len(tasks))).to(numbers.device)


def draw_mask(probability: Tensor, progress: float) -> Tensor:
    """1 where an image (B, 1, H, W) of these probabilities is seen, 0 in masked patches of a ninth of its sides.

    Of the patches with foreground, the share 0.7 · (1 - progress) with the highest entropy is always seen; of those that are
    left, and of the patches without foreground, 70 % are masked, at random.
    """
    foreground = functional.adaptive_avg_pool2d(hard(probability), PATCHES).flatten(1)
    doubt = functional.adaptive_avg_pool2d(entropy(probability) * hard(probability), PATCHES).flatten(1)
    order = (doubt / foreground.clamp(min=1e-6)).masked_fill(foreground == 0, -1).argsort(1, descending=True).argsort(1)
    always = (foreground > 0) & (order < KEPT * (1 - progress) * (foreground > 0).sum(1, keepdim=True))
    seen = always | (torch.rand(foreground.shape).to(foreground) >= MASKED)
    patches = seen.to(probability.dtype).unflatten(1, (1, PATCHES, PATCHES))
    return functional.interpolate(patches, probability.shape[-2:], mode="nearest")


def _resized(maps: Tensor, like: Tensor) -> Tensor:
    return functional.adaptive_avg_pool2d(maps, (like.shape[2], like.shape[3]))
