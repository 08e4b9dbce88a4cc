"""Puts a bundle with trained weights where MONAI Label's generic app `monaibundle` looks for it.

    python labelling/bundle_for_monaibundle.py BUNDLE MODELS TARGET [--preset compact]

BUNDLE is a bundle's folder, MODELS the folder with model.safetensors and model.pt of a training, TARGET the new folder, such
as apps/monaibundle/model/propl_us_segmentation. That app reads one inference.json and one train.json and no preset beside
them, so what the weights say of their network, and what a preset sets for training, is written into both.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

from propl_monai.errors import ProPLError
from propl_monai.model.weights import FLAT_WEIGHTS, WEIGHTS, read_header

COPIED = ("metadata.json", "logging.conf", "multi_gpu_train.json")


def write_bundle(bundle: Path, models: Path, target: Path, preset: str | None = None) -> None:
    """Write the bundle.

    Args:
        bundle: what to copy.
        models: where the weights are.
        target: must not exist.
        preset: name of a config of the bundle whose settings the training is to have.

    Raises:
        ProPLError: the target exists, a file is missing, or the weights are not ours.
    """
    if target.exists():
        raise ProPLError(target, "exists", "delete it, or name another folder")
    header = read_header(models / WEIGHTS)
    network = {
        key: header["architecture"][key] for key in ("encoder", "prompt_mode", "prompt_padding", "decoder_block")
    }
    network |= {key: header[key] for key in ("spatial_size", "normalisation")}
    configs = bundle / "configs"
    settings = _read(configs / f"{preset}.json") if preset else {}
    # The weights at hand are the start, and the labels of MONAI Label the data.
    alone = {"encoder_weights": "none", "dataset_dir": "given by MONAI Label", "use_unlabelled": False}
    train = {**_read(configs / "train.json"), **settings, **network, **alone}
    inference = {**_read(configs / "inference.json"), **network}
    (target / "configs").mkdir(parents=True)
    (target / "models").mkdir()
    for name, content in (("train.json", train), ("inference.json", inference)):
        (target / "configs" / name).write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")
    for name in COPIED:
        shutil.copy(configs / name, target / "configs" / name)
    for name in (WEIGHTS, FLAT_WEIGHTS):
        shutil.copy(models / name, target / "models" / name)
    shutil.copy(bundle / "LICENSE", target / "LICENSE")


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ProPLError(path, "does not exist", "name a bundle's folder, and a preset that it has")
    return json.loads(path.read_text(encoding="utf-8"))


def main() -> int:
    """The command line; 2 on bad input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("bundle", "models", "target"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--preset")
    given = parser.parse_args()
    try:
        write_bundle(given.bundle, given.models, given.target, given.preset)
    except ProPLError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"written: {given.target}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
