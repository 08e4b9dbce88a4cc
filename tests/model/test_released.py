"""`from_released` against a reference built from MONAI, torch and transformers blocks only, none of ours."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from benchmarks.speed.reference import SIZES, PlainProPL
from propl_monai import PromptBank, ProPL, ProPLError, from_released
from propl_monai.model.encoder import Features
from propl_monai.model.weights import load_network, save_weights

TOLERANCE = 1e-4
VARIES = 0.05  # least standard deviation of a reference map; a flat one would equal any other flat one
DECODERS = ("sd", "pd")


class Reference(PlainProPL):
    """The plain network, with the parts of the authors' that must be ignored."""

    def __init__(self) -> None:
        super().__init__(SIZES["paper"])
        self.encoder.project_head = nn.Linear(768, 512)
        self.text_encoder = nn.Module()
        self.text_encoder.model = nn.Embedding(30, 768)
        self.text_encoder.project_head = nn.Sequential(nn.Linear(768, 512), nn.LayerNorm(512))

    def maps(self, image: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.encoder(image))

    def probability(self, maps: tuple[Tensor, ...], text: Tensor, decoder: str) -> Tensor:
        return self.decode(maps, text, decoder).sigmoid()


def randomise(module: nn.Module) -> None:
    """Every tensor that is learned or tracked; defaults such as layer scale 1e-6 or bias 0 would hide a wrong name."""
    generator = torch.Generator().manual_seed(7)
    for name, value in module.state_dict().items():
        noise = torch.randn(value.shape, generator=generator)
        if name.endswith(".pe") or name.endswith("num_batches_tracked"):
            continue
        if name.endswith("scale"):  # alpha
            value.copy_(1.5 + 0.5 * noise)
        elif name.endswith(("running_var", "layer_scale_parameter")) or (value.dim() == 1 and name.endswith("weight")):
            value.copy_(0.5 + torch.rand(value.shape, generator=generator))
        elif value.dim() == 1:
            value.copy_(0.3 * noise)
        else:
            # The head four times as strong as its width asks for, so that the probability maps leave 0.5 well behind.
            gain = 4.0 if "out.conv" in name else 1.0
            value.copy_(gain * noise / (value[0].numel() ** 0.5))


@pytest.fixture(scope="module", autouse=True)
def no_gradient() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def reference(no_gradient: None) -> Reference:
    torch.manual_seed(3)
    model = Reference().eval()
    randomise(model)
    return model


@pytest.fixture(scope="module")
def released(reference: Reference) -> dict[str, Tensor]:
    return reference.state_dict()


@pytest.fixture(scope="module")
def net(released: dict[str, Tensor]) -> ProPL:
    return from_released(released)


@pytest.fixture(scope="module")
def text(no_gradient: None) -> Tensor:
    return torch.randn(2, 24, 768, generator=torch.Generator().manual_seed(11))


@pytest.fixture(scope="module")
def image(no_gradient: None) -> Tensor:
    return torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(12))


@pytest.fixture(scope="module")
def maps(reference: Reference, image: Tensor) -> tuple[Tensor, ...]:
    return reference.maps(image)


@pytest.fixture(scope="module")
def wanted(reference: Reference, maps: tuple[Tensor, ...], text: Tensor) -> dict[str, Tensor]:
    return {decoder: reference.probability(maps, text, decoder) for decoder in DECODERS}


@pytest.fixture(scope="module")
def features(net: ProPL, image: Tensor) -> Features:
    return net.encode(image)


def difference(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max())


# ---- equality ----------------------------------------------------------------------------------------------------


def test_feature_maps_are_the_stage_outputs(features: Features, maps: tuple[Tensor, ...]) -> None:
    assert [tuple(m.shape[1:]) for m in maps] == [(96, 56, 56), (192, 28, 28), (384, 14, 14), (768, 7, 7)]
    for ours, theirs in zip(features[:4], maps, strict=True):
        assert difference(ours, theirs) < TOLERANCE * float(theirs.abs().max())


@pytest.mark.parametrize("decoder", DECODERS)
def test_probabilities_equal_the_reference(
    net: ProPL, features: Features, text: Tensor, wanted: dict[str, Tensor], decoder: str
) -> None:
    assert wanted[decoder].shape == (2, 1, 224, 224)
    assert min(float(one.std()) for one in wanted[decoder]) > VARIES
    found = net.decode(features, text, decoder=decoder).sigmoid()
    print(f"{decoder}: largest difference {difference(found, wanted[decoder]):.2e}, std {wanted[decoder].std():.3f}")
    assert difference(found, wanted[decoder]) < TOLERANCE


def test_grey_image_equals_its_three_channels(reference: Reference, net: ProPL, image: Tensor, text: Tensor) -> None:
    grey = image[:1, :1]
    theirs = reference.probability(reference.maps(grey.repeat(1, 3, 1, 1)), text[:1], "sd")
    assert difference(net.decode(net.encode(grey), text[:1], decoder="sd").sigmoid(), theirs) < TOLERANCE


def test_forward_predicts_with_pd_as_the_authors_do(net: ProPL, image: Tensor, text: Tensor, wanted: dict) -> None:
    assert net.chosen_decoder == "pd" and not net.training
    assert difference(net(image[:1], text=text[:1]).sigmoid(), wanted["pd"][:1]) < TOLERANCE


# ---- that equality can fail ---------------------------------------------------------------------------------------


def swap(first: str, second: str) -> Callable[[ProPL], None]:
    def change(net: ProPL) -> None:
        a, b = net.get_submodule(first), net.get_submodule(second)
        kept = copy.deepcopy(a.state_dict())
        a.load_state_dict(b.state_dict())
        b.load_state_dict(kept)

    return change


def zero_alpha(stage: str) -> Callable[[ProPL], None]:
    def change(net: ProPL) -> None:
        net.get_parameter(f"decoder_sd.{stage}.attention.scale").zero_()

    return change


def forget_statistics(net: ProPL) -> None:
    net.get_submodule("decoder_sd.stage8.up.conv_block.norm1").reset_running_stats()  # type: ignore[operator]


ATTENTION = "decoder_sd.stage4.attention."
FAULTS = {
    "decoders swapped": swap("decoder_sd", "decoder_pd"),
    "alpha zero at 16": zero_alpha("stage16"),
    "alpha zero at 8": zero_alpha("stage8"),
    "alpha zero at 4": zero_alpha("stage4"),
    "pre-norms swapped": swap(ATTENTION + "norm1", ATTENTION + "norm2"),
    "post-norms swapped": swap(ATTENTION + "self_attention_norm", ATTENTION + "cross_attention_norm"),
    "attentions swapped": swap(ATTENTION + "self_attention", ATTENTION + "cross_attention"),
    "statistics forgotten": forget_statistics,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_breaks_the_equality(
    net: ProPL, features: Features, text: Tensor, wanted: dict[str, Tensor], fault: str
) -> None:
    first = Features(
        features.v1[:1], features.v2[:1], features.v3[:1], features.v4[:1], features.height, features.width
    )
    kept = copy.deepcopy(net.state_dict())
    try:
        FAULTS[fault](net)
        found = net.decode(first, text[:1], decoder="sd").sigmoid()
    finally:
        net.load_state_dict(kept)
    assert difference(found, wanted["sd"][:1]) > 10 * TOLERANCE


def test_text_matters(net: ProPL, features: Features, text: Tensor, wanted: dict[str, Tensor]) -> None:
    found = net.decode(features, text.flip(0), decoder="sd").sigmoid()
    assert difference(found, wanted["sd"]) > 10 * TOLERANCE


# ---- names and shapes ---------------------------------------------------------------------------------------------


def test_ignored_tensors_are_counted(net: ProPL, released: dict[str, Tensor]) -> None:
    assert net.released_report is not None
    # 2 of the final norm; weight and bias of the head; 1 embedding and 4 of the text head; 2 tables x 3 stages x 2.
    assert net.released_report["ignored"] == {
        "final layer norm of the encoder": 2,
        "projection head of the encoder": 2,
        "text encoder": 5,
        "position constants": 12,
    }
    assert net.released_report["loaded"] == len(released) - 21 == len(net.state_dict()) - 1  # ours: the chosen decoder


def test_weights_are_copied(net: ProPL, released: dict[str, Tensor]) -> None:
    alpha = net.get_parameter("decoder_pd.stage8.attention.scale")
    assert alpha == released["uns_decoder8.guide_layer.scale"]
    assert alpha.data_ptr() != released["uns_decoder8.guide_layer.scale"].data_ptr()


def test_module_prefix_is_removed_and_needless_tensors_may_lack(
    net: ProPL, released: dict[str, Tensor], caplog: pytest.LogCaptureFixture
) -> None:
    needless = ("encoder.model.layernorm.", "encoder.project_head.", "text_encoder.")
    bare = {k: v for k, v in released.items() if not k.startswith(needless) and not k.endswith("vis_pos.pe")}
    bare["decoder8.guide_layer.scale"] = bare["decoder8.guide_layer.scale"].reshape(1)  # alpha as a list of one
    with caplog.at_level(logging.INFO, logger="propl_monai.model.released"):
        other = from_released({"module." + name: value for name, value in bare.items()})
    assert f"{len(released) - 21} tensors loaded" in caplog.text
    assert "'text encoder': 0, 'position constants': 6" in caplog.text
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in net.state_dict().items())


def test_left_over_and_missing_names_are_one_error(released: dict[str, Tensor]) -> None:
    state = dict(released)
    del state["uns_decoder4.guide_layer.scale"]
    state["decoder2.weight"] = torch.zeros(1)
    state["module.out.conv.conv.bias"] = state.pop("out.conv.conv.bias")  # a prefix before one name only
    with pytest.raises(ProPLError) as caught:
        from_released(state)
    assert "2 names left over: decoder2.weight, module.out.conv.conv.bias;" in caught.value.fact
    assert caught.value.fact.endswith("2 names missing: out.conv.conv.bias, uns_decoder4.guide_layer.scale")


def test_a_wrapped_state_dict_is_refused(net: ProPL, released: dict[str, Tensor]) -> None:
    count = len(net.state_dict()) - 1
    with pytest.raises(
        ProPLError, match=f"1 names left over: state_dict; {count} names missing: .*unwrapped"
    ) as caught:
        from_released({"state_dict": released})  # type: ignore[dict-item]
    assert caught.value.fact.count(", ") == 10 and caught.value.fact.endswith(", ...")  # ten names, then dots


@pytest.mark.parametrize(
    ("name", "value", "fact"),
    [
        ("decoder8.guide_layer.text_project.2.weight", torch.zeros(384, 384), r"has shape \(384, 384\), the network"),
        ("decoder16.guide_layer.scale", torch.zeros(2), r"has shape \(2,\), the network \(\)"),
        ("out.conv.conv.bias", 0.5, "is a float"),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(released: dict[str, Tensor], name: str, value: Tensor, fact: str) -> None:
    with pytest.raises(ProPLError, match=f"'{name}': {fact}"):
        from_released({**released, name: value})


# ---- prompts and files --------------------------------------------------------------------------------------------


def bank(width: int, text: Tensor) -> PromptBank:
    mask = torch.ones(2, 24, dtype=torch.bool)
    mask[:, 9:] = False  # sentences of nine tokens, the rest is padding
    return PromptBank(["nodule", "gland"], ["a nodule", "a gland"], text[:, :, :width], mask, "random", "0" * 64)


def test_without_a_bank_a_task_is_refused(net: ProPL, image: Tensor) -> None:
    for task in ("nodule", None):
        with pytest.raises(ProPLError, match="no prompt bank; call attach_prompts"):
            net(image[:1], task=task)


def test_a_bank_of_another_width_is_refused(net: ProPL, text: Tensor) -> None:
    with pytest.raises(ProPLError, match=r"\(24, 384\), the decoders \(24, 768\)"):
        net.attach_prompts(bank(384, text))
    assert net.prompts is None


def test_with_a_bank_a_task_equals_its_text(net: ProPL, image: Tensor, text: Tensor, wanted: dict[str, Tensor]) -> None:
    with_bank = copy.deepcopy(net)
    with_bank.attach_prompts(bank(768, text), padding="released")
    found = with_bank(image, task=["nodule", "gland"]).sigmoid()
    assert difference(found, wanted["pd"]) < TOLERANCE
    with_bank.attach_prompts(bank(768, text))  # padding silenced: another text, another picture
    assert difference(with_bank(image, task=["nodule", "gland"]).sigmoid(), wanted["pd"]) > 10 * TOLERANCE


def test_weights_survive_a_file(net: ProPL, tmp_path: Path) -> None:
    save_weights(net, tmp_path, {"preset": "released"})
    loaded, header = load_network(tmp_path / "model.safetensors")
    assert header["architecture"] == {
        "network": "propl",
        "encoder": "convnext_tiny",
        "prompt_mode": None,
        "prompt_padding": None,
        "decoder_block": "unetr",
        "text_shape": [24, 768],
        "tasks": [],
    }
    assert loaded.prompts is None and loaded.chosen_decoder == "pd" and not loaded.training
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in net.state_dict().items())
