"""The cross-sections that the phantoms show: breast, thyroid, fetal head beside an ovarian tumour, heart.

Lengths are mm, x to the right and z downwards from the top of the sector. Shapes and sizes are drawn from `rng`, which
belongs to a patient, so two views of a patient share them.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates

from propl_monai.datasets.phantoms.physics import Array, Canvas, Mask, Tissue

FLUID = Tissue(-34, 0.15, 0.97)
BLOOD = Tissue(-27, 0.75, 0.98)
AIR = Tissue(-20, 14, 0.6)


def texture(canvas: Canvas, rng: np.random.Generator, across: float, along: float) -> Array:
    """A smooth random pattern, about normal (0, 1), whose patches measure `across` by `along` mm."""
    lattice = gaussian_filter(rng.standard_normal((96, 96)), 1.2, mode="wrap")
    points = 2 * np.stack([canvas.z / along, canvas.x / across])
    return np.asarray(map_coordinates(lattice / lattice.std(), points, order=1, mode="grid-wrap"))


def bend(canvas: Canvas, rng: np.random.Generator, amount: float, period: float) -> None:
    """Shift every point by about `amount` mm, smoothly over `period` mm: bodies hold no perfect ellipses."""
    shift = [amount * texture(canvas, rng, period, period) for _ in range(2)]
    canvas.x, canvas.z = canvas.x + shift[0], canvas.z + shift[1]


def ellipse(
    canvas: Canvas,
    centre: tuple[float, float],
    radii: tuple[float, float],
    tilt: float = 0.0,
    lobes: Array | None = None,
) -> Array:
    """Relative distance from the centre: below 1 inside, 1 on the outline.

    Args:
        canvas: gives the points.
        centre: x and z.
        radii: half the width and half the height before `tilt` (radians, clockwise on the picture).
        tilt: see `radii`.
        lobes: (n, 3) rows of order, height and phase; each adds a ripple to the outline.
    """
    dx, dz = canvas.x - centre[0], canvas.z - centre[1]
    u = (np.cos(tilt) * dx + np.sin(tilt) * dz) / radii[0]
    v = (np.cos(tilt) * dz - np.sin(tilt) * dx) / radii[1]
    rho = np.hypot(u, v)
    if lobes is None:
        return np.asarray(rho)
    near = rho < 2  # farther out the exact value is not needed, and cosines are slow
    around = np.arctan2(v[near], u[near])
    rho[near] /= 1 + sum(height * np.cos(order * around + phase) for order, height, phase in lobes)
    return np.asarray(rho)


def draw_lobes(rng: np.random.Generator, orders: tuple[int, ...], height: float) -> Array:
    """Random ripples for `ellipse`, one per order."""
    heights = height * rng.uniform(0.4, 1, len(orders)) / np.sqrt(len(orders))
    return np.stack([np.array(orders, float), heights, rng.uniform(0, 2 * np.pi, len(orders))], axis=1)


def between(values: Array, low: Array | float, high: Array | float) -> Mask:
    """Where low <= values < high."""
    return (values >= low) & (values < high)


def wave(canvas: Canvas, rng: np.random.Generator, level: float, swing: float, period: float) -> Array:
    """The depth of a gently curved layer at each point's x."""
    return level + swing * np.sin(2 * np.pi * (canvas.x / period + rng.uniform()))


def paint_breast(canvas: Canvas, rng: np.random.Generator) -> None:
    """Skin, fat with septa, gland, pectoral muscle and chest wall; one hypoechoic lesion, labelled breast cancer."""
    bend(canvas, rng, 0.35, 9)
    fibres, patches = texture(canvas, rng, 5, 1.2), texture(canvas, rng, 3.5, 2.5)
    gland_top = wave(canvas, rng, rng.uniform(6, 9), 1.2, rng.uniform(18, 30))
    gland_end = wave(canvas, rng, rng.uniform(29, 32), 1.0, rng.uniform(25, 40))
    fascia = gland_end + rng.uniform(2, 4)
    canvas.paint(canvas.depth >= 0, Tissue(-11), 3 * patches)
    septa = np.abs(canvas.z - wave(canvas, rng, 5, 1.6, rng.uniform(12, 20)))
    canvas.paint(septa < 0.35, Tissue(2, 1, 1.12))
    canvas.paint(between(canvas.z, gland_top, gland_end), Tissue(3, 1, 1.03), 3.5 * fibres + 1.5 * patches)
    for _ in range(3):  # fat lobules: dark too, but lens-shaped, streaked and less dark than any lesion
        place = (rng.uniform(-18, 18), rng.uniform(9, 29))
        lobule = ellipse(canvas, place, (rng.uniform(3, 5), rng.uniform(1.2, 1.8)), rng.normal(0, 0.15))
        canvas.paint(lobule < 1, Tissue(-7), 3 * fibres)
    canvas.paint(canvas.z > fascia, Tissue(-8, 1.1), 5 * fibres)
    canvas.paint(between(canvas.z, fascia, fascia + 0.6), Tissue(6, 1, 1.25))
    canvas.paint(canvas.z > fascia + rng.uniform(8, 10), Tissue(2, 3, 1.1), 3 * fibres)
    canvas.paint(canvas.depth < 1.8, Tissue(7, 1, 1.1))
    canvas.paint(canvas.depth < 0.6, Tissue(0))
    _paint_breast_lesion(canvas, rng, patches)


def _paint_breast_lesion(canvas: Canvas, rng: np.random.Generator, patches: Array) -> None:
    area, centre = rng.uniform(261, 268), (rng.uniform(-6, 6), rng.uniform(18, 21))
    cancerous = rng.uniform() < 0.6
    if cancerous:
        aspect, loss, echo, lobes = rng.uniform(0.8, 1.2), 1.9, -21.0, draw_lobes(rng, (2, 3, 5, 8), 0.16)
    else:
        aspect, loss, echo, lobes = rng.uniform(0.68, 0.88), 0.55, -19.0, draw_lobes(rng, (2, 3), 0.06)
    width = np.sqrt(area / np.pi / aspect)
    lesion = ellipse(canvas, centre, (width, width * aspect), rng.normal(0, 0.2), lobes)
    rim = Tissue(6, 1.2, 1.04) if cancerous else Tissue(5, 1, 1.12)
    canvas.paint(between(lesion, 0.97, 1.14 if cancerous else 1.05), rim, 2 * patches)
    canvas.paint(lesion < 1, Tissue(echo, loss, 0.98), 2 * patches)
    if cancerous:
        specks = texture(canvas, rng, 1.0, 0.8)
        canvas.paint((lesion < 0.7) & (specks > 2.3), Tissue(8, 4, 1.1))
    canvas.masks["breast cancer"] = lesion < 1


def paint_thyroid(canvas: Canvas, rng: np.random.Generator) -> None:
    """One lobe and the isthmus beside the trachea, strap muscles in front, carotid and jugular at the side."""
    side = rng.choice([-1.0, 1.0])
    bend(canvas, rng, 0.4, 11)
    fibres, grain = texture(canvas, rng, 6, 0.9), texture(canvas, rng, 2.5, 2)
    canvas.paint(canvas.depth >= 0, Tissue(-7, 1.1), 5 * fibres)
    longus = ellipse(canvas, (side * 3, rng.uniform(36.5, 38.5)), (12, 3.5), side * -0.1)
    canvas.paint(longus < 1.15, Tissue(-2, 1.2, 1.12))
    canvas.paint(longus < 1, Tissue(-16, 1.2), 3 * fibres)
    radii, tilt = (rng.uniform(15.3, 16), rng.uniform(12, 12.7)), side * rng.uniform(0, 0.3)
    lobe = ellipse(canvas, (side * 1.5, 22), radii, tilt, draw_lobes(rng, (2, 3), 0.08))
    trachea = ellipse(canvas, (side * -21, rng.uniform(21.5, 23)), (rng.uniform(9, 9.8), 9))
    isthmus = (side * canvas.x < 0) & (trachea < 1.5) & between(canvas.z, 9.5, 21)
    strap = ellipse(canvas, (side * 3, rng.uniform(5.8, 6.6)), (22, 3.2), side * 0.05)
    for layer in (lobe, strap):
        canvas.paint(layer < 1.1, Tissue(-1, 1, 1.1), 2 * fibres)  # fascia and capsule
    gland = ((lobe < 1) | isthmus) & (trachea >= 1) & (strap >= 1)
    canvas.paint(gland, Tissue(4, 1, 1.02), 1.2 * grain)
    canvas.paint(strap < 1, Tissue(-14), 4 * fibres)
    vessels = _paint_airway_and_vessels(canvas, rng, side, trachea)
    _paint_nodule(canvas, rng, side, grain)
    canvas.paint(canvas.depth < 1.5, Tissue(6, 1, 1.1))
    canvas.masks["thyroid gland"] = (gland & ~vessels) | canvas.masks["thyroid nodule"]


def _paint_airway_and_vessels(canvas: Canvas, rng: np.random.Generator, side: float, trachea: Array) -> Mask:
    """Returns the region of the vessels with their walls."""
    canvas.paint(trachea < 1, Tissue(-10, 1.5))
    canvas.paint(between(trachea, 0.84, 0.93), Tissue(8, 3, 1.35))
    canvas.paint(trachea < 0.84, AIR)
    carotid = ellipse(canvas, (side * 15, rng.uniform(32, 33.5)), (rng.uniform(3, 3.5), rng.uniform(3, 3.5)))
    jugular = ellipse(canvas, (side * 18, rng.uniform(12, 14)), (2, 3.2), side * -0.4)
    for vessel in (carotid, jugular):
        canvas.paint(vessel < 1.25, Tissue(0, 1, 1.15))
        canvas.paint(vessel < 1, Tissue(-32, 0.4, 0.98))
    return (carotid < 1.25) | (jugular < 1.25)


def _paint_nodule(canvas: Canvas, rng: np.random.Generator, side: float, grain: Array) -> None:
    area, aspect = rng.uniform(67, 72), rng.uniform(0.75, 1.15)
    width = np.sqrt(area / np.pi / aspect)
    centre = (side * rng.uniform(-4, 5), rng.uniform(19, 24))
    nodule = ellipse(canvas, centre, (width, width * aspect), rng.normal(0, 0.2), draw_lobes(rng, (2, 3, 4), 0.06))
    canvas.paint(nodule < 1, Tissue(-24, 1, 0.97))  # the halo, a dark rim
    kind = rng.choice(["solid", "halo", "cystic"])
    canvas.paint(nodule < 0.86, Tissue(-5.0 if kind == "halo" else -13.0, 1.1), 2 * grain)
    if kind == "cystic":
        canvas.paint((nodule < 0.86) & (canvas.z < centre[1] + 1.5 * np.sin(canvas.x)), FLUID)
    canvas.masks["thyroid nodule"] = nodule < 1


def paint_obstetric(canvas: Canvas, rng: np.random.Generator) -> None:
    """A pregnant uterus with the fetal head in amniotic fluid, and an ovarian tumour beside it."""
    side = rng.choice([-1.0, 1.0])
    bend(canvas, rng, 0.8, 30)
    loops, fibres = texture(canvas, rng, 10, 7), texture(canvas, rng, 16, 3)
    canvas.paint(canvas.depth >= 0, Tissue(-5), 5 * loops + 3 * fibres)
    head_at = (side * -rng.uniform(16, 20), rng.uniform(64, 71))
    radii, tilt = (rng.uniform(46, 49), rng.uniform(36, 38.5)), rng.normal(0, 0.13)
    lobes = draw_lobes(rng, (2, 3), 0.03)
    womb_at, womb_radii = (head_at[0] - side * 4, head_at[1] + 3), (radii[0] + 13, radii[1] + 14)
    womb = ellipse(canvas, womb_at, womb_radii, tilt, lobes)
    fluid = ellipse(canvas, (womb_at[0], womb_at[1] - rng.uniform(7, 11)), womb_radii, tilt + 0.1, lobes)
    canvas.paint(womb < 1.12, Tissue(-9, 1, 1.04), 2 * fibres)
    canvas.paint(womb < 1, Tissue(0, 1, 1.06), 1.5 * loops)  # placenta, where the fluid below leaves a crescent
    canvas.paint((womb < 1) & (fluid < 0.98), FLUID)
    _paint_head(canvas, rng, head_at, radii, tilt)
    _paint_tumour(canvas, rng, (side * rng.uniform(47, 49.5), rng.uniform(94, 103)))
    for level in np.cumsum(rng.uniform(3, 5, 3)):  # skin, fat and muscle of the belly follow the probe's surface
        canvas.paint(between(canvas.depth, level - 1.2, level), Tissue(5, 1, 1.12), fibres)
    canvas.paint(canvas.depth < 1.5, Tissue(8))


def _paint_head(
    canvas: Canvas, rng: np.random.Generator, centre: tuple[float, float], radii: tuple[float, float], tilt: float
) -> None:
    head = ellipse(canvas, centre, radii, tilt)
    folds = texture(canvas, rng, 5, 4)
    dx, dz = canvas.x - centre[0], canvas.z - centre[1]
    u, v = np.cos(tilt) * dx + np.sin(tilt) * dz, np.cos(tilt) * dz - np.sin(tilt) * dx
    canvas.paint(head < 1, Tissue(0, 2.2, 1.35))  # a fetal skull is thin: it shadows where it runs along the beam
    canvas.paint(head < 0.94, Tissue(-17, 0.8, 1), 5 * folds)
    canvas.paint((head < 0.94) & (v < -0.25 * radii[1]), Tissue(-22, 0.8, 1), 4 * folds)  # haze hides the near half
    gap = between(u / radii[0], 0.28, 0.45)  # the cavum septi pellucidi interrupts the midline
    canvas.paint((np.abs(v) < 0.7) & (np.abs(u) < 0.75 * radii[0]) & ~gap, Tissue(-5, 1, 1.1), 4 * folds)
    canvas.paint((np.abs(np.abs(v) - 1.8) < 0.5) & gap, Tissue(-6, 1, 1.08))
    at = (centre[0] - rng.uniform(0.15, 0.4) * radii[0], centre[1] + 0.42 * radii[1])
    ventricle, plexus = ellipse(canvas, at, (14, 5), tilt + 0.15), ellipse(canvas, at, (7, 3.2), tilt - 0.2)
    canvas.paint(between(ventricle, 0.88, 1.05), Tissue(-5, 1, 1.08))
    canvas.paint(ventricle < 0.88, FLUID)
    canvas.paint(plexus < 1, Tissue(2), 2 * folds)
    canvas.masks["fetal head"] = head < 1


def _paint_tumour(canvas: Canvas, rng: np.random.Generator, centre: tuple[float, float]) -> None:
    area, aspect = rng.uniform(880, 920), rng.uniform(0.85, 1.25)
    width = np.sqrt(area / np.pi / aspect)
    tumour = ellipse(canvas, centre, (width, width * aspect), rng.normal(0, 0.3), draw_lobes(rng, (2, 3, 4), 0.06))
    grain = texture(canvas, rng, 4, 4)
    canvas.paint(tumour < 1, Tissue(4, 1, 1.12))
    kind = rng.choice(["cyst", "ground glass", "septate", "mixed"])
    canvas.paint(tumour < 0.91, Tissue(-16, 0.5) if kind == "ground glass" else FLUID)
    if kind == "septate":
        lines = np.abs(np.sin((canvas.x + 0.6 * canvas.z) / rng.uniform(4, 6) + grain * 0.15))
        canvas.paint((tumour < 0.91) & (lines < 0.12), Tissue(0, 0.6, 1.08))
    if kind == "mixed":
        solid = ellipse(
            canvas, (centre[0] + rng.uniform(-8, 8), centre[1] + 8), (11, 9), 0, draw_lobes(rng, (3, 5), 0.2)
        )
        canvas.paint((tumour < 0.91) & (solid < 1), Tissue(-6, 1), 3 * grain)
    canvas.masks["ovarian tumor"] = tumour < 1


def paint_heart(canvas: Canvas, rng: np.random.Generator) -> None:
    """The apical four-chamber view: left ventricle in its horseshoe of myocardium, left atrium, part of the right heart."""
    bend(canvas, rng, 1.3, 32)
    length, width, wall = rng.uniform(81, 87), rng.uniform(26.5, 29.5), rng.uniform(7.3, 8.6)
    apex, tilt = (rng.uniform(1, 6), rng.uniform(25, 29)), rng.uniform(-0.16, 0.02)
    u = np.cos(tilt) * (canvas.x - apex[0]) + np.sin(tilt) * (canvas.z - apex[1])
    v = np.cos(tilt) * (canvas.z - apex[1]) - np.sin(tilt) * (canvas.x - apex[0])
    haze, fibres = texture(canvas, rng, 16, 12), texture(canvas, rng, 3, 7)
    canvas.paint(canvas.depth >= 0, Tissue(-9), 3 * haze)
    inner, outer = _bullet(u, v, length, width), _bullet(u, v + wall, length + wall, width + wall)
    lateral = np.where(u > 0, 1.0, 0.0)
    canvas.paint(outer < 1.0 + 2.5 / width, Tissue(3, 1, 1.2), 3 * lateral)  # pericardium
    right = ellipse(canvas, (apex[0] - width - wall - 19, apex[1] + 0.62 * length), (19, 0.45 * length), tilt - 0.1)
    atrium = ellipse(canvas, (apex[0] - width - 14, apex[1] + length + 19), (18, 17), tilt)
    for chamber in (right, atrium):
        canvas.paint(chamber < 1.15, Tissue(-2, 1, 1.12), 2 * fibres)
        canvas.paint(chamber < 1, BLOOD, 3 * haze)
    above = v < length
    canvas.paint((outer < 1) & above, Tissue(-4, 1.1, 1.05), 2.5 * fibres)
    canvas.paint((inner < 1) & above, BLOOD, 2 * haze)
    canvas.masks |= {"left ventricle": (inner < 1) & above, "myocardium": (outer < 1) & (inner >= 1) & above}
    _paint_left_atrium(canvas, rng, u, v - length, width)


def _bullet(u: Array, v: Array, length: float, width: float) -> Array:
    """Relative distance of a half-ellipse, apex at v = 0, that narrows a little towards its base at v = length."""
    widest = 0.62 * length
    along = np.where(v < widest, (v - widest) / widest, (v - widest) / (0.8 * length))
    return np.hypot(u / width, along)


def _paint_left_atrium(canvas: Canvas, rng: np.random.Generator, u: Array, below: Array, width: float) -> None:
    half_width, height = rng.uniform(17, 19), rng.uniform(29, 32)
    chamber = np.hypot(u / half_width, (below - 0.42 * height) / (0.58 * height))
    canvas.paint((chamber < 1.15) & (below > 0), Tissue(0, 1, 1.15))
    inside = (chamber < 1) & (below > 0)
    canvas.paint(inside, BLOOD)
    ring = between(np.abs(u) / width, 0.68, 1.15) & (np.abs(below) < 2.5)
    canvas.paint(ring, Tissue(5, 1.2, 1.15))
    rise = rng.uniform(4, 9) * (1 - np.abs(np.abs(u) / (0.75 * width) * 2 - 1))  # two leaflets, not quite closed
    leaflets = (np.abs(below + rise - 1) < 1.0) & (np.abs(u) < 0.75 * width)
    canvas.paint(leaflets, Tissue(-2, 1, 1.06))
    canvas.masks["left atrium"] = inside
