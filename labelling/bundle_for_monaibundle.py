"""Puts a bundle with trained weights where MONAI Label's generic app `monaibundle` looks for it.

    python labelling/bundle_for_monaibundle.py BUNDLE MODELS TARGET [--preset compact]

BUNDLE is the bundle folder, MODELS the folder with model.safetensors of a training, TARGET the new folder, for example
apps/monaibundle/model/propl_us_segmentation. It is laid out like a release; in addition, it has the weights as model.pt, and
train.json starts from these and takes its pictures from MONAI Label. --preset names the config with the settings of training,
if it is not the one in the header of the weights.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from propl_monai.cli import main
from propl_monai.deploy.release import assemble
from propl_monai.errors import ProPLError
from propl_monai.model.bundle_folder import find_weights
from propl_monai.model.weights import FLAT_WEIGHTS, load_network, save_state

FOR_MONAI_LABEL = {
    "encoder_weights": "none",
    "dataset_dir": "given by MONAI Label",
    "use_unlabelled": False,
    "model_dir": "$@bundle_root + '/models'",  # the app predicts with what it has trained
}


def write_bundle(bundle: Path, models: Path, target: Path, preset: str | None = None) -> None:
    """Write the folder `target`, which must not exist."""
    if target.exists():
        raise ProPLError(target, "exists", "delete it, or name another folder")
    weights = find_weights(models)
    save_state(target / "models" / FLAT_WEIGHTS, load_network(weights)[0].state_dict())
    assemble(bundle, weights, target, target.absolute().as_uri(), preset=preset)
    config = target / "configs" / "train.json"
    train = json.loads(config.read_text(encoding="utf-8")) | FOR_MONAI_LABEL
    config.write_text(json.dumps(train, indent=4) + "\n", encoding="utf-8")
    print(f"written: {target}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("bundle", "models", "target"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--preset")
    main(lambda: write_bundle(**vars(parser.parse_args())))
