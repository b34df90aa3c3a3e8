"""Layers of a photo, intrinsic images or classes: what they are, and which channels hold them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from marigold_core.errors import SettingsError
from marigold_core.settings import Kind

LayerName = Literal[
    "albedo", "roughness", "metallicity", "shading", "residual", "classes", "centre", "widths", "heights"
]
BOXES: tuple[LayerName, LayerName, LayerName] = ("centre", "widths", "heights")


@dataclass(frozen=True)
class ClassColour:
    """One class of a segmentation and the colour that it is painted in, sRGB."""

    name: str
    rgb: tuple[int, int, int]


@dataclass(frozen=True)
class Layer:
    """One intrinsic image: colours of light or reflectance, or one quantity without colour; or the classes of pixels.

    Of objects, "centre" is 1 in the middle of each, "widths" and "heights" hold the size of its box all over it (see
    ``images.boxes.share_of``), and the first of the classes is where there is none.

    Where a checkpoint has all three in linear light, the photo in linear light is albedo * shading + residual.
    Source: Ke et al. 2025 (arXiv 2505.09358), section 4.3.
    """

    name: LayerName
    picture: int  # which of the pictures that the network makes it lies in, from 0
    channels: tuple[int, ...]  # of that picture: all three, also of a number that is painted in grey, or one
    space: Literal["srgb", "linear"]  # of its numbers
    up_to_scale: bool = False
    classes: tuple[ClassColour, ...] = ()  # of a segmentation: its numbers are places in this list
    grey: bool = False  # one number, in all channels alike: an autoencoder keeps grey better than colours

    @property
    def width(self) -> int:
        """How many channels its numbers have."""
        return 1 if self.classes or self.grey else len(self.channels)

    @property
    def in_colour(self) -> bool:
        """Whether it has red, green and blue."""
        return self.width > 1

    @property
    def meaning(self) -> str:
        """What its numbers are, in a line that files carry."""
        if self.classes:
            return ", ".join(f"{number} {one.name}" for number, one in enumerate(self.classes))
        of = (
            ("sRGB colours" if self.space == "srgb" else "linear light") if self.in_colour else "a number, not a colour"
        )
        return f"{of}, up to an unknown scale" if self.up_to_scale else of


class Claimed(Protocol):
    """What is known of values before they are made: of a ``Prediction``, or of a checkpoint that makes such ones."""

    @property
    def modality(self) -> str:
        """The modality, "depth", "normals", "intrinsics" or "segmentation"."""
        ...

    @property
    def kind(self) -> Kind:
        """What may be claimed about the values."""
        ...

    @property
    def layers(self) -> tuple[Layer, ...]:
        """What the channels of intrinsics and classes are."""
        ...


def count_pictures(layers: Sequence[Layer]) -> int:
    """Count the pictures that layers lie in; without layers there is one, of the depth or the normals."""
    return 1 + max((layer.picture for layer in layers), default=0)


def channels_of(layers: Sequence[Layer], name: LayerName, values: np.ndarray) -> np.ndarray:
    """Take a layer out of values [h, w, C] with the channels of all ``layers`` -> [h, w, 3], without colour [h, w].

    Raises: SettingsError where they have no such layer.
    """
    values = values if values.ndim == 3 else values[..., None]
    first = 0
    for layer in layers:
        if layer.name == name:
            found = values[..., first : first + layer.width]
            return found if layer.in_colour else found[..., 0]
        first += layer.width
    has = f"its layers are {', '.join(layer.name for layer in layers)}" if layers else "it has no layers"
    raise SettingsError(f"The prediction has no layer {name!r}: {has}.")
