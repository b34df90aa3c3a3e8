"""What a training step takes: memory, counted on tensors without values, and operations, on an empty picture."""

import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from marigold_core.errors import MarigoldError
from marigold_core.pipeline.pipeline import MarigoldPipeline
from training.engine.losses import end_to_end_loss, velocity_loss
from training.models.lora import make_trainable
from training.recipe import Recipe

FLOAT_BYTES = 4
LENGTH = 2  # tokens of the empty prompt
SMALLEST_8BIT, BLOCK = 4096, 256  # of bitsandbytes: smaller tensors keep 32 bits; numbers that share a scale


@dataclass(frozen=True)
class StepMemory:
    """What a step needs at its peak, bytes."""

    weights: int  # of the network, its running mean included, and of a decoder that the loss is taken through
    moments: int  # of the optimiser
    step: int  # gradients, activations and temporary tensors of a micro-batch

    @property
    def total(self) -> int:
        """All together, without encoder, text encoder and what the framework itself takes."""
        return self.weights + self.moments + self.step


class _Counter(TorchDispatchMode):
    """Counts the bytes of all tensors that live at once while the mode is on, those of ``kept`` excepted."""

    def __init__(self, kept: Iterable[Tensor]) -> None:
        super().__init__()
        self.live = self.peak = 0
        storages: list[Any] = [tensor.untyped_storage() for tensor in kept]  # a view of a tensor has its storage
        self.seen: dict[int, object] = {storage._cdata: storage for storage in storages}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for one in tree_leaves(result):
            if isinstance(one, Tensor):
                self._count(one.untyped_storage())
        return result

    def _count(self, storage: Any) -> None:
        key = storage._cdata
        if key in self.seen:
            return
        self.seen[key] = weakref.finalize(storage, self._drop, key, storage.nbytes())
        self.live += storage.nbytes()
        self.peak = max(self.peak, self.live)

    def _drop(self, key: int, size: int) -> None:
        self.seen.pop(key, None)
        self.live -= size


def step_memory(
    unet: UNet2DConditionModel, recipe: Recipe, latent: tuple[int, int], vae: AutoencoderKL | None = None
) -> StepMemory:
    """Count what training a U-Net takes in float32, with micro-batches of latents of ``latent`` = (h, w).

    End-to-end training takes ``vae`` too, through whose decoder its loss goes. Both lose their values, and adapters are
    added where the recipe asks for them. What libraries of a device take as work space is not counted. In bfloat16
    activations take about half.
    Raises: MarigoldError for end-to-end training without an autoencoder.
    """
    decoder: Any = vae if recipe.objective == "end_to_end" else None
    if recipe.objective == "end_to_end" and decoder is None:
        raise MarigoldError("The loss of --objective end_to_end goes through a decoder: give the autoencoder too.")
    network: Any = unet.to("meta")  # pyright: ignore
    make_trainable(network, recipe)
    parts = [network] if decoder is None else [network, decoder.requires_grad_(False)]
    # tensors that claim to be a CPU's: those of "meta" have attention as a matrix of all cells, which no device keeps
    with FakeTensorMode():
        for part in parts:
            _empty_weights(part)
        batch = recipe.micro_batch_size or recipe.batch_size
        image = torch.empty(batch, cast(int, network.config["in_channels"]), *latent)
        t = torch.empty(batch, dtype=torch.long)
        prompt = torch.empty(batch, LENGTH, cast(int, network.config["cross_attention_dim"]))
        with _Counter(weight for part in parts for weight in part.parameters()) as counter:
            predicted = network(image, t, encoder_hidden_states=prompt, return_dict=False)[0]
            if decoder is not None:
                predicted = decoder.decode(predicted, return_dict=False)[0]
            predicted.square().mean().backward()
    trained = [weight.numel() for weight in network.parameters() if weight.requires_grad]
    weights = sum(weight.numel() for weight in network.parameters()) * (2 if recipe.ema_decay else 1)
    if decoder is not None:
        used = decoder.decoder, decoder.post_quant_conv
        weights += sum(weight.numel() for part in used for weight in part.parameters())
    return StepMemory(FLOAT_BYTES * weights, sum(_moments(count, recipe) for count in trained), counter.peak)


def _empty_weights(network: nn.Module) -> None:
    """Replace all weights by new ones of their shapes, without values in a ``FakeTensorMode``."""
    for module in network.modules():
        for name, weight in [*module.named_parameters(recurse=False)]:
            setattr(module, name, nn.Parameter(torch.empty(weight.shape), weight.requires_grad))


def _moments(count: int, recipe: Recipe) -> int:
    """Count the bytes of both moments of a tensor of ``count`` numbers."""
    if recipe.optimizer == "adamw" or count < SMALLEST_8BIT:
        return 2 * FLOAT_BYTES * count
    return 2 * (count + FLOAT_BYTES * -(-count // BLOCK))


def step_operations(pipeline: MarigoldPipeline, recipe: Recipe) -> int:
    """Count the floating-point operations of a training step of one picture, forward and backward.

    Matrix products, convolutions and attention are counted, as ``torch.utils.flop_counter`` does, of what differs
    between objectives: not of encoding the pictures. The U-Net is changed as training changes it.
    """
    pipeline.prompt = pipeline.prompt.clone()  # loaded in inference mode, which autograd refuses
    make_trainable(pipeline.unet, recipe)
    long_edge = recipe.long_edge_px or pipeline.checkpoint.default_resolution
    height, width = (side // pipeline.factor * pipeline.factor for side in (long_edge * 3 // 4, long_edge))
    picture = torch.zeros(1, 3 * pipeline.modality.pictures, height, width, device=pipeline.device)
    with torch.no_grad():
        image = pipeline.encode(picture[:, :3])
        features = pipeline.features(image)
        end_to_end = recipe.objective == "end_to_end"
        target = picture if end_to_end else pipeline.encode(picture)
    known = torch.ones_like(image[:, :1], dtype=torch.bool)
    score = end_to_end_loss if end_to_end else velocity_loss
    with FlopCounterMode(display=False) as counter:
        score(pipeline, image, target, known, recipe=recipe, micro=0, features=features).backward()
    return counter.get_total_flops()
