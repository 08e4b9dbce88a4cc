"""ProPL whose passes of UPLC are views of the picture, with pseudo-labels made in rounds or by an averaged network."""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from propl_monai.common.options import switch
from propl_monai.errors import ProPLError, unknown
from propl_monai.model import uplc
from propl_monai.model.network import BOTH, DECODERS, ProPL
from propl_monai.model.views import VIEWS, check_views, look
from propl_monai.training.averages import averaged
from propl_monai.training.cutmix import CutMix, cutmix, draw_for, taught_view
from propl_monai.training.methods.base import Batch, Method
from propl_monai.training.pseudo_labels import LEVELS, Lesson, PseudoLabels

TEACHERS = ("offline", "ema")
STUDENTS = {"both": BOTH, "pd": ("pd",)}


class ProPLViewsMethod(Method):
    """L = L_sup(x_l, y) + λ · L_sup(x_u, ŷ), ŷ and its weights from views of x_u (eqs. 4-5, see `model.views`).

    Beside the paper's weight of pixels, the agreement of the views weighs whole pictures. The student sees the strong view,
    if the batch has one. Use it with `rounds.Rounds`, which leaves unlabelled pictures out until there is a teacher.

    Args:
        network: trained in place.
        views: names, see `views.view_of`.
        temperature: the variance at which a pixel counts 1/e.
        sharpness: s of `uplc.sharpen`; 1 leaves the mean as it is.
        teacher: "offline", the pseudo-labels that `Rounds` makes at the beginning of a cycle by the network as it then is and
            that come with the batches; or "ema", those that the running average of the network makes at every step.
        teacher_decoder: decoder that makes pseudo-labels: "sd", "pd", or "mean".
        student_decoder: who learns from them: "both" decoders, or "pd" alone as in the paper.
        unlabelled_weight: λ.
        supervise_pd: labels supervise pd as well as sd.
        cutmix: probability that a picture of the student gets a box of another of its task, see `cutmix`.
        cutmix_tasks: the tasks whose pictures are mixed, such as lesions, which may lie anywhere; None for all.
        decay: of the running average, see `averages.averaged`.
    """

    name = "propl_views"
    only = "propl"
    decoders = DECODERS
    network: ProPL

    def __init__(
        self,
        network: ProPL,
        views: Sequence[str] = VIEWS,
        temperature: float = 0.02,
        sharpness: float = 1.0,
        teacher: str = "ema",
        teacher_decoder: str = "sd",
        student_decoder: str = "both",
        unlabelled_weight: float = 1.0,
        supervise_pd: bool = False,
        cutmix: float = 0.0,
        cutmix_tasks: Sequence[str] | None = None,
        decay: float = 0.99,
    ) -> None:
        super().__init__(network)
        names = network.prompts.bank.task_names if network.prompts else []
        for option, given, known in (
            ("teacher", [teacher], TEACHERS),
            ("teacher_decoder", [teacher_decoder], DECODERS),
            ("student_decoder", [student_decoder], tuple(STUDENTS)),
            ("cutmix_tasks", cutmix_tasks or [], names),
        ):
            for name in given:
                if name not in known:
                    raise unknown(option, option.replace("cutmix_tasks", "task"), name, known)
        if not (temperature > 0 and sharpness >= 1):
            fact = f"temperature {temperature}, sharpness {sharpness}"
            raise ProPLError("propl_views", fact, "give a temperature above 0 and a sharpness of 1 or more")
        self.views, self.temperature, self.sharpness = check_views(views), temperature, sharpness
        self.teacher, self.teacher_decoder, self.students = teacher, teacher_decoder, STUDENTS[student_decoder]
        self.unlabelled_weight, self.supervise_pd = unlabelled_weight, switch("supervise_pd", supervise_pd)
        self.cutmix, self.cutmix_tasks = cutmix, cutmix_tasks
        self.average: AveragedModel | None = averaged(network, decay) if teacher == "ema" else None
        # Of the file of pseudo-labels that the present cycle learns from; kept with the weights, for a resumed run.
        self.register_buffer("pseudo_labels_sha256", torch.zeros(32, dtype=torch.uint8))

    def step(self, labelled: Batch | None, unlabelled: Batch | None, progress: float) -> dict[str, Tensor]:
        """Losses of one pair of batches; see `Method.step`. The encoder sees both in one pass, and so does a decoder.

        Args:
            labelled, progress: see `Method.step`.
            unlabelled: with a teacher "offline" it holds, as `Rounds` adds them, "pseudo_label" and "certainty"
                (B, 1, H, W) from 0 to 255, in the geometry of its images, and "picture_weight" (B,).

        Returns:
            "loss", its parts "supervised" (of sd) and "pseudo" (of all that learn from pseudo-labels, before λ), the means
            "certainty" (pixels), "picture_weight" and "pseudo_foreground", with a teacher "ema" "uncertainty" (of the
            variance), and "logits" of sd for the labelled batch.
        """
        drawing = draw_for(unlabelled, self.cutmix, self.cutmix_tasks) if unlabelled else None
        result: dict[str, Tensor] = {}
        lesson = self._lesson(unlabelled, drawing, result) if unlabelled else None
        images = ([labelled["image"]] if labelled else []) + ([taught_view(unlabelled, drawing)] if unlabelled else [])
        texts = [self.network.text(batch.get("task"), len(batch["image"])) for batch in (labelled, unlabelled) if batch]
        features, text = self.network.encode(torch.cat(images)), torch.cat(texts)
        count = len(labelled["image"]) if labelled else 0
        losses, pseudo = [], []
        for decoder in BOTH:
            begin = 0 if decoder == "sd" or self.supervise_pd else count
            end = len(text) if decoder in self.students else count
            if begin == end:
                continue
            rows = itemgetter(slice(begin, end))
            logits = self.network.decode(features.changed(rows), rows(text), decoder)
            of_labels, of_lesson = logits[: count - begin], logits[count - begin :]
            if labelled and len(of_labels):
                losses.append(self.loss(of_labels, labelled["label"]))
                if decoder == "sd":
                    result["supervised"], result["logits"] = losses[-1].detach(), of_labels.detach()
            if lesson and len(of_lesson):
                pseudo.append(self.loss(of_lesson, *lesson))
        if pseudo:
            losses.append(self.unlabelled_weight * torch.stack(pseudo).sum())
            result["pseudo"] = torch.stack(pseudo).sum().detach()
        result["loss"] = torch.stack(losses).sum()
        return result

    def _lesson(self, batch: Batch, drawing: CutMix | None, result: dict[str, Tensor]) -> Lesson:
        if self.average is None:
            if "pseudo_label" not in batch:
                fact = "is 'offline', but the unlabelled images have no pseudo-labels"
                raise ProPLError("teacher", fact, "add the handler Rounds to the trainer, or set teacher to 'ema'")
            target, certainty = (batch[key].float() / LEVELS for key in ("pseudo_label", "certainty"))
            lesson = Lesson(target, certainty, batch["picture_weight"])
        else:
            lesson, result["uncertainty"] = self.teach(batch["image"], batch.get("task"))
        if drawing:
            # A mixed picture counts as much as its two parts do, by their areas.
            weights = lesson.picture_weight[:, None, None, None].expand_as(lesson.target)
            maps = (cutmix(drawing, each) for each in (lesson.target, lesson.certainty, weights))
            lesson = Lesson(next(maps), next(maps), next(maps).mean((1, 2, 3)))
        result["certainty"], result["picture_weight"] = lesson.certainty.mean(), lesson.picture_weight.mean()
        result["pseudo_foreground"] = lesson.target.mean()
        return lesson

    @property
    def lesson_options(self) -> dict[str, Any]:
        """What pseudo-labels depend on beside the network."""
        options = {key: getattr(self, key) for key in ("temperature", "sharpness", "teacher_decoder")}
        return {"views": list(self.views), **options}

    def chosen(self, labels: PseudoLabels, tasks: Sequence[str | None], stage: int) -> PseudoLabels:
        """All pictures teach, each as much as its views agree."""
        return labels

    @torch.no_grad()
    def teach(self, image: Tensor, task: Sequence[str] | None = None) -> tuple[Lesson, Tensor]:
        """What pictures teach by their views, and the mean variance of these.

        The teacher is in eval mode: the average where there is one, else the network as it is.

        Args:
            image: (B, 1, H, W), as the network wants it.
            task: B names, or None for the default task.
        """
        teacher = self.network if self.average is None else self.average.module
        training = teacher.training
        teacher.eval()
        text = self.network.text(task, len(image)).repeat(len(self.views), 1, 1)
        seen = look(
            lambda shown: teacher(shown, text=text, decoder=self.teacher_decoder).float().sigmoid(), image, self.views
        )
        teacher.train(training)
        target = uplc.sharpen(seen.mean, self.sharpness)
        certainty = uplc.certainty(seen.variance, self.temperature)
        return Lesson(target, certainty, seen.agreement.square()), seen.variance.mean()
