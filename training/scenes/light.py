"""Light and sky of a scene: lamps indoors; sun, clouds and haze outdoors."""

from dataclasses import replace
from functools import lru_cache
from typing import Literal

import numpy as np

from training.scenes import textures
from training.scenes.textures import Texture
from training.scenes.types import Lighting, triple

Light = Literal["usual", "harsh"]
SKIES = 18
SKY_COLOURS = (
    ((0.28, 0.48, 0.85), (0.8, 0.88, 0.95)),
    ((0.42, 0.6, 0.88), (0.93, 0.92, 0.9)),
    ((0.75, 0.78, 0.82), (0.86, 0.87, 0.89)),
    ((0.2, 0.4, 0.78), (0.7, 0.8, 0.92)),
    ((0.6, 0.65, 0.7), (0.85, 0.86, 0.86)),
    ((0.35, 0.42, 0.6), (0.98, 0.78, 0.58)),
)  # sRGB at the zenith and at the horizon


@lru_cache(maxsize=SKIES)
def drawn_sky(variant: int) -> Texture:
    """Draw an equirectangular sky: a gradient from the horizon upwards, clouds, a pale ground below."""
    rng = np.random.default_rng([99, variant])
    zenith = textures.near(rng, *SKY_COLOURS[variant % len(SKY_COLOURS)][0])
    horizon = textures.near(rng, *SKY_COLOURS[variant % len(SKY_COLOURS)][1])
    height = np.cos(np.linspace(0, np.pi, 256))[:, None] + np.zeros(512)
    picture = textures.blend(np.clip(height, 0, 1) ** rng.uniform(0.35, 0.8), horizon, zenith)
    field = np.tile(textures.noise(rng, rng.uniform(1.4, 2.0)), (1, 2))
    cover = np.clip((field - rng.uniform(0.35, 0.75)) * rng.uniform(2, 5), 0, 1) * np.clip(height * 4, 0, 1)
    picture += cover[..., None] * (textures.near(rng, 0.95, 0.95, 0.96) - picture)
    picture = np.dstack([np.clip(picture, 0, 1), np.ones(picture.shape[:2])])
    return Texture((picture * 255).astype(np.uint8))


def sky(rng: np.random.Generator) -> Texture:
    """Draw one of the skies."""
    return drawn_sky(int(rng.integers(SKIES)))


def warmth(rng: np.random.Generator) -> np.ndarray:
    """Draw the tint of a light: [3], from a warm bulb to a blue sky."""
    return np.array([1.0, 1.0, 1.0]) + rng.uniform(-0.4, 1) * np.array([0.06, -0.03, -0.22])


def indoor_light(rng: np.random.Generator, width: float, depth: float, height: float) -> Lighting:
    """Draw the light of a room: a lamp near the ceiling or slanting light as from a window, and bounced light."""
    level = rng.uniform(1.0, 1.9)
    bounce = level * rng.uniform(0.22, 0.55) * warmth(rng)
    ambient = bounce * rng.uniform(0.6, 1.25, (6, 1)) * np.array([1, 1, 1.0, 0.8, 1, 1])[:, None]
    lamp = rng.random() < 0.7
    x, z = rng.uniform(-0.35, 0.35, 2) * [width, depth]
    key = (x, height - rng.uniform(0.1, 0.4), z) if lamp else triple(rng.normal(0, 0.7, 3) + [0, 1.2, 0])
    strength = level * (rng.uniform(0.6, 1.3) * (0.6 + 0.1 * width * depth / 6) if lamp else rng.uniform(0.4, 1.0))
    fill = (*(rng.uniform(-0.45, 0.45, 2) * [width, height]), float(rng.uniform(-0.45, 0.45) * depth))
    return Lighting(
        key=key,
        key_is_lamp=lamp,
        key_colour=triple(strength * warmth(rng)),
        shadow_centre=(0.0, 0.5, 0.0),
        shadow_radius_m=float(np.hypot(width, depth) / 2 + 0.5),
        ambient=ambient,
        fill=(fill[0], float(rng.uniform(0.8, height - 0.3)), fill[2]),
        fill_colour=triple(level * rng.uniform(0, 0.35) * warmth(rng)),
        sky=sky(rng),
        sky_gain=float(rng.uniform(0.9, 1.3)),
    )


def outdoor_light(
    rng: np.random.Generator, shadow_centre: tuple[float, float, float], shadow_radius_m: float, haze_m: float
) -> Lighting:
    """Draw daylight about a place: a sun (or an overcast sky without), the sky's light, haze that hides ``haze_m``."""
    overcast = rng.random() < 0.35
    picture = sky(rng)
    upper = (picture.pixels[:110, :, :3] / 255.0) ** 2
    horizon = triple((picture.pixels[118:128, :, :3] / 255.0).mean((0, 1)) ** 2)
    above = upper.mean((0, 1))
    sun = rng.normal(0, 1, 3)
    sun[1] = np.linalg.norm(sun[[0, 2]]) * np.tan(np.radians(rng.uniform(12, 70)))
    sun /= np.linalg.norm(sun)
    level = rng.uniform(0.65, 1.25)
    above = level * above / above.mean() * (rng.uniform(0.6, 0.9) if overcast else rng.uniform(0.3, 0.55))
    side = above * rng.uniform(0.55, 0.85, (6, 1))
    ambient = np.where(np.arange(6)[:, None] == 2, above, np.where(np.arange(6)[:, None] == 3, 0.45 * above, side))
    glare = level * (rng.uniform(0.05, 0.2) if overcast else rng.uniform(0.7, 1.2))
    return Lighting(
        key=triple(sun),
        key_is_lamp=False,
        key_colour=triple(glare * np.array([1.0, 0.95, 0.85])),
        shadow_centre=shadow_centre,
        shadow_radius_m=shadow_radius_m,
        ambient=ambient,
        haze_per_m=float(rng.uniform(0.2, 1.2) / haze_m),
        haze_colour=horizon,
        sky=picture,
        sky_gain=1.0,
    )


def harsh(light: Lighting, rng: np.random.Generator) -> Lighting:
    """Make a scene's light one that the others never draw: a key light of one colour, little from around, much haze.

    Geometry, camera and albedo stay, so that pictures of both lights differ by their light alone: a gap between two
    domains whose truth is known.
    """
    colour = np.array([1.0, 0.62, 0.3]) if rng.random() < 0.6 else np.array([0.45, 0.7, 1.15])
    return replace(
        light,
        key_colour=triple(1.7 * np.asarray(light.key_colour) * colour),
        ambient=light.ambient * 0.45 * colour[::-1],
        fill_colour=triple(0.3 * np.asarray(light.fill_colour)),
        haze_per_m=4 * light.haze_per_m + rng.uniform(0.01, 0.05),
        haze_colour=triple(0.6 * np.asarray(light.haze_colour) * colour),
        sky_gain=0.6 * light.sky_gain,
    )
