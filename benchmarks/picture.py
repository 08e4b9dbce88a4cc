"""Draws the picture of the README: phantoms that no network was trained on, and the masks of each prompt.

    python benchmarks/picture.py runs/quickstart docs/picture.png

The first argument is the folder of a training, here that of the README's quick start. Each row is one picture and its masks.
The phantoms are the first of a seed that the quick start does not use, not chosen by their result.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import binary_dilation

from propl_monai import Predictor
from propl_monai.common.files import write_atomically
from propl_monai.datasets.phantoms.phantom import ANATOMIES, make_phantom
from propl_monai.tasks import PROMPT_TEMPLATE, find

UNSEEN = 2026  # seed of the phantoms; the quick start learns from seed 0
TILE, GAP, NAME, HEAD = 172, 8, 34, 66  # pixels: side of a picture, space between, height of a name, of the heading
WIDTH = 4 * TILE + 5 * GAP
TINT = 0.55
PAPER, INK = (255, 255, 255), (20, 20, 20)
COLOURS = 256  # of the palette: speckle does not compress, so fewer colours keep the file small
REMARK = "one network;\nthe picture of a row\nstays the same,\nthe words choose"


def tile(image: np.ndarray, mask: np.ndarray | None, colour: tuple[int, int, int]) -> Image.Image:
    """A picture (H, W) uint8, enlarged or reduced, with its mask as a tint and a white line around it."""
    pixels = np.asarray(Image.fromarray(image).resize((TILE, TILE), Image.Resampling.LANCZOS), np.float32)
    canvas = np.repeat(pixels[..., None], 3, axis=2)
    if mask is not None:
        grown = np.asarray(Image.fromarray(mask.astype(np.uint8) * 255).resize((TILE, TILE)), np.uint8) > 127
        canvas[grown] += TINT * (np.asarray(colour, np.float32) - canvas[grown])
        canvas[binary_dilation(grown, iterations=2) & ~grown] = 255
    return Image.fromarray(canvas.round().astype(np.uint8))


def draw(predictor: Predictor) -> Image.Image:
    """Three rows: a phantom, and the same phantom with each of its masks."""
    sheet = Image.new("RGB", (WIDTH, HEAD + len(ANATOMIES) * (NAME + TILE + GAP)), PAPER)
    pen = ImageDraw.Draw(sheet)
    sentence = "“" + PROMPT_TEMPLATE.format(target="…") + "”"
    pen.text((WIDTH / 2, HEAD / 2), sentence, INK, ImageFont.load_default(30), anchor="mm")
    for row, (anatomy, names) in enumerate(reversed(ANATOMIES.items())):
        image = make_phantom(anatomy, patient=0, view=0, size=192, seed=UNSEEN).image
        answers = predictor(image, list(names))
        tiles = [("one picture", tile(image, None, INK))]
        tiles += [(one.task, tile(image, one.mask, find(one.task).colour)) for one in answers]
        top = HEAD + row * (NAME + TILE + GAP)
        for column, (name, shown) in enumerate(tiles):
            left = GAP + column * (TILE + GAP)
            pen.text((left + TILE / 2, top + NAME / 2), name, INK, ImageFont.load_default(23), anchor="mm")
            sheet.paste(shown, (left, top + NAME))
        if len(tiles) == 3:  # the place of the fourth
            middle = (WIDTH - GAP - TILE / 2, top + NAME + TILE / 2)
            pen.multiline_text(middle, REMARK, INK, ImageFont.load_default(18), anchor="mm", align="center", spacing=8)
    return sheet


def main() -> None:
    """Draw and write."""
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("weights", type=Path, help="folder of a training, or its model.safetensors")
    reader.add_argument("output", type=Path, help="the .png to write")
    given = reader.parse_args()
    sheet = draw(Predictor.from_bundle(given.weights, device="cpu")).quantize(COLOURS, dither=Image.Dither.NONE)
    content = io.BytesIO()
    sheet.save(content, "PNG", optimize=True)
    write_atomically(given.output, content.getvalue())
    print(f"{given.output}: {sheet.width} × {sheet.height} pixels, {len(content.getvalue()) / 1000:.0f} kB")


if __name__ == "__main__":
    main()
