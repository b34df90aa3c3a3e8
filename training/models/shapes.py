"""Layer sizes of the checkpoints that ``training.start`` makes, from the smallest in tests to the public one."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Unet:
    """The denoiser's sizes, level by level from fine to coarse."""

    channels: tuple[int, ...]
    heads: tuple[int, ...]  # attention heads
    attends: tuple[bool, ...]  # which levels look at the whole picture
    layers: int  # residual blocks of a level
    groups: int  # channels are normalised in this many groups


@dataclass(frozen=True)
class Vae:
    """The autoencoder's sizes; each level but the last halves the picture."""

    channels: tuple[int, ...]
    layers: int
    groups: int
    attends: bool  # whether its middle looks at the whole picture; costs the square of the pixels


@dataclass(frozen=True)
class Text:
    """The text encoder's sizes; only its embedding of the empty prompt is ever used."""

    width: int
    layers: int
    heads: int
    vocabulary: int


@dataclass(frozen=True)
class Shape:
    """Layer sizes of one family of checkpoints."""

    unet: Unet
    vae: Vae
    text: Text
    resolution: int  # default longest edge the network sees, pixels

    @property
    def factor(self) -> int:
        """Photo pixels along one side of a latent pixel."""
        return 2 ** (len(self.vae.channels) - 1)


SHAPES = {
    # for tests: under 2 MB, a step takes milliseconds
    "tiny": Shape(
        unet=Unet(channels=(16, 32), heads=(2, 4), attends=(False, True), layers=1, groups=8),
        vae=Vae(channels=(8, 8, 16, 16), layers=1, groups=4, attends=True),
        text=Text(width=16, layers=1, heads=2, vocabulary=514),
        resolution=64,
    ),
    # the bundled checkpoint: 7.3 M parameters in the U-Net, 0.6 M in the autoencoder
    "nano": Shape(
        unet=Unet(
            channels=(32, 64, 128, 160), heads=(1, 2, 4, 5), attends=(False, False, False, True), layers=1, groups=16
        ),
        vae=Vae(channels=(16, 32, 64), layers=1, groups=8, attends=False),
        text=Text(width=32, layers=1, heads=2, vocabulary=514),
        resolution=192,
    ),
    # Stable Diffusion 2 as widened by Marigold: 866 M parameters in the U-Net, 84 M in the autoencoder
    "public": Shape(
        unet=Unet(
            channels=(320, 640, 1280, 1280),
            heads=(5, 10, 20, 20),
            attends=(True, True, True, False),
            layers=2,
            groups=32,
        ),
        vae=Vae(channels=(128, 256, 512, 512), layers=2, groups=32, attends=True),
        text=Text(width=1024, layers=23, heads=16, vocabulary=49408),
        resolution=768,
    ),
}
