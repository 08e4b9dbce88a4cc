"""ProPL with views: who learns from whom, losses by hand, and what a bad option says."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from propl_monai import ProPL
from propl_monai.errors import ProPLError
from propl_monai.model.uplc import certainty, sharpen
from propl_monai.model.views import apply, undo
from propl_monai.training.cutmix import cutmix, draw_for
from propl_monai.training.losses import BCEDiceLoss
from propl_monai.training.methods.propl_views import ProPLViewsMethod
from propl_monai.training.pseudo_labels import Lesson

TASK = "breast cancer"
VIEWS = ["as-is", "mirror", "gamma 1.3"]
loss = BCEDiceLoss()


def labelled() -> dict[str, Any]:
    torch.manual_seed(1)
    return {"image": torch.randn(2, 1, 32, 32), "label": (torch.randn(2, 1, 32, 32) > 0).float(), "task": [TASK] * 2}


def unlabelled(maps: bool = True) -> dict[str, Any]:
    torch.manual_seed(2)
    image, strong = torch.randn(2, 2, 1, 32, 32)
    made: dict[str, Any] = {"image": image, "image_strong": strong, "task": [TASK] * 2}
    target, weight = (torch.rand(2, 2, 1, 32, 32) * 255).round()
    more = {"pseudo_label": target.to(torch.uint8), "certainty": weight, "picture_weight": torch.tensor([0.3, 0.8])}
    return made | (more if maps else {})


def lesson_of(batch: dict[str, Any]) -> Lesson:
    return Lesson(batch["pseudo_label"].float() / 255, batch["certainty"] / 255, batch["picture_weight"])


def logits(net: ProPL, batch: dict[str, Any], decoder: str, key: str = "image") -> Tensor:
    return net(batch[key], task=batch["task"], decoder=decoder)


@pytest.mark.parametrize(("student", "supervise_pd"), [("both", True), ("both", False), ("pd", True), ("pd", False)])
def test_a_step_with_given_pseudo_labels_by_hand(net: ProPL, student: str, supervise_pd: bool) -> None:
    options: dict[str, Any] = {"student_decoder": student, "supervise_pd": supervise_pd, "unlabelled_weight": 3.0}
    method = ProPLViewsMethod(net, teacher="offline", **options).eval()
    first, second = labelled(), unlabelled()
    result = method.step(first, second, 0.5)
    supervised = {name: loss(logits(net, first, name), first["label"]) for name in ("sd", "pd")}
    pseudo = {name: loss(logits(net, second, name, "image_strong"), *lesson_of(second)) for name in ("sd", "pd")}
    of_pseudo = pseudo["pd"] + (pseudo["sd"] if student == "both" else 0)
    of_labels = supervised["sd"] + (supervised["pd"] if supervise_pd else 0)
    torch.testing.assert_close(result["pseudo"], of_pseudo, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(result["supervised"], supervised["sd"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(result["loss"], of_labels + 3 * of_pseudo, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(result["logits"], logits(net, first, "sd"), rtol=1e-3, atol=1e-4)
    assert result["picture_weight"].item() == pytest.approx(0.55)
    torch.testing.assert_close(result["certainty"], second["certainty"].mean() / 255)
    # One kind of picture alone gives its part of the sum.
    parts = method.step(first, None, 0.5)["loss"], method.step(None, second, 0.5)["loss"]
    torch.testing.assert_close(sum(parts), result["loss"], rtol=1e-4, atol=1e-5)


def test_in_the_papers_form_labels_teach_sd_and_pseudo_labels_teach_pd(net: ProPL) -> None:
    method = ProPLViewsMethod(net, teacher="offline", student_decoder="pd").train()
    method.step(labelled(), None, 0.0)["loss"].backward()
    assert all(parameter.grad is None for parameter in net.decoder_pd.parameters())
    net.zero_grad(set_to_none=True)
    method.step(None, unlabelled(), 0.0)["loss"].backward()
    assert all(parameter.grad is None for parameter in net.decoder_sd.parameters())


@pytest.mark.parametrize("decoder", ["sd", "pd", "mean"])
def test_what_pictures_teach_by_hand(net: ProPL, decoder: str) -> None:
    options: dict[str, Any] = {"views": VIEWS, "temperature": 1e-5, "sharpness": 2.0, "teacher_decoder": decoder}
    method = ProPLViewsMethod(net, teacher="offline", **options).train()
    image = unlabelled()["image"]
    lesson, mean_variance = method.teach(image, [TASK] * 2)
    assert net.training and not lesson.target.requires_grad
    net.eval()
    maps = torch.stack(
        [undo(name, net(apply(name, image), task=TASK, decoder=decoder).detach().sigmoid()) for name in VIEWS]
    )
    mean, variance = maps.mean(0), maps.var(0, correction=0)
    torch.testing.assert_close(lesson.target, sharpen(mean, 2.0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(lesson.certainty, certainty(variance, 1e-5), rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(mean_variance, variance.mean(), rtol=1e-3, atol=1e-9)
    masks, whole = maps > 0.5, mean > 0.5
    both, total = (masks & whole).sum((2, 3, 4)), masks.sum((2, 3, 4)) + whole.sum((1, 2, 3))
    agreement = torch.where(total > 0, 2 * both / total.clamp_min(1), 1.0).mean(0)
    torch.testing.assert_close(lesson.picture_weight, agreement**2, rtol=0, atol=0.02)


def test_the_average_teaches_on_the_weak_view(net: ProPL) -> None:
    method = ProPLViewsMethod(net, views=VIEWS).train()
    average: Any = method.average
    assert average is not None and net.training and not any(part.training for part in average.modules())
    with torch.no_grad():
        for parameter in average.module.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))  # another network than the student
    batch = unlabelled(maps=False)
    lesson, variance = ProPLViewsMethod(average.module, teacher="offline", views=VIEWS).teach(
        batch["image"], [TASK] * 2
    )
    result = method.eval().step(None, batch, 0.5)
    parts = [loss(logits(net, batch, name, "image_strong"), *lesson) for name in ("sd", "pd")]
    torch.testing.assert_close(result["loss"], parts[0] + parts[1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(result["uncertainty"], variance)
    result["loss"].backward()
    assert all(parameter.grad is None for parameter in average.parameters())


def test_the_average_follows_the_network(net: ProPL) -> None:
    method = ProPLViewsMethod(net, decay=0.5)
    method.after_step()
    before = method.average.module.encoder.state_dict() if method.average else {}
    before = {key: value.clone() for key, value in before.items()}
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(1.0)
    method.after_step()  # with the decay 2/11 of a second step
    assert method.average is not None
    name, value = next(iter(method.average.module.encoder.named_parameters()))
    torch.testing.assert_close(value, before[name] + 9 / 11)
    assert method.predictor is net
    offline = ProPLViewsMethod(net, teacher="offline")
    offline.after_step()
    assert not any(key.startswith("average.") for key in offline.state_dict())


def test_cutmix_pastes_images_pseudo_labels_and_both_weights(net: ProPL) -> None:
    method = ProPLViewsMethod(net, teacher="offline", cutmix=1.0, cutmix_tasks=[TASK]).eval()
    batch = unlabelled()
    torch.manual_seed(3)
    result = method.step(None, batch, 0.5)
    torch.manual_seed(3)
    drawing = draw_for(batch, 1.0)
    assert drawing is not None
    target, weight, of_pictures = lesson_of(batch)
    share = cutmix(drawing, of_pictures[:, None, None, None].expand(2, 1, 32, 32)).mean((1, 2, 3))
    seen = {**batch, "image": cutmix(drawing, batch["image_strong"])}
    expected = [
        loss(logits(net, seen, name), cutmix(drawing, target), cutmix(drawing, weight), share) for name in ("sd", "pd")
    ]
    torch.testing.assert_close(result["loss"], expected[0] + expected[1], rtol=1e-4, atol=1e-5)
    assert 0.3 < share.min() and share.max() < 0.8
    whole = (
        ProPLViewsMethod(net, teacher="offline", cutmix=1.0, cutmix_tasks=["myocardium"]).eval().step(None, batch, 0.5)
    )
    plain = ProPLViewsMethod(net, teacher="offline").eval().step(None, batch, 0.5)
    torch.testing.assert_close(whole["loss"], plain["loss"])


def test_a_teacher_that_is_not_there_is_missed(net: ProPL) -> None:
    method = ProPLViewsMethod(net, teacher="offline")
    with pytest.raises(ProPLError, match="teacher: is 'offline', but the unlabelled images have no pseudo-labels; add"):
        method.step(None, unlabelled(maps=False), 0.0)


@pytest.mark.parametrize(
    ("options", "fact"),
    [
        ({"teacher": "ofline"}, "unknown teacher 'ofline'; did you mean 'offline'"),
        ({"teacher_decoder": "both"}, "unknown teacher_decoder 'both'"),
        ({"student_decoder": "sd"}, "unknown student_decoder 'sd'"),
        ({"cutmix_tasks": ["breast cancre"]}, "unknown task 'breast cancre'; did you mean 'breast cancer'"),
        ({"views": ["mirrored"]}, "did you mean 'mirror'"),
        ({"temperature": 0}, "temperature 0, sharpness 1.0; give a temperature above 0"),
        ({"sharpness": 0.5}, "sharpness 0.5; give"),
    ],
)
def test_bad_options_are_refused_at_once(net: ProPL, options: dict[str, Any], fact: str) -> None:
    with pytest.raises(ProPLError, match=fact):
        ProPLViewsMethod(net, **options)
