"""The border is cut before the network where the header of the weights says so; masks come at the size of the picture."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from factories import ROOT, TINY_ENCODER, small_predictor, write_small_bundle
from monai.bundle import ConfigWorkflow
from output_tools import pixels
from picture_samples import save_nifti
from PIL import Image

from propl_monai import predict_cine
from propl_monai.errors import ProPLError
from propl_monai.images import Picture, read_frames
from propl_monai.inference.predict_folder import predict_paths
from propl_monai.inference.predictor import Predictor

BOX = (30, 50, 150, 190)
CONFIGS = ROOT / "bundle" / "configs"


def scan(seed: int = 0, box: tuple[int, int, int, int] = BOX) -> np.ndarray:
    """A rectangle of coarse grains on black, with a mark where text would be."""
    top, left, bottom, right = box
    grains = np.random.default_rng(seed).integers(40, 250, (30, 40)).repeat(6, 0).repeat(6, 1)
    found = np.zeros((180, 240), np.uint8)
    found[top:bottom, left:right] = grains[: bottom - top, : right - left]
    found[4:10, 200:230] = 255
    return found


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_bundle(tmp_path_factory.mktemp("bundle"), crop_sector=True)


def test_the_header_says_whether_the_border_is_cut(bundle: Path, tmp_path: Path) -> None:
    assert Predictor.from_bundle(bundle, device="cpu").crop_sector
    assert not Predictor.from_bundle(bundle, device="cpu", crop_sector=False).crop_sector
    assert not Predictor.from_bundle(write_small_bundle(tmp_path / "older"), device="cpu").crop_sector
    with pytest.raises(ProPLError, match="crop_sector 'maybe'"):
        Predictor.from_bundle(write_small_bundle(tmp_path / "broken", crop_sector="maybe"))


def test_the_network_sees_the_scan_alone_and_masks_come_back_to_the_pixel() -> None:
    cutting, plain = small_predictor(crop_sector=True), small_predictor()
    assert "crop_sector" not in plain.settings and cutting.settings["crop_sector"] is True
    picture = Picture(scan())
    prepared = cutting.prepare(picture)
    assert prepared.box == pytest.approx(BOX, abs=4) and prepared.size == (180, 240)
    top, left, bottom, right = prepared.box
    found = cutting(picture, "LA", uncertainty=True)
    alone = plain(picture.pixels[top:bottom, left:right], "LA", uncertainty=True)
    assert found.mask.shape == found.probability.shape == (180, 240)
    assert np.array_equal(found.mask[top:bottom, left:right], alone.mask) and 0 < alone.mask.mean() < 1
    assert np.array_equal(found.probability[top:bottom, left:right], alone.probability)
    assert found.uncertainty is not None and alone.uncertainty is not None
    assert np.array_equal(found.uncertainty[top:bottom, left:right], alone.uncertainty)
    assert found.mask.sum() == alone.mask.sum()
    assert found.probability.sum(dtype=float) == pytest.approx(alone.probability.sum(dtype=float))
    full = np.random.default_rng(0).integers(100, 250, (60, 70)).astype(np.uint8)
    assert np.array_equal(cutting(full, "LA").probability, plain(full, "LA").probability)


def test_bundle_inference_cuts_as_the_predictor_does(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    for seed in range(2):
        Image.fromarray(scan(seed)).save(tmp_path / "in" / f"{seed}.png")
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # the config sets one
    monkeypatch.setattr(sys, "argv", ["pytest"])
    monkeypatch.setattr(sys, "path", list(sys.path))
    workflow = ConfigWorkflow(
        config_file=str(CONFIGS / "inference.json"),
        meta_file=str(CONFIGS / "metadata.json"),
        logging_file=False,
        workflow_type="infer",
        bundle_root=str(bundle),
        dataset_dir=str(tmp_path / "in"),
        output_dir=str(tmp_path / "out"),
        device="$torch.device('cpu')",
        tasks=["left atrium"],
        encoder=TINY_ENCODER,
        probability=True,
        uncertainty=True,
        overlay=True,
    )
    workflow.initialize()
    workflow.run()
    predictor = Predictor.from_bundle(bundle, device="cpu")
    for seed in range(2):
        expected = predictor(scan(seed), "LA", uncertainty=True)
        probability = pixels(tmp_path / "out" / f"{seed}_left_atrium_probability.png") / 65535
        assert np.abs(probability - expected.probability).max() < 1e-4
        assert (pixels(tmp_path / "out" / f"{seed}_left_atrium.png") > 0).sum() == pytest.approx(
            expected.mask.sum(), abs=3
        )
        uncertainty = pixels(tmp_path / "out" / f"{seed}_left_atrium_uncertainty.png") / 131070
        assert expected.uncertainty is not None and np.abs(uncertainty - expected.uncertainty).max() < 1e-4
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["options"]["crop_sector"] is True


def test_a_cine_is_cut_alike_in_all_frames_and_folders_are_not_mixed(tmp_path: Path) -> None:
    predictor = small_predictor(crop_sector=True, batch=2)
    (tmp_path / "in").mkdir()
    dim = scan(1, (30, 50, 150, 120))  # this frame alone would be cut to its left half
    frames = np.stack([dim, scan(2), dim])
    cine = save_nifti(tmp_path / "in" / "cine.nii.gz", frames)
    whole = predictor.box_of(read_frames(cine))
    assert whole == pytest.approx(BOX, abs=4)
    out = tmp_path / "out"
    predict_paths(predictor, [tmp_path / "in"], out, "LA")
    for number, (one,) in enumerate(predict_cine(predictor, cine, ["LA"]), start=1):
        assert np.array_equal(pixels(out / f"cine_frame_{number:04d}_left_atrium.png") > 0, one.mask)
    assert one.mask[:, 130:].any()
    with pytest.raises(ProPLError, match="crop_sector"):
        predict_paths(small_predictor(), [tmp_path / "in"], out, "LA")
