"""The Python door: equal to the bundle's inference, whatever the input's kind; and it runs nothing that it is given."""

from __future__ import annotations

import json
import os
import pickle
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from factories import ABOUT, ROOT, TINY_ENCODER, small_network, small_predictor, speckle, write_small_bundle
from monai.bundle import ConfigWorkflow
from picture_samples import save_dicom, save_nifti
from PIL import Image
from safetensors.torch import load_file, save_file

from propl_monai.common.files import file_sha256
from propl_monai.data.transforms import on_grid
from propl_monai.errors import ProPLError
from propl_monai.images import Picture, read_image
from propl_monai.inference import predictor as module
from propl_monai.inference.engines.base import UNCERTAINTIES
from propl_monai.inference.postprocess import RestoreSized
from propl_monai.inference.predictor import Predictor
from propl_monai.model import bundle_folder
from propl_monai.model.network import ProPL
from propl_monai.model.prompts import PromptBank
from propl_monai.model.views import VIEWS
from propl_monai.model.weights import load_network, read_header, save_safetensors, save_weights

CONFIGS = ROOT / "bundle" / "configs"
TWO = ["left atrium", "thyroid nodule"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read it, do not change it."""
    return write_small_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def predictor(bundle: Path) -> Predictor:
    return Predictor.from_bundle(bundle, device="cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of many kinds and sizes."""
    made = tmp_path_factory.mktemp("pictures")
    Image.fromarray(speckle(40, 61)).save(made / "grey.png")
    Image.fromarray(speckle(33, 97, 1, colour=True)).save(made / "colour.bmp")
    Image.fromarray(speckle(131, 17, 2)).save(made / "tall.tif")
    Image.fromarray(speckle(50, 70, 3)).save(made / "lossy.jpg", exif=turned())
    Image.fromarray(speckle(45, 44, 4).astype(np.uint16) * 200).save(made / "deep.png")
    save_nifti(made / "volume.nii.gz", speckle(30, 40, 5))
    save_dicom(made / "scan.dcm", speckle(36, 48, 6)[None])
    return made


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


# --- the same as the bundle


def run_bundle(monkeypatch: pytest.MonkeyPatch, bundle: Path, images: Path, output: Path, **options: Any) -> None:
    """`bundle/configs/inference.json` itself, in this process."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # the config sets one
    monkeypatch.setattr(sys, "argv", ["pytest"])
    monkeypatch.setattr(sys, "path", list(sys.path))
    workflow = ConfigWorkflow(
        config_file=str(CONFIGS / "inference.json"),
        meta_file=str(CONFIGS / "metadata.json"),
        logging_file=False,
        workflow_type="infer",
        bundle_root=str(bundle),
        dataset_dir=str(images),
        output_dir=str(output),
        device="$torch.device('cpu')",
        tasks=TWO,
        encoder=TINY_ENCODER,
        normalisation="half",
        spatial_size=[32, 32],
        **options,
    )
    workflow.initialize()
    workflow.run()


def written(folder: Path, file: Path, task: str, kind: str = "") -> np.ndarray:
    return np.asarray(Image.open(folder / f"{file.name.split('.')[0]}_{task.replace(' ', '_')}{kind}.png"))


def same_probability(in_file: np.ndarray, found: np.ndarray) -> bool:
    """But for the rounding of a network whose memory is laid out in another order."""
    return bool(np.abs(in_file / 65535 - found).max() < 1e-5 + 0.5 / 65535)


@pytest.mark.parametrize("kind", UNCERTAINTIES)
def test_four_threads_give_the_results_of_one(bundle: Path, kind: str) -> None:
    """Also of the uncertainty, which dropout draws; and the caller's random state stays as it was."""
    predictor = Predictor.from_bundle(bundle, device="cpu", uncertainty_of=kind)
    pictures = [speckle(40, 50, seed) for seed in range(6)]

    def predict(pixels: np.ndarray) -> Any:
        return predictor(pixels, "left atrium", uncertainty=True)

    torch.manual_seed(5)
    before = torch.get_rng_state()
    one = [predict(pixels) for pixels in pictures]
    with ThreadPoolExecutor(4) as pool:
        four = list(pool.map(predict, pictures))
    for first, second in zip(one, four, strict=True):
        assert first.uncertainty.max() > 0
        assert np.array_equal(first.uncertainty, second.uncertainty)
        assert np.array_equal(first.probability, second.probability)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("kind", UNCERTAINTIES)
def test_masks_are_those_of_the_bundles_inference(
    bundle: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    predictor = Predictor.from_bundle(bundle, device="cpu", uncertainty_of=kind)
    run_bundle(monkeypatch, bundle, folder, tmp_path, probability=True, uncertainty=True, uncertainty_of=kind)
    mixed = 0
    for file in sorted(folder.iterdir()):
        for one in predictor(file, TWO, uncertainty=True):
            assert np.array_equal(written(tmp_path, file, one.task) > 0, one.mask), file
            assert same_probability(written(tmp_path, file, one.task, "_probability"), one.probability)
            # the variance: a root is steep near 0
            variance = (written(tmp_path, file, one.task, "_uncertainty") / 131070) ** 2
            assert np.abs(variance - one.uncertainty**2).max() < 1e-5
            mixed += 0.1 < one.mask.mean() < 0.9
    assert mixed >= 10, "masks that are all background would be equal without any merit"


def test_mirroring_is_that_of_the_bundles_inference(
    bundle: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_bundle(monkeypatch, bundle, folder / "grey.png", tmp_path, probability=True, tta=True)
    for one in Predictor.from_bundle(bundle, device="cpu", tta=True)(folder / "grey.png", TWO):
        assert same_probability(written(tmp_path, folder / "grey.png", one.task, "_probability"), one.probability)


def test_numbers_of_the_uncertainty_are_those_of_the_config() -> None:
    config = json.loads((CONFIGS / "inference.json").read_text())
    keys = ("uncertainty_passes", "perturbation", "strength", "seed")
    assert tuple(config[key] for key in keys) == (module.PASSES, module.PERTURBATION, module.STRENGTH, module.SEED)
    assert (config["uncertainty_of"], tuple(config["views"])) == (module.UNCERTAINTIES[0], VIEWS)


# --- what goes in and what comes out


def test_path_picture_and_array_give_the_same(predictor: Predictor, folder: Path) -> None:
    for name in ("grey.png", "colour.bmp"):
        picture = read_image(folder / name)
        answers = [predictor(given, "LA") for given in (folder / name, str(folder / name), picture, picture.pixels)]
        assert all(np.array_equal(answers[0].probability, other.probability) for other in answers[1:])


def test_result(predictor: Predictor, folder: Path) -> None:
    found = predictor(folder / "volume.nii.gz", "thyroid_nodule")
    assert (found.task, found.spacing_mm, found.uncertainty) == ("thyroid nodule", (0.5, 0.25), None)
    assert (found.mask.dtype, found.probability.dtype) == (np.bool_, np.float32)
    assert found.mask.shape == found.probability.shape == (30, 40)
    assert np.array_equal(found.mask, found.probability > 0.5)
    assert predictor(speckle(8, 9), "LA").spacing_mm is None


def test_a_mirrored_view_and_a_read_only_array(predictor: Predictor) -> None:
    pixels = speckle(20, 30)
    pixels.flags.writeable = False
    mirrored = predictor(pixels[:, ::-1], "LA").probability
    assert np.array_equal(mirrored, predictor(np.ascontiguousarray(pixels[:, ::-1]), "LA").probability)


def test_several_tasks_are_encoded_once_and_equal_single_calls(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode, calls = predictor.network.encode, []
    monkeypatch.setattr(predictor.network, "encode", lambda image: (calls.append(1), encode(image))[1])
    image = speckle(40, 50)
    several = predictor(image, ["TN", "left atrium", "MD"], uncertainty=True)
    assert len(calls) == 1 + len(VIEWS)  # the picture, and each of its views
    assert [one.task for one in several] == ["thyroid nodule", "left atrium", "myocardium"]
    for one in several:
        alone = predictor(image, one.task, uncertainty=True)
        assert np.array_equal(alone.mask, one.mask)
        assert np.abs(alone.probability - one.probability).max() < 1e-6
        assert np.abs(alone.uncertainty**2 - one.uncertainty**2).max() < 1e-6
    assert not np.allclose(several[0].probability, several[1].probability, atol=1e-3)


def test_neither_batch_nor_order_changes_a_result() -> None:
    pictures = [Picture(speckle(30 + 3 * number, 41, number)) for number in range(5)]
    together = small_predictor(batch=8).predict(pictures, TWO, uncertainty=True)
    alone = small_predictor(batch=1).predict(pictures[::-1], TWO, uncertainty=True)[::-1]
    assert len(together) == len(alone) == 5
    for left, right in zip(chain(*together), chain(*alone), strict=True):
        assert left.task == right.task
        assert np.abs(left.probability - right.probability).max() < 1e-6
        # a root is steep near 0
        assert np.abs(left.uncertainty**2 - right.uncertainty**2).max() < 1e-6
        assert 0 < right.uncertainty.max() <= 0.5


def test_uncertainty_leaves_the_random_numbers_of_others_alone(predictor: Predictor) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    predictor(speckle(20, 20), "LA", uncertainty=True)
    assert torch.equal(torch.rand(3), expected)


def test_sizes_come_back(predictor: Predictor) -> None:
    random = np.random.default_rng(1)
    sizes = [(1, 1), (1, 300), (300, 1), *random.integers(2, 200, (40, 2)).tolist()]
    found = predictor.predict([Picture(speckle(*size)) for size in sizes], "LA")
    assert [one.mask.shape for (one,) in found] == [tuple(size) for size in sizes]


def test_shapes_survive_the_way_to_the_grid_and_back() -> None:
    """Ellipses of more than 400 pixels on the grid, in pictures of any size and aspect ratio."""
    random = np.random.default_rng(2)
    prepare = on_grid((160, 160), "half")
    for _ in range(60):
        height, width = random.integers(120, 900, 2)
        rows, columns = np.mgrid[:height, :width]
        a, b = random.uniform(0.08, 0.3, 2)
        y, x = random.uniform(0.35, 0.65, 2)
        mask = ((rows / height - y) / a) ** 2 + ((columns / width - x) / b) ** 2 <= 1
        item = prepare({"image": torch.tensor(mask[None] * np.uint8(255))})
        back = RestoreSized("image")(item)["image"][0].numpy() > 0
        assert back.shape == mask.shape
        if np.pi * a * b * 160**2 > 400:
            assert 2 * (back & mask).sum() / (back.sum() + mask.sum()) >= 0.98


def test_mirroring() -> None:
    """At the size of the grid nothing is resized, and the answer can be worked by hand."""
    image = speckle(32, 32)
    plain, both = small_predictor(), small_predictor(tta=True)
    there, back = plain(image, "LA").probability, plain(image[:, ::-1], "LA").probability[:, ::-1]
    assert not np.allclose(there, back, atol=1e-3)
    assert np.allclose(both(image, "LA").probability, (there + back) / 2, atol=1e-5)
    assert np.allclose(both(image[:, ::-1], "LA").probability[:, ::-1], both(image, "LA").probability, atol=1e-5)


def test_threshold_and_decoder() -> None:
    image = speckle(32, 32)
    low, high = small_predictor(threshold=0.3)(image, "LA"), small_predictor(threshold=0.8)(image, "LA")
    assert np.array_equal(low.mask, low.probability > 0.3) and low.mask.sum() > high.mask.sum()
    assert small_predictor().decoder == "pd"
    maps = {name: small_predictor(decoder=name)(image, "LA").probability for name in ("sd", "pd", "mean")}
    assert np.array_equal(maps["pd"], small_predictor()(image, "LA").probability)
    assert np.allclose(maps["mean"], (maps["sd"] + maps["pd"]) / 2, atol=1e-5)
    assert not np.allclose(maps["sd"], maps["pd"], atol=1e-3)


# --- weights with one decoder


@pytest.fixture(scope="module")
def slim(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle's weights, with decoder pd alone."""
    path = tmp_path_factory.mktemp("slim") / "small.safetensors"
    network, header = load_network(bundle / "models" / "model.safetensors")
    network.keep_decoder("pd")
    save_safetensors(network, path, {key: header[key] for key in ABOUT})
    return path


def test_one_decoder_gives_the_bits_of_the_full_weights(slim: Path, predictor: Predictor) -> None:
    made = Predictor.from_bundle(slim, device="cpu")
    assert made.decoder == predictor.decoder == "pd"
    for size in ((40, 61), (7, 9)):
        for one, other in zip(made(speckle(*size), TWO), predictor(speckle(*size), TWO), strict=True):
            assert np.array_equal(one.probability, other.probability) and 0.05 < one.mask.mean() < 0.95


@pytest.mark.parametrize(("decoder", "said"), [("sd", "decoder 'sd': .* pd alone, not sd"), ("mean", "decoder 'mean'")])
def test_a_decoder_that_is_not_there(slim: Path, decoder: str, said: str) -> None:
    with pytest.raises(ProPLError, match=f"{said}.*; use the full weights, the model.safetensors of the training"):
        Predictor.from_bundle(slim, device="cpu", decoder=decoder)


def test_uncertainty_of_dropout_needs_decoder_sd(slim: Path) -> None:
    dropout = Predictor.from_bundle(slim, device="cpu", uncertainty_of="dropout")
    with pytest.raises(ProPLError, match="uncertainty: these weights hold decoder pd alone, not sd; use the full"):
        dropout(speckle(20, 20), "LA", uncertainty=True)
    views = Predictor.from_bundle(slim, device="cpu")(speckle(20, 20), "LA", uncertainty=True)
    assert views.uncertainty is not None and views.uncertainty.max() > 0


def test_an_unknown_kind_of_uncertainty(slim: Path) -> None:
    with pytest.raises(ProPLError, match="unknown kind of uncertainty 'view'; did you mean 'views'"):
        Predictor.from_bundle(slim, uncertainty_of="view")


# --- what is refused


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"decoder": "dd"}, "unknown decoder 'dd'"),
        ({"threshold": 0}, "threshold: 0 is not between 0 and 1"),
        ({"threshold": 50}, "threshold: 50 is not between 0 and 1"),
        ({"batch": 0}, "batch: 0 is below 1"),
        ({"tta": "perhaps"}, "--tta: 'perhaps' is neither true nor false"),
        ({"device": "toaster"}, "device: 'toaster' cannot be used"),
        ({"sha256": "0" * 64}, "not 0000.*it was changed"),
    ],
)
def test_senseless_options(bundle: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ProPLError, match=said):
        Predictor.from_bundle(bundle, **options)


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (np.zeros((4, 4), np.float32), r"image: float32 \(4, 4\) was given; give uint8"),
        (np.zeros((4, 4, 4), np.uint8), r"uint8 \(4, 4, 4\) was given"),
        (np.zeros((0, 4), np.uint8), r"\(0, 4\) holds no pixel"),
        ([[1]], "a list was given; give a file name"),
        ("nowhere.png", "nowhere.png: does not exist"),
    ],
)
def test_what_is_no_picture(predictor: Predictor, image: Any, said: str) -> None:
    with pytest.raises(ProPLError, match=said):
        predictor(image, "LA")


def test_what_is_no_task(predictor: Predictor) -> None:
    with pytest.raises(ProPLError, match="unknown task 'left atrum'; did you mean 'left atrium'"):
        predictor(speckle(8, 8), "left atrum")
    with pytest.raises(ProPLError, match="task: none was given; give one of: breast cancer"):
        predictor(speckle(8, 8), [])


def test_tasks_that_the_weights_do_not_know() -> None:
    bank = PromptBank(TWO, ["a", "b"], torch.rand(2, 24, 32), torch.ones(2, 24, dtype=torch.bool), "x", "0" * 64)
    network = ProPL(TINY_ENCODER, prompts=False, text_shape=(24, 32))
    with pytest.raises(ProPLError, match="has no prompt bank"):
        Predictor(network, (32, 32), "half")
    network.attach_prompts(bank)
    made = Predictor(network, (32, 32), "half", device="cpu")
    assert made(speckle(9, 9), "LA").task == "left atrium"
    with pytest.raises(ProPLError, match="do not know 'myocardium'; they know left atrium, thyroid nodule"):
        made(speckle(9, 9), "MD")


# --- weights


def test_bundle_folder_of_weights_and_file_are_the_same(bundle: Path, predictor: Predictor) -> None:
    weights = bundle / "models" / "model.safetensors"
    assert predictor.weights_sha256 == file_sha256(weights)
    assert predictor.about == {"name": "small", "version": "0.0.1"}
    expected = predictor(speckle(20, 20), "LA").probability
    for path in (weights, bundle / "models", str(weights)):
        made = Predictor.from_bundle(path, device="cpu", sha256=predictor.weights_sha256)
        assert np.array_equal(made(speckle(20, 20), "LA").probability, expected) and made.about == {}


def test_without_arguments_it_is_the_shipped_model_and_its_hash_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = write_small_bundle(tmp_path / "bundle")
    monkeypatch.setattr(bundle_folder, "packaged_bundle", lambda: bundle)
    weights, beside = bundle / "models" / "model.safetensors", bundle / "models" / "model.sha256"
    with pytest.raises(ProPLError, match=r"model\.sha256: is missing, or holds no SHA-256 .*; restore it"):
        Predictor()
    beside.write_text(f"{file_sha256(weights)}  model.safetensors\n")
    made = Predictor(device="cpu", tta=True)
    assert made.weights_sha256 == file_sha256(weights) and made.about["name"] == "small" and made.tta
    assert (made.spatial_size, made.normalisation) == ((32, 32), "half")
    beside.write_text("0" * 64)
    with pytest.raises(ProPLError, match=r"model\.safetensors: has sha256 \w+, not 0+; restore it, with git"):
        Predictor()
    weights.unlink()
    with pytest.raises(ProPLError, match=r"model\.safetensors: is not there, so .* no trained weights; take them from"):
        Predictor()


def test_where_there_are_no_weights(tmp_path: Path) -> None:
    with pytest.raises(ProPLError, match="nowhere: does not exist"):
        Predictor.from_bundle(tmp_path / "nowhere")
    with pytest.raises(ProPLError, match=r"holds no models/model.safetensors; train first"):
        Predictor.from_bundle(tmp_path)


class Canary:
    """Unpickling it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_nothing_of_a_bundle_is_run(tmp_path: Path) -> None:
    """Its configs would make a folder, its flat weights too."""
    bundle = write_small_bundle(tmp_path / "bundle")
    ran = tmp_path / "ran"
    trap = f"$__import__('os').mkdir({str(ran)!r})"
    for name in ("inference.json", "train.json", "metadata.json"):
        content = {"imports": [trap], "initialize": [trap], "network_def": trap, "name": trap, "version": "1"}
        (bundle / "configs" / name).write_text(json.dumps(content))
    (bundle / "models" / "model.pt").write_bytes(pickle.dumps(Canary(ran)))
    (bundle / "sitecustomize.py").write_text(f"import os; os.mkdir({str(ran)!r})")
    made = Predictor.from_bundle(bundle, device="cpu")
    made(speckle(9, 9), "LA")
    assert made.about["name"] == trap and not ran.exists()


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_a_pickle_is_refused_by_any_name(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"model.{suffix}"
    path.write_bytes(pickle.dumps(Canary(tmp_path / "ran")))
    with pytest.raises(ProPLError, match="is no readable safetensors file"):
        Predictor.from_bundle(path)
    assert not (tmp_path / "ran").exists()


@pytest.fixture(scope="module")
def altered(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes the weights with another header, or with other tensors."""
    source = bundle / "models" / "model.safetensors"
    header, state = read_header(source), load_file(str(source))

    def write(changes: Any = None, tensors: dict[str, torch.Tensor] | None = None) -> Path:
        path = tmp_path_factory.mktemp("altered") / "model.safetensors"
        content = {**header, **(changes or {})} if not isinstance(changes, (list, str)) else changes
        text = content if isinstance(content, str) else json.dumps(content)
        save_file({**state, **(tensors or {})}, str(path), {"propl": text})
        return path

    return write


def architecture(**changes: Any) -> dict[str, Any]:
    right = {"encoder": TINY_ENCODER, "prompt_mode": "text", "prompt_padding": "zero", "text_shape": [24, 384]}
    return {"architecture": {**right, "tasks": ["left atrium"], **changes}}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"spatial_size": None}, "without a valid preprocessing"),
        ({"spatial_size": [32]}, "without a valid preprocessing"),
        ({"spatial_size": [32, 10**9]}, "without a valid preprocessing"),
        ({"spatial_size": [32, True]}, "without a valid preprocessing"),
        ({"normalisation": "mystery"}, "without a valid preprocessing"),
        ({"normalisation": ["half"]}, "without a valid preprocessing"),
        ({"prompt_bank_sha256": "0" * 64}, "holds other prompts than its header says"),
        ({"architecture": "large"}, "does not say what network it holds"),
        (["a", "list"], "does not say what network it holds"),
        ("[" * 100_000, "was not written by propl_monai"),
        ("no JSON", "was not written by propl_monai"),
        (architecture(text_shape=[24, 10**12]), "does not say what network it holds"),
        (architecture(text_shape="24"), "does not say what network it holds"),
        (architecture(decoders=["dd"]), "does not say what network it holds"),
        (architecture(decoders=[]), "does not say what network it holds"),
        (architecture(decoders="sd"), "does not say what network it holds"),
        (architecture(decoders={"sd": 1}), "does not say what network it holds"),
        (architecture(encoder=7), "does not say what network it holds"),
        (architecture(encoder="hf-hub:someone/something"), "unknown timm model"),
        (architecture(prompt_mode="shout"), "unknown prompt mode"),
    ],
)
def test_bad_headers(altered: Callable[..., Path], changes: Any, said: str) -> None:
    with pytest.raises(ProPLError, match=said):
        Predictor.from_bundle(altered(changes), device="cpu")


def test_bad_tensors(altered: Callable[..., Path]) -> None:
    name = "decoder_sd.stage4.attention.scale"
    state = small_network().state_dict()
    assert name in state
    with pytest.raises(ProPLError, match=f"holds 1 tensors with NaN or infinity, first '{name}'"):
        Predictor.from_bundle(altered(None, {name: torch.full_like(state[name], torch.nan)}), device="cpu")
    with pytest.raises(ProPLError, match="holds no sound prompt bank"):
        Predictor.from_bundle(altered(None, {"prompts.bank.mask": torch.ones(3, dtype=torch.bool)}), device="cpu")


def test_a_damaged_file(altered: Callable[..., Path]) -> None:
    path = altered()
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ProPLError, match="is no readable safetensors file"):
        Predictor.from_bundle(path)


def test_weights_without_the_way_to_prepare_a_picture(tmp_path: Path) -> None:
    save_weights(small_network(), tmp_path, {key: value for key, value in ABOUT.items() if key == "preset"})
    with pytest.raises(ProPLError, match="spatial_size None, normalisation None"):
        Predictor.from_bundle(tmp_path)


def test_senseless_metadata(tmp_path: Path) -> None:
    bundle = write_small_bundle(tmp_path)
    for content in ("{", "[]", '{"name": 1}'):
        (bundle / "configs" / "metadata.json").write_text(content)
        if content == '{"name": 1}':
            assert Predictor.from_bundle(bundle, device="cpu").about == {"name": "1"}
        elif content == "[]":
            assert Predictor.from_bundle(bundle, device="cpu").about == {}
        else:
            with pytest.raises(ProPLError, match=r"metadata.json: is no sound JSON"):
                Predictor.from_bundle(bundle, device="cpu")
