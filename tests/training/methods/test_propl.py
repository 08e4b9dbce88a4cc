"""Training steps: who learns from what, and that the economical step equals the plain one."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from propl_monai import ProPL
from propl_monai.model import uplc
from propl_monai.training.cutmix import cutmix, draw_cutmix
from propl_monai.training.losses import BCEDiceLoss
from propl_monai.training.methods.propl import ProPLMethod
from propl_monai.training.methods.supervised import SupervisedMethod

COMPACT = "tf_efficientnet_lite0"
TASKS = ["left atrium", "myocardium"]
State = dict[str, Tensor]


@pytest.fixture(scope="module")
def start() -> ProPL:
    """Random weights, with BatchNorm statistics that fit the images below, so that eval mode behaves as after training."""
    torch.manual_seed(0)
    net = ProPL(COMPACT).train()
    norms = [layer for layer in net.modules() if isinstance(layer, nn.BatchNorm2d)]
    with torch.no_grad():
        for layer in norms:
            layer.momentum = 0.5
        for _ in range(6):
            features = net.encode(torch.randn(4, 1, 64, 64))
            for decoder in ("sd", "pd"):
                net.decode(features, net.text("left atrium", 4), decoder)
    for layer in norms:
        layer.momentum = 0.1
    return net


@pytest.fixture
def net(start: ProPL) -> ProPL:
    return copy.deepcopy(start)


def batch(seed: int, labelled: bool = True, count: int = 2, strong: bool = False, size: int = 64) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    made: dict[str, Any] = {"image": torch.randn(count, 1, size, size, generator=generator), "task": TASKS[:count]}
    if labelled:
        made["label"] = torch.rand(count, 1, size, size, generator=generator).round()
    if strong:
        made["image_strong"] = torch.randn(count, 1, size, size, generator=generator)
    return made


def gradients(module: nn.Module, loss: Tensor) -> State:
    """Of every parameter; those without one are left out."""
    module.zero_grad(set_to_none=True)
    loss.backward()
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


def touched(found: State, part: str) -> bool:
    return any(name.startswith(part) for name in found)


def buffers(module: nn.Module) -> State:
    return {name: value.clone() for name, value in module.named_buffers()}


def changed(module: nn.Module, before: State) -> set[str]:
    return {name for name, value in module.named_buffers() if not torch.equal(value, before[name])}


# --- who learns from what


def test_unlabelled_loss_teaches_encoder_and_pd_and_never_sd(net: ProPL) -> None:
    for kind in uplc.PSEUDO_LABELS:
        method = ProPLMethod(net, pseudo_label=kind).train()
        found = gradients(net, method.step(None, batch(1, labelled=False), 0.0)["loss"])
        assert touched(found, "encoder") and touched(found, "decoder_pd")
        assert not touched(found, "decoder_sd")


def test_labelled_loss_teaches_encoder_and_sd_and_pd_only_when_asked(net: ProPL) -> None:
    found = gradients(net, ProPLMethod(net).train().step(batch(1), None, 0.0)["loss"])
    assert touched(found, "encoder") and touched(found, "decoder_sd") and not touched(found, "decoder_pd")
    found = gradients(net, ProPLMethod(net, supervise_pd=True).train().step(batch(1), None, 0.0)["loss"])
    assert touched(found, "encoder") and touched(found, "decoder_sd") and touched(found, "decoder_pd")


def test_both_batches_together_give_the_sum(net: ProPL) -> None:
    """In eval mode no image sees another, so a joint pass of the encoder must change nothing."""
    net.eval()
    method = ProPLMethod(net, unlabelled_weight=6.0, perturbation="element", strength=0.0)
    pairs: tuple[tuple[dict | None, dict | None], ...] = ((batch(1), None), (None, batch(2, False)))
    alone = [gradients(net, method.step(*pair, 0.0)["loss"]) for pair in pairs]
    together = gradients(net, method.step(batch(1), batch(2, False), 0.0)["loss"])
    for name, found in together.items():
        parts = [part[name] for part in alone if name in part]
        torch.testing.assert_close(found, torch.stack(parts).sum(0), rtol=1e-3, atol=1e-5)
    for decoder, source in (("decoder_sd", alone[0]), ("decoder_pd", alone[1])):
        names = [name for name in together if name.startswith(decoder)]
        assert names and set(names) <= set(source)


def test_supervised_method_leaves_pd_and_unlabelled_images_alone(net: ProPL) -> None:
    method = SupervisedMethod(net).eval()
    result = method.step(batch(1), batch(2, labelled=False), 0.5)
    found = gradients(net, result["loss"])
    assert touched(found, "encoder") and touched(found, "decoder_sd") and not touched(found, "decoder_pd")
    assert torch.equal(method.step(batch(1), None, 0.5)["loss"], result["loss"])
    assert torch.equal(method(batch(1), batch(3, False), 0.5)["loss"], result["loss"])
    assert torch.equal(
        result["supervised"], BCEDiceLoss()(net(batch(1)["image"], task=TASKS, decoder="sd"), batch(1)["label"])
    )
    assert not result["supervised"].requires_grad and not result["logits"].requires_grad


def test_supervised_part_is_the_same_in_both_methods(net: ProPL) -> None:
    net.eval()
    ours, control = (method(net).step(batch(1), None, 0.0) for method in (ProPLMethod, SupervisedMethod))
    assert torch.equal(ours["loss"], control["loss"]) and torch.equal(ours["logits"], control["logits"])


# --- the economical step against N + 1 runs of the whole network


def naive_losses(net: ProPL, labelled: dict, unlabelled: dict, passes: int, kind: str, rate: float) -> Tensor:
    """The whole network, encoder and both decoders, N + 1 times with autograd on, as the released code does."""
    text = net.text(unlabelled["task"], len(unlabelled["image"]))

    def run(image: Tensor, text: Tensor, perturbed: bool) -> tuple[Tensor, Tensor]:
        features = net.encode(image)
        seen = features._replace(v4=uplc.perturb(features.v4, kind, rate)) if perturbed else features
        return net.decode(seen, text, "sd"), net.decode(features, text, "pd")

    first, _ = run(labelled["image"], net.text(labelled["task"], len(labelled["image"])), False)
    stack = torch.stack([run(unlabelled["image"], text, True)[0].sigmoid() for _ in range(passes)])
    mean = stack.mean(0)
    variance = (stack - mean).square().mean(0)
    target = torch.exp(-variance) * mean
    _, second = run(unlabelled["image"], text, False)
    return BCEDiceLoss()(first, labelled["label"]) + 6 * BCEDiceLoss()(second, target.detach())


@pytest.mark.parametrize(("kind", "passes"), [("element", 3), ("token", 1)])
def test_gradient_equals_the_naive_loop(net: ProPL, kind: str, passes: int) -> None:
    net.eval().double()
    labelled, unlabelled = (
        {key: value.double() if isinstance(value, Tensor) else value for key, value in made.items()}
        for made in (batch(1, size=32), batch(2, labelled=False, size=32))
    )
    method = ProPLMethod(net, passes=passes, perturbation=kind, strength=0.5, unlabelled_weight=6.0)
    torch.manual_seed(7)
    found = gradients(net, method.step(labelled, unlabelled, 0.0)["loss"])
    torch.manual_seed(7)  # the same dropout masks
    expected = gradients(net, naive_losses(net, labelled, unlabelled, passes, kind, 0.5))
    assert set(found) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-5)
    torch.manual_seed(8)
    other = gradients(net, method.step(labelled, unlabelled, 0.0)["loss"])
    farthest = max((found[name] - other[name]).abs().max().item() for name in found)
    assert farthest > 1e-5  # other masks are noticed, so equality above says something


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("kind", uplc.PSEUDO_LABELS)
def test_pseudo_label_and_its_weight_reach_the_loss(
    net: ProPL, monkeypatch: pytest.MonkeyPatch, kind: str, power: int
) -> None:
    net.eval()
    mean, variance = torch.rand(2, 1, 32, 32), torch.rand(2, 1, 32, 32) / 4
    monkeypatch.setattr(ProPLMethod, "teach", lambda *_: (mean, variance))
    unlabelled = batch(2, labelled=False, size=32)
    with torch.no_grad():
        result = ProPLMethod(net, pseudo_label=kind, power=power).step(None, unlabelled, 0.0)
        logits = net(unlabelled["image"], task=TASKS, decoder="pd")
    target, weight = uplc.pseudo_label(mean, variance, kind, power)
    torch.testing.assert_close(result["loss"], BCEDiceLoss()(logits, target, weight), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(result["uncertainty"], variance.mean())
    torch.testing.assert_close(result["pseudo_foreground"], target.mean())


# --- the N passes


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("kind", uplc.PERTURBATIONS)
def test_the_passes_are_not_identical(net: ProPL, kind: str, training: bool) -> None:
    torch.manual_seed(0)
    method = ProPLMethod(net, passes=3, perturbation=kind).train(training)
    with torch.no_grad():
        features = net.encode(batch(1)["image"])
    mean, variance = method.teach(features, net.text(TASKS, 2))
    assert mean.shape == variance.shape == (2, 1, 64, 64)
    assert (variance > 0).float().mean() > 0.99
    assert 0 <= mean.min() and mean.max() <= 1 and variance.max() <= 0.25
    assert not mean.requires_grad and not variance.requires_grad


def test_one_pass_and_strength_zero_have_no_variance(net: ProPL) -> None:
    net.eval()
    features, text = net.encode(batch(1)["image"]), net.text(TASKS, 2)
    mean, variance = ProPLMethod(net, passes=4, strength=0.0).teach(features, text)
    assert variance.max() < 1e-12
    torch.testing.assert_close(mean, net.decode(features, text, "sd").sigmoid())
    assert not ProPLMethod(net, passes=1).teach(features, text)[1].any()


@pytest.mark.parametrize("kind", uplc.PERTURBATIONS)
@pytest.mark.parametrize("label", uplc.PSEUDO_LABELS)
def test_one_pass_of_strength_zero_switches_uplc_off(net: ProPL, kind: str, label: str) -> None:
    net.eval()
    method = ProPLMethod(net, passes=1, strength=0.0, perturbation=kind, pseudo_label=label)
    features, text = net.encode(batch(1)["image"]), net.text(TASKS, 2)
    mean, variance = method.teach(features, text)
    target, weight = uplc.pseudo_label(mean, variance, label)
    plain = net.decode(features, text, "sd").sigmoid()
    assert not variance.any() and torch.equal(mean, plain)
    assert torch.equal(target, plain if label == "soft" else (plain > 0.5).float())
    assert weight is None or bool((weight == 1).all())


def test_encoder_runs_once_and_sd_n_times_without_a_graph(net: ProPL, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, int, bool]] = []
    for name in ("encoder", "decoder_sd", "decoder_pd"):
        module = getattr(net, name)

        def counted(*inputs: Any, name: str = name, run: Any = module.forward) -> Any:
            calls.append((name, len(inputs[0] if name == "encoder" else inputs[0].v4), torch.is_grad_enabled()))
            return run(*inputs)

        monkeypatch.setattr(module, "forward", counted)
    ProPLMethod(net, passes=3).train().step(batch(1, count=1), batch(2, False), 0.0)
    taught = [("decoder_sd", 2, False)] * 3 + [("decoder_pd", 2, True)]
    assert calls == [("encoder", 3, True), ("decoder_sd", 1, True), *taught]


def test_memory_does_not_grow_with_the_number_of_passes(net: ProPL, monkeypatch: pytest.MonkeyPatch) -> None:
    alive: list[int] = []
    made: list[weakref.ref] = []
    run = uplc.stochastic_passes

    def counted(*arguments: Any) -> Iterator[Tensor]:
        for probability in run(*arguments):
            alive.append(sum(reference() is not None for reference in made))
            assert probability.grad_fn is None
            made.append(weakref.ref(probability))
            yield probability

    monkeypatch.setattr(uplc, "stochastic_passes", counted)
    with torch.no_grad():
        features = net.encode(batch(1)["image"])
    ProPLMethod(net, passes=6).teach(features, net.text(TASKS, 2))
    assert len(alive) == 6 and max(alive) <= 1


# --- BatchNorm


def test_passes_leave_no_trace_in_the_statistics_of_sd(net: ProPL) -> None:
    before = buffers(net)
    ProPLMethod(net, passes=3).train().step(None, batch(2, labelled=False), 0.0)
    names = changed(net, before)
    assert not any(name.startswith("decoder_sd") for name in names)
    assert any(name.startswith("encoder") for name in names) and any(name.startswith("decoder_pd") for name in names)


def test_statistics_of_sd_are_those_of_its_labelled_batches(net: ProPL) -> None:
    before = buffers(net)
    ProPLMethod(net).train().step(batch(1), None, 0.0)
    names = {name for name in changed(net, before) if name.startswith("decoder_sd")}
    assert names == {name for name in before if name.startswith("decoder_sd")}
    assert all(int(net.get_buffer(n)) == int(before[n]) + 1 for n in names if n.endswith("num_batches_tracked"))
    assert not any(name.startswith("decoder_pd") for name in changed(net, before))


def test_weak_view_leaves_no_trace_in_the_encoder(net: ProPL) -> None:
    other = copy.deepcopy(net)
    both = batch(2, labelled=False, strong=True)
    ProPLMethod(net).train().step(None, both, 0.0)
    with torch.no_grad():
        other.train().encode(both["image_strong"])
    for name, value in other.encoder.named_buffers():
        torch.testing.assert_close(net.encoder.get_buffer(name), value)


# --- batches of all kinds


@pytest.mark.parametrize(
    ("labelled", "unlabelled"),
    [
        (batch(1, count=1), batch(2, False)),
        (batch(1), batch(2, False, 1)),
        (batch(1, count=1), None),
        (None, batch(2, False, 1)),
    ],
    ids=["one labelled", "one unlabelled", "one labelled alone", "one unlabelled alone"],
)
def test_partial_batches(net: ProPL, labelled: dict | None, unlabelled: dict | None) -> None:
    result = ProPLMethod(net).train()(labelled, unlabelled, 0.0)
    assert result["loss"].isfinite() and result["loss"].shape == ()
    expected = {"loss"} | ({"supervised", "logits"} if labelled else set())
    expected |= {"pseudo", "uncertainty", "pseudo_foreground"} if unlabelled else set()
    assert set(result) == expected
    assert all(not value.requires_grad for key, value in result.items() if key != "loss")
    if labelled:
        assert result["logits"].shape == labelled["label"].shape


def test_loss_is_the_weighted_sum_of_its_parts(net: ProPL) -> None:
    for weight in (0.0, 1.0, 6.0):
        result = ProPLMethod(net, unlabelled_weight=weight).train().step(batch(1), batch(2, False), 0.0)
        torch.testing.assert_close(result["loss"], result["supervised"] + weight * result["pseudo"])


def test_strong_view_is_taught_by_the_weak_one(net: ProPL) -> None:
    net.eval()
    method = ProPLMethod(net, strength=0.0)
    both = batch(2, labelled=False, strong=True)
    text = net.text(TASKS, 2)
    weak, strong = (net.encode(both[key]) for key in ("image", "image_strong"))
    target = net.decode(weak, text, "sd").sigmoid().detach()
    expected = BCEDiceLoss()(net.decode(strong, text, "pd"), target)
    result = method.step(None, both, 0.0)
    torch.testing.assert_close(result["loss"], expected)
    other = BCEDiceLoss()(net.decode(weak, text, "pd"), target)
    assert (other - expected).abs() > 1e-5  # the wrong view would have been noticed
    found, wanted = gradients(net, result["loss"]), gradients(net, expected)
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-5)
    assert set(found) == set(wanted)  # the weak view carries no gradient


@pytest.mark.parametrize("label", uplc.PSEUDO_LABELS)
@pytest.mark.parametrize("strong", [True, False], ids=["strong view", "one view"])
def test_cutmix_pastes_what_pd_sees_and_its_pseudo_label(
    net: ProPL, monkeypatch: pytest.MonkeyPatch, label: str, strong: bool
) -> None:
    net.eval()
    both = {**batch(2, labelled=False, strong=strong), "task": [TASKS[0]] * 2}
    method = ProPLMethod(net, passes=1, strength=0.0, pseudo_label=label, cutmix=1.0)
    found = torch.rand(2, 1, 64, 64), torch.rand(2, 1, 64, 64) / 4
    encoded: list[Tensor] = []

    def teach(features: Any, text: Tensor) -> tuple[Tensor, Tensor]:
        encoded.append(features.v4)
        return found

    monkeypatch.setattr(method, "teach", teach)
    torch.manual_seed(5)
    result = method.step(None, both, 0.0)
    torch.manual_seed(5)
    drawing = draw_cutmix(both["task"], 64, 64, 1.0)
    target, weight = uplc.pseudo_label(*found, label)
    taught = cutmix(drawing, both["image_strong" if strong else "image"])
    logits = net(taught, task=TASKS[0], decoder="pd")
    expected = BCEDiceLoss()(logits, cutmix(drawing, target), None if weight is None else cutmix(drawing, weight))
    torch.testing.assert_close(result["loss"], expected, rtol=1e-5, atol=1e-6)
    assert (BCEDiceLoss()(logits, target, weight) - expected).abs() > 1e-4  # an unmixed target would be noticed
    torch.testing.assert_close(encoded[0], net.encode(both["image"]).v4)  # sd sees whole images


def test_tasks_of_the_two_batches_are_not_confused(net: ProPL) -> None:
    net.eval()
    labelled, unlabelled = batch(1), batch(2, labelled=False)
    method = ProPLMethod(net, strength=0.0)
    base = method.step(labelled, unlabelled, 0.0)
    swapped = method.step(labelled, {**unlabelled, "task": TASKS[::-1]}, 0.0)
    torch.testing.assert_close(base["supervised"], swapped["supervised"])
    assert (base["pseudo"] - swapped["pseudo"]).abs() > 1e-7


# --- two targets in the same pictures: only the prompt tells which one is meant


def twin_targets(size: int = 32) -> tuple[Tensor, dict[str, Tensor]]:
    """Pictures of a bright bar and a dark one at random heights, and the mask of each."""
    generator = torch.Generator().manual_seed(0)
    image = 0.1 * torch.randn(3, 1, size, size, generator=generator)
    masks = {task: torch.zeros(3, 1, size, size) for task in TASKS}
    for number in range(3):
        top = 5 * number
        for task, level, left in ((TASKS[0], 2.0, 2), (TASKS[1], -2.0, size // 2 + 2)):
            masks[task][number, 0, top : top + 16, left : left + 12] = 1
            image[number] += level * masks[task][number]
    return image, masks


def dice(logits: Tensor, mask: Tensor) -> float:
    found = logits > 0
    return float(2 * (found * mask).sum() / (found.sum() + mask.sum()))


def train_twin_targets(
    method: ProPLMethod | SupervisedMethod, net: ProPL, steps: int
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    image, masks = twin_targets()
    labelled = {
        "image": image.repeat(2, 1, 1, 1),
        "label": torch.cat([masks[TASKS[0]], masks[TASKS[1]]]),
        "task": [TASKS[0]] * 3 + [TASKS[1]] * 3,
    }
    unlabelled = {"image": image[:2], "task": TASKS}
    optimizer = torch.optim.AdamW(method.parameters(), lr=1e-3)
    for step in range(steps):
        optimizer.zero_grad()
        method.train().step(labelled, unlabelled, step / steps)["loss"].backward()
        optimizer.step()
    # By the statistics of the batch: the running ones need more than so few steps.
    with torch.no_grad():
        first, second = (net.train()(image, task=task, decoder="sd") for task in TASKS)
    return first, second, masks


@pytest.mark.parametrize("kind", [ProPLMethod, SupervisedMethod])
def test_prompt_chooses_between_targets_in_the_same_picture(kind: type[ProPLMethod] | type[SupervisedMethod]) -> None:
    torch.manual_seed(0)
    net = ProPL(COMPACT)
    first, second, masks = train_twin_targets(kind(net), net, 20)
    # Were the mask the same for both prompts, one gap would be minus the other.
    assert dice(first, masks[TASKS[0]]) - dice(first, masks[TASKS[1]]) > 0.4
    assert dice(second, masks[TASKS[1]]) - dice(second, masks[TASKS[0]]) > 0.4


def test_without_a_prompt_both_targets_get_the_same_mask() -> None:
    torch.manual_seed(0)
    net = ProPL(COMPACT, prompt_mode="none")
    first, second, masks = train_twin_targets(SupervisedMethod(net), net, 5)
    assert torch.equal(first, second)
    # The best single mask for two disjoint targets of one size, their union, has Dice 2/3 with each.
    assert dice(first, masks[TASKS[0]]) + dice(second, masks[TASKS[1]]) < 4 / 3 + 1e-6
