"""Random scenes for training; each is a function of its seed.

The kinds and their weights are stated here once. ``indoor`` and ``outdoor`` build them out of primitives (``models``)
and, where there is a folder of assets, its models and textures (``assets``); ``rasterizer`` draws them.
"""

from collections.abc import Callable, Collection
from typing import Literal

import numpy as np

from training.scenes.assets import Assets
from training.scenes.indoor import make_objects, make_room, make_table
from training.scenes.outdoor import make_drive, make_landscape, make_street
from training.scenes.types import Scene

Kind = Literal["room", "table", "street", "drive", "landscape", "objects"]
KINDS: dict[Kind, tuple[Callable[[np.random.Generator, Assets], Scene], float]] = {
    "room": (make_room, 0.36),
    "table": (make_table, 0.24),
    "street": (make_street, 0.12),
    "drive": (make_drive, 0.08),
    "landscape": (make_landscape, 0.09),
    "objects": (make_objects, 0.11),
}
"""What is built, and its share of all scenes."""


def make_scene(seed: int | tuple[int, ...], assets: Assets, kinds: Collection[Kind] = tuple(KINDS)) -> Scene:
    """Build a random scene, in 5 to 40 ms once its assets are loaded.

    Args:
        seed: integers that the scene is a function of, together with the assets and the kinds.
        assets: models and textures to furnish it with; without any it is built of primitives.
        kinds: kinds of scenes to draw one from, by their weights in ``KINDS``.

    Returns:
        The scene with its cameras and lights.
    """
    rng = np.random.default_rng(seed)
    builders, weights = zip(*(choice for kind, choice in KINDS.items() if kind in kinds), strict=True)
    return builders[int(rng.choice(len(builders), p=np.array(weights) / sum(weights)))](rng, assets)
