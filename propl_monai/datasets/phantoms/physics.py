"""From a drawn cross-section to an ultrasound-like picture: speckle, beams, shadows, log compression, sector.

Modelled: fully developed speckle from a complex Gaussian field of scatterers; a pulse of constant axial length and a
beam that is narrowest at its focus, with weak side lobes; mirror-like (specular) echoes that fade as an interface
turns away from the beam; loss along each beam, which makes shadows behind bone, gas and dense lesions and bright bands
behind fluid; refraction loss at steep edges; an imperfect time-gain compensation; receiver noise; log compression.
Not modelled: wave propagation, phase aberration, multiple reflection beyond a near-field haze, motion, Doppler.
Source of the speckle model: Wagner, Smith, Sandrik and Lopez, IEEE Trans. Sonics Ultrason. 30(3), 1983.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.ndimage import gaussian_filter, gaussian_filter1d, map_coordinates

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Grey = NDArray[np.uint8]

OVERSCAN = 1.08  # beams simulated beyond both edges of the sector, as the Fourier blur across beams wraps around
SIDE_LOBE = 0.06  # amplitude of the wide part of the beam; it lets bright walls spill into dark cysts
NOISE_DB = -33.0  # receiver noise at the surface, relative to the echo of average soft tissue
MOST_ENHANCEMENT_DB = 9.0  # the operator turns the gain down where fluid would let the picture saturate
EDGE_LOSS_DB = 1.5  # refraction, per mm along an edge with a unit jump of impedance over one aperture
FAR_LOSS_DB = 4.0  # short of full compensation at the bottom of the picture
MIRROR = 80.0  # echo amplitude of a unit jump of impedance that faces the beam
DYNAMIC_RANGE_DB = 55.0
SOFT_TISSUE_GREY = 0.52  # where 0 dB lands on the grey scale, 0-1


class Tissue(NamedTuple):
    """A tissue as the beam meets it.

    Attributes:
        echo_db: strength of the speckle, dB relative to average soft tissue.
        loss: attenuation relative to average soft tissue (1); fluid is near 0, bone and gas far above 1.
        impedance: relative; only its jumps matter, they make specular echoes and refraction.
    """

    echo_db: float
    loss: float = 1.0
    impedance: float = 1.0


@dataclass(frozen=True)
class Probe:
    """A transducer and its settings, lengths in mm. A linear array is a curved one of very large radius.

    Attributes:
        radius: radius of the curved surface.
        half_angle: from the middle to the last beam, radians.
        depth: how far the picture reaches below the surface.
        pulse: standard deviation of the axial pulse envelope.
        beam: standard deviation of the beam at its focus, across.
        focus: depth of the focus.
        loss: two-way loss in average soft tissue, dB/mm; the time-gain compensation makes up for just this.
        looks: independent speckle pictures averaged (spatial compounding).
    """

    radius: float
    half_angle: float
    depth: float
    pulse: float
    beam: float
    focus: float
    loss: float
    looks: int = 1

    def place(self, depth: Array, angle: Array) -> tuple[Array, Array]:
        """Where a point of a beam lies: x to the right of the middle, z below the top of the sector (mm)."""
        r = self.radius + depth
        return r * np.sin(angle), r * np.cos(angle) - self.radius * np.cos(self.half_angle)

    def find(self, x: Array, z: Array) -> tuple[Array, Array]:
        """The inverse of `place`: depth (mm) and angle (radians) of a point."""
        z = z + self.radius * np.cos(self.half_angle)
        return np.hypot(x, z) - self.radius, np.arctan2(x, z)


@dataclass
class Canvas:
    """A cross-section over the beams of a probe; all arrays are (depths, beams).

    Attributes:
        depth: mm below the surface of the probe, along the beam.
        x: mm to the right, in the frame of the anatomy.
        z: mm downwards, in the frame of the anatomy.
        masks: task name -> region that this task is after.
    """

    probe: Probe
    depth: Array
    angle: Array
    x: Array
    z: Array
    masks: dict[str, Mask] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.echo_db, self.loss, self.impedance = (np.full(self.x.shape, value) for value in (0.0, 1.0, 1.0))

    @classmethod
    def under(cls, probe: Probe, samples: int, beams: int, shift: tuple[float, float], tilt: float) -> Canvas:
        """An empty canvas; the probe is held `shift` (mm) and `tilt` (radians) away from its standard position."""
        depth, angle = np.meshgrid(
            np.linspace(0, probe.depth, samples),
            np.linspace(-OVERSCAN, OVERSCAN, beams) * probe.half_angle,
            indexing="ij",
        )
        x, z = probe.place(depth, angle)
        middle = probe.depth / 2
        turned_x = np.cos(tilt) * x + np.sin(tilt) * (z - middle) + shift[0]
        turned_z = np.cos(tilt) * (z - middle) - np.sin(tilt) * x + middle + shift[1]
        return cls(probe, depth, angle, turned_x, turned_z)

    def paint(self, region: Mask, tissue: Tissue, texture: Array | float = 0.0) -> None:
        """Fill a region with a tissue; `texture` (dB) is added to its echo."""
        np.copyto(self.echo_db, tissue.echo_db + texture, where=region)
        np.copyto(self.loss, tissue.loss, where=region)
        np.copyto(self.impedance, tissue.impedance, where=region)


def insonify(canvas: Canvas, rng: np.random.Generator) -> Array:
    """The log-compressed picture in beam space, (depths, beams), 0-255."""
    probe = canvas.probe
    gain_db = _gain_db(canvas, rng)
    noise_db = NOISE_DB + 0.18 * probe.loss * canvas.depth
    power = np.zeros(canvas.x.shape)
    for _ in range(probe.looks):
        received = _echoes(canvas, rng) * _amplitude(gain_db) + _scatterers(canvas, rng) * _amplitude(noise_db)
        power += np.abs(received) ** 2
    echo_db = 10 * np.log10(power / probe.looks + 1e-12)
    return np.clip(255 * (SOFT_TISSUE_GREY + echo_db / DYNAMIC_RANGE_DB), 0, 255)


def scan_convert(layers: list[Array], probe: Probe, x: Array, z: Array) -> list[Array]:
    """Look up (depths, beams) arrays at the points x, z (mm); 0 outside the sector."""
    depth, angle = probe.find(x, z)
    inside = (depth >= 0) & (depth <= probe.depth) & (np.abs(angle) <= probe.half_angle)
    samples, beams = layers[0].shape
    rows = depth[inside] / probe.depth * (samples - 1)
    columns = (angle[inside] / (OVERSCAN * probe.half_angle) + 1) / 2 * (beams - 1)
    pictures = [np.zeros(x.shape) for _ in layers]
    for picture, layer in zip(pictures, layers, strict=True):
        picture[inside] = map_coordinates(layer, (rows, columns), order=1, mode="grid-wrap")
    return pictures


def _amplitude(level_db: Array | float) -> Array:
    return np.asarray(np.exp(np.log(10) / 20 * np.asarray(level_db)))


def _scatterers(canvas: Canvas, rng: np.random.Generator) -> NDArray[np.complex128]:
    shape = canvas.x.shape
    return np.asarray((rng.standard_normal(shape) + 1j * rng.standard_normal(shape)) / np.sqrt(2))


def _echoes(canvas: Canvas, rng: np.random.Generator) -> NDArray[np.complex128]:
    """Speckle plus specular echoes after the pulse and the beam, before loss and gain."""
    probe, spacing = canvas.probe, canvas.depth[1, 0] - canvas.depth[0, 0]
    pulse = probe.pulse / spacing
    transfer = _beam_transfer(canvas)
    # The blur averages random phases away; these factors keep the mean echo of uniform tissue at its painted level.
    keep = np.sqrt(2 * np.sqrt(np.pi) * max(pulse, 0.3)) / np.sqrt((transfer**2).mean(axis=1, keepdims=True))
    haze = _amplitude(-8 - 2.2 * canvas.depth / probe.focus * 10)
    speckle = _scatterers(canvas, rng) * (_amplitude(canvas.echo_db) + haze) * keep
    blurred = gaussian_filter1d(speckle + _mirrors(canvas, pulse), pulse, axis=0)
    return np.asarray(fft.ifft(fft.fft(blurred, axis=1) * transfer, axis=1))


def _mirrors(canvas: Canvas, pulse: float) -> Array:
    """Specular echoes: the jump of impedance along the beam, fading with the angle between beam and normal."""
    pulse = max(pulse, 0.7)
    smooth = gaussian_filter(canvas.impedance, (pulse, 1.0))
    along, across = np.gradient(smooth)
    across = across * (canvas.depth[1, 0] - canvas.depth[0, 0]) / np.maximum(_between_beams(canvas), 1e-3)
    cosine = np.abs(along) / (np.hypot(along, across) + 1e-9)
    return np.asarray(MIRROR * pulse * along * cosine**4)


def _beam_transfer(canvas: Canvas) -> Array:
    """The beam's profile across as a transfer function, one row for each depth."""
    probe, depth = canvas.probe, canvas.depth[:, :1]
    width = probe.beam * np.hypot(1, (depth - probe.focus) / probe.focus)
    spread = width / np.maximum(_between_beams(canvas), 1e-3)
    frequency = fft.fftfreq(canvas.x.shape[1])[None]
    narrow, wide = (np.exp(-2 * (np.pi * scale * spread * frequency) ** 2) for scale in (1.0, 6.0))
    return np.asarray((1 - SIDE_LOBE) * narrow + SIDE_LOBE * wide)


def _between_beams(canvas: Canvas) -> Array:
    """Distance of neighbouring beams at each depth, mm, (depths, 1)."""
    return np.asarray((canvas.probe.radius + canvas.depth[:, :1]) * (canvas.angle[0, 1] - canvas.angle[0, 0]))


def _gain_db(canvas: Canvas, rng: np.random.Generator) -> Array:
    """The gain of each echo after loss and time-gain compensation, dB."""
    probe, spacing = canvas.probe, canvas.depth[1, 0] - canvas.depth[0, 0]
    loss_db = probe.loss * spacing * np.cumsum(canvas.loss - 1, axis=0)
    aperture = canvas.x.shape[1] / 90  # beams; a shadow's edge is as soft as the aperture that looks around it
    edges = aperture * np.abs(np.gradient(gaussian_filter(canvas.impedance, (1.5, aperture)), axis=1))
    refraction_db = EDGE_LOSS_DB * spacing * np.cumsum(edges, axis=0)
    shadow_db = gaussian_filter1d(loss_db + refraction_db, aperture, axis=1)
    knobs = np.interp(canvas.depth, np.linspace(0, probe.depth, 6), rng.normal(0, 1.3, 6) + rng.normal(0, 1.5))
    # Patchy contact of probe and skin dims whole beams; what is lost far down is lost for good.
    contact = np.interp(canvas.angle[0], np.linspace(-1, 1, 8) * probe.half_angle, rng.exponential(1.2, 8))
    far_db = FAR_LOSS_DB * (canvas.depth / probe.depth) ** 2
    return np.asarray(np.minimum(-shadow_db, MOST_ENHANCEMENT_DB) + knobs - contact - far_db)
