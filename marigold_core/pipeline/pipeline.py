"""From photo to prediction: the one place where anything is denoised.

Every surface (command line, browser, HTTP, evaluation) iterates over ``MarigoldPipeline.stream``; training calls
``encode``, ``decode``, ``predict_velocity`` and ``scheduler``, so it cannot disagree with inference.

Letters in shapes: B batch, E members, P pictures that a network makes at once, C channels, H W photo, PH PW processing
size, PPH PPW padded, h w latent.
"""

import copy
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from time import perf_counter
from typing import Any, Self

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_lcm import LCMScheduler
from torch import Tensor

from marigold_core.calibration.calibrate import (
    COMPLETION_STEPS,
    Completed,
    Hints,
    KnownDepths,
    check_guided,
    completed,
    known_depths,
)
from marigold_core.checkpoints.layout import DRAFT, ERROR
from marigold_core.checkpoints.registry import Checkpoint, TinyAutoencoder, check_decoder
from marigold_core.errors import CheckpointError, MarigoldError, SettingsError
from marigold_core.geometry.camera import DEFAULT_FOV_DEG, assumed_fov_x_deg, focal_length_px
from marigold_core.images.photo import Photo, load_photo, network_size, to_network
from marigold_core.pipeline import completion
from marigold_core.pipeline.displacement import DisplacementNetwork
from marigold_core.pipeline.draft import DraftNetwork
from marigold_core.pipeline.expected_error import ErrorNetwork
from marigold_core.pipeline.image_prior import Features, ImagePrior
from marigold_core.pipeline.loading import (
    compiles_by_default,
    describe_machine,
    load_components,
    load_tiny_autoencoder,
    refusals,
    without_values,
)
from marigold_core.pipeline.modalities import Depth, Modality, modality_for
from marigold_core.pipeline.outlines import follow_outlines
from marigold_core.pipeline.sampling import (
    Condition,
    Conditions,
    FirstStepCache,
    LatentCarry,
    PredictVelocity,
    Preview,
    generator,
    is_out_of_memory,
    members_that_fit,
    noise,
    release,
    stack,
)
from marigold_core.pipeline.tiles import Mosaic, cut_out, member_grid
from marigold_core.pipeline.views import View, resolve, view_of
from marigold_core.prediction import SPREAD_FROM, Cell, Prediction, Progress
from marigold_core.settings import ResolvedSettings, Settings, Views, check_type, default

TRIED_CELLS = 8  # latent cells along each side of a picture that every U-Net takes
COMPILED_CELLS = (4 * TRIED_CELLS, 6 * TRIED_CELLS)  # many and not alike: torch takes a side of 1 within for fixed
TRAINED_ASPECT = 4 / 3  # longer over shorter edge of the pictures that draft and error network learned from
RECOMPUTED_FROM = 100_000_000  # parameters of the U-Net; smaller ones keep little
TOO_LARGE = "This photo is too large for the memory of this machine; choose a lower processing resolution."
PhotoSource = str | Path | bytes | np.ndarray | Photo  # and PIL images; see images.photo.load_photo


class MarigoldPipeline:
    """A loaded checkpoint. Not thread-safe: run one job at a time (``serving.jobs`` holds the lock)."""

    final_clean = True  # the last step returns the predicted clean latent; False: diffusers' ending with 3 % noise left
    respace = True  # leading-spaced DDIM checkpoints run with trailing spacing; False: as stored

    def __init__(
        self,
        checkpoint: Checkpoint,
        unet: UNet2DConditionModel,
        vae: AutoencoderKL | AutoencoderTiny,
        scheduler: DDIMScheduler | LCMScheduler,
        prompt: Tensor,
        prior: ImagePrior | None = None,
        draft: DraftNetwork | None = None,
        displacement: DisplacementNetwork | None = None,
        expected_error: ErrorNetwork | None = None,
    ) -> None:
        self.checkpoint = checkpoint
        self.unet, self.vae, self.scheduler = unet, vae, scheduler
        self.prompt = prompt  # [1, 2 or 77, D] embedding of the empty text, the only text that a checkpoint is given
        self.prior = prior  # image features for a U-Net that was no image generator before; None: published models
        self.draft = draft  # depth by regression, averaged with the members'; None: the members' alone
        self.displacement = displacement  # moves outlines onto the photo's; None: a filter does, see ``outlines``
        self.expected_error = expected_error  # says how far off depth probably is; None: the members' spread does
        self.tiny: tuple[TinyAutoencoder, AutoencoderTiny] | None = None  # decodes where ``decoder`` asks for it
        self.compiled = False
        self.modality = modality_for(checkpoint)
        self.factor = 2 ** (len(vae.config["block_out_channels"]) - 1)  # photo pixels per latent cell, per axis

    @classmethod
    def from_pretrained(
        cls,
        checkpoint: str | Path,
        *,
        device: str = "auto",
        dtype: str = "auto",
        refetch: bool = False,
        tiny_autoencoder: str | None = None,
        compile: bool | None = None,
    ) -> Self:
        """Load a short name, a diffusers folder or a hub id; see ``marigold_core.load``.

        Raises:
            CheckpointError: the checkpoint is missing, damaged, unreachable or of another kind.
            SettingsError: the device or dtype is not available, or the networks cannot be compiled.
        """
        by_default = compile is None and compiles_by_default()
        pipe = cls(*load_components(checkpoint, device, dtype, refetch))
        with refusals("networks"):
            pipe._try_out()
        if tiny := tiny_autoencoder or os.environ.get("MARIGOLD_TINY_AUTOENCODER"):
            found = load_tiny_autoencoder(tiny, pipe.device, pipe.dtype)
            cells = torch.zeros(1, 4, TRIED_CELLS, TRIED_CELLS, device="meta")
            made = without_values(found[1]).decode(cells, return_dict=False)[0].shape[-1] // TRIED_CELLS
            if made == pipe.factor:
                pipe.tiny = found
            elif tiny_autoencoder:
                raise CheckpointError(
                    f"The tiny autoencoder {tiny} makes {made} pixels of a latent cell, along each side, and"
                    f" {pipe.checkpoint.name} has {pipe.factor}; give another, or none."
                )
        if compile or (by_default and pipe.device.type == "cuda"):
            pipe._compile()
        return pipe

    @torch.inference_mode()
    def _compile(self) -> None:
        """Compile the U-Net and the decoder with the sizes of pictures left open, and use them once.

        They are used for one picture and for two, which torch tells apart, so that minutes and failures are those of
        loading. Sizes that the U-Net does not halve evenly are compiled once more when the first of them comes.
        Raises: SettingsError where torch cannot, and on a CPU: nano took a minute there to save 5 ms a step.
        """
        if self.device.type != "cuda":
            raise SettingsError(f"compile pays on CUDA alone, and the device is {self.device.type}; leave it out.")
        networks: list[Any] = [self.unet, self.vae.decoder]
        for network in networks:
            network.compile(dynamic=True)
        try:
            for rows in (1, 2):
                latent = torch.zeros(rows, 4, *COMPILED_CELLS, device=self.device, dtype=self.dtype)
                noisy = latent.repeat(1, self.modality.pictures, 1, 1)
                self.predict_velocity(latent, noisy, torch.full((), 999, device=self.device))
                self.decode(latent)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # of any of the compilers below torch
            reason = str(error).strip().partition("\n")[0]
            raise SettingsError(f"torch cannot compile the networks here ({reason}); leave compile out.") from error
        self.compiled = True

    @torch.inference_mode()
    def _try_out(self) -> None:
        """Run every network once on a picture without values, at no cost: some configurations fail here alone."""
        unet, vae, prior, draft, error = (
            without_values(part) for part in (self.unet, self.vae, self.prior, self.draft, self.expected_error)
        )
        pipe = MarigoldPipeline(self.checkpoint, unet, vae, self.scheduler, self.prompt.float().to("meta"), prior)
        side = TRIED_CELLS * self.factor
        latent = pipe.encode(torch.zeros(1, 3, side, side, device="meta"))
        noisy = latent.repeat(1, self.modality.pictures, 1, 1)
        decoded = pipe.decode(pipe.predict_velocity(latent, noisy, torch.tensor(999, device="meta")))
        if decoded.shape != (1, 3 * self.modality.pictures, side, side):
            raise ValueError(f"the autoencoder makes {list(decoded.shape)} of a picture [1, 3, {side}, {side}]")
        if draft is not None and isinstance(self.modality, Depth):
            draft.averaged(pipe.features(latent), decoded[:, :1], self.modality)
        if error is not None:
            error.expected(pipe.features(latent), decoded[:, :1], None)

    @property
    def device(self) -> torch.device:
        """The device that holds the weights and runs the model."""
        return next(self.unet.parameters()).device  # diffusers' own property looks at every layer each time

    @property
    def dtype(self) -> torch.dtype:
        """The floating-point type of the weights and of the network's computation."""
        return next(self.unet.parameters()).dtype

    # ------------------------------------------------------------------------------- shared with training

    def encode(self, x: Tensor) -> Tensor:
        """Encode P pictures [B, 3 P, PPH, PPW] in [-1, 1] -> scaled latents [B, 4 P, h, w], the posteriors' modes."""
        return _by_picture(self._encode_picture, x, 3)

    def _encode_picture(self, x: Tensor) -> Tensor:
        encoded = self.vae.encode(x, return_dict=False)[0]
        latent = encoded if isinstance(encoded, Tensor) else encoded.mode()
        return latent * self.vae.config["scaling_factor"]

    def decode(self, z: Tensor) -> Tensor:
        """Decode scaled latents [B, 4 P, h, w] of P pictures -> pictures [B, 3 P, PPH, PPW], about [-1, 1]."""
        return _decode_by(self.vae, z)

    def features(self, image_latent: Tensor) -> Features:
        """Compute the image prior's features of photo latents.

        Args:
            image_latent: scaled latents of photos [B, 4, h, w].

        Returns:
            One map [B, C, h', w'] per stride, fine to coarse; an empty tuple for a checkpoint without a prior.
        """
        if self.prior is None:
            return ()
        picture = self.decode(image_latent).float().clamp(-1, 1)
        return tuple(one.to(image_latent.dtype) for one in self._seen_by_prior(picture))

    def _seen_by_prior(self, picture: Tensor) -> Features:
        """Run the image prior, in the networks' type, on pictures [B, 3, H, W] in [-1, 1]."""
        assert self.prior is not None  # whoever asks for features of a picture has one
        return self.prior(picture.to(self.device, memory_format=torch.channels_last))

    def _autocast(self) -> AbstractContextManager[Any]:
        """Let networks whose weights are float32, those beside U-Net and autoencoder, compute in the type of these."""
        lower = self.dtype != torch.float32 and self.device.type != "meta"  # which has no values to round
        return torch.autocast(self.device.type, self.dtype) if lower else nullcontext()

    def predict_velocity(
        self, image_latent: Tensor, noisy: Tensor, t: Tensor, features: Features | None = None
    ) -> Tensor:
        """Run the U-Net: photo latent [B, 4, h, w], noisy [B, 4 P, h, w], timestep [] or [B] -> v [B, 4 P, h, w].

        ``features`` are those of the photo latent where they are known already. Some families of checkpoints predict
        the clean latent in place of v, or are given the image latent alone (``checkpoints.families``).
        v = sqrt(alpha_bar) noise - sqrt(1 - alpha_bar) clean. Source: Salimans and Ho 2022, section 2.4.
        """
        family = self.checkpoint.family
        given = [image_latent] if family.noise == "none" else [image_latent, noisy]
        condition = torch.cat(given, dim=1)  # photo first [B, 4 or 4 + 4 P, h, w]
        prompt = self.prompt.expand(len(condition), -1, -1)
        if features is None:
            features = self.features(image_latent)
        guidance: dict[str, Any] = {"features": features} if features else {}
        if family.task is not None:
            guidance["class_labels"] = condition.new_tensor(family.task).expand(len(condition), -1)
        return self.unet(condition, t, encoder_hidden_states=prompt, return_dict=False, **guidance)[0]

    def denoise(
        self,
        image_latent: Tensor,
        noise: Tensor,
        steps: int,
        generators: list[torch.Generator] | None = None,
        first_step: PredictVelocity | None = None,
        features: Features | None = None,
    ) -> Iterator[Tensor]:
        """Denoise [B, 4 P, h, w] in ``steps`` steps and yield the target latents [B, 4 P, h, w] after each of them.

        Latents are in float32 between the steps, whatever the networks compute in: a scheduler adds up small changes.
        ``generators``, one a row, draw the noise that LCM adds between steps; ``first_step`` replaces the network in
        the first step; ``features`` are those of the photo latent if they are already computed.
        Source: Song et al. 2021, equation 12 with eta = 0; Luo et al. 2023, algorithm 2.
        """
        features = self.features(image_latent) if features is None else features
        scheduler: Any = self._scheduler(steps)
        random: dict[str, Any] = {} if generators is None else {"generator": generators}
        latent = noise.float()
        sent = self._send(scheduler.timesteps)  # numbers are read on the CPU, which does not wait for a GPU
        for number, (t, timestep) in enumerate(zip(sent, scheduler.timesteps.tolist(), strict=True), start=1):
            predict = first_step if first_step and number == 1 else self.predict_velocity
            velocity = predict(image_latent, latent.to(image_latent.dtype), t, features)
            previous, clean = scheduler.step(velocity.float(), timestep, latent, return_dict=False, **random)
            latent = clean if self.final_clean and number == steps else previous
            yield latent

    def _send(self, values: Tensor) -> Tensor:
        """Bring values from the CPU to the device; CUDA takes a copy of them and need not be waited for."""
        return values.to(self.device, non_blocking=self.device.type == "cuda")

    # ------------------------------------------------------------------------------- one photo

    def __call__(
        self, photo: PhotoSource, settings: Settings | None = None, carry: LatentCarry | None = None
    ) -> Prediction:
        """Predict from a photo; see ``stream`` to watch and stop.

        Args:
            photo: a path, the bytes of a file, a PIL image or [H, W, 3] uint8.
            settings: steps, members, resolution and seed; by default the checkpoint's own.
            carry: of the clip whose next frame the photo is.

        Returns:
            The fused prediction at the photo's size.

        Raises:
            ImageError: the photo cannot be used.
            SettingsError: a setting is out of range.
            CheckpointError: the network's output is not finite.
            MarigoldError: the photo is too large for the memory.
        """
        *_, result = self._run(photo, settings, None, every_member=False, carry=carry)
        assert isinstance(result, Prediction)
        return result

    def stream(
        self,
        photo: PhotoSource,
        settings: Settings | None = None,
        start: Prediction | None = None,
        hints: Hints | None = None,
        *,
        carry: LatentCarry | None = None,
    ) -> Iterator[Progress | Prediction]:
        """Predict step by step; closing the iterator stops the work before the next step.

        Args:
            photo: as ``__call__``.
            settings: as ``__call__``.
            start: an earlier prediction of the same photo, checkpoint, steps, resolution and seed, whose members are
                taken over; of a completion the relative one that it remembers.
            hints: known depths that guide the denoising where their method is "completion", as ``complete``. Others
                change nothing here: ``calibrate`` solves them on the result.
            carry: as ``__call__``.

        Yields:
            A ``Progress`` each step and a ``Prediction`` after each member; the last one is the result.

        Raises:
            ImageError: the photo cannot be used.
            SettingsError: a setting is out of range, or ``start`` cannot be continued.
            CheckpointError: the network's output is not finite.
            CalibrationError: the hints cannot guide.
            MarigoldError: the photo is too large for the memory.
        """
        if hints is not None and hints.guides:
            return self._complete(photo, settings, start, hints)
        return self._run(photo, settings, start, every_member=True, carry=carry)

    def complete(self, photo: PhotoSource, hints: Hints, settings: Settings | None = None) -> Completed:
        """Predict metres that follow known depths, which guide the denoising; see ``stream`` to watch and stop.

        Source: Viola et al. 2025, "Marigold-DC", section 3.2.

        Args:
            photo: as ``__call__``.
            hints: known depths, two or more that differ; they guide the denoising, whatever their method is.
            settings: as ``__call__``; by default 50 steps.

        Returns:
            Depth along the optical axis in metres, at the photo's size, and from 3 members on their spread.

        Raises:
            CalibrationError: the hints are not depths, are too few, or one is not usable.
            ImageError, SettingsError, CheckpointError, MarigoldError: as ``__call__``; a checkpoint that does not
                predict the velocity of relative depth in several steps, or that computes in float16, is refused too.
        """
        check_type("hints", hints, Hints)
        *_, result = self._complete(photo, settings, None, replace(hints, method="completion"))
        assert isinstance(result, Completed)
        return result

    def _complete(
        self, photo: PhotoSource, settings: Settings | None, relative: Prediction | None, hints: Hints
    ) -> Iterator[Progress | Prediction]:
        """Complete step by step; the last of the events is the result."""
        photo = load_photo(photo)
        settings = self.resolve(settings, hints)
        depth = self.modality
        assert isinstance(depth, Depth)  # others are refused by now
        size = photo.pixels.shape[:2]
        known = known_depths(hints, size, photo.fov_x_deg, photo.size)
        yield Progress(0, 1, "reading the photo")
        condition = self.encode_photo(photo, settings.processing_resolution)
        steps, count = settings.num_inference_steps, settings.ensemble_size
        members: list[Tensor] = []
        for k in range(count):
            guided = self._guided(condition, known, generator(settings.seed, k), steps, depth)
            for step in range(1, steps + 1):
                next(guided)
                yield Progress(k * steps + step, count * steps, f"member {k + 1} of {count}, step {step} of {steps}")
            members.append(_returned(guided))
            fused = self.fuse_members(photo, settings, members, condition.tiled, modality=Depth("metric"))
            yield completed(fused, hints, known, relative)

    def _check_completion(self, settings: Settings) -> None:
        """Refuse what completion cannot guide. Raises: CheckpointError, SettingsError."""
        record, depth = self.checkpoint, self.modality
        in_steps = not record.family.one_step and isinstance(self.scheduler, DDIMScheduler)
        if not (isinstance(depth, Depth) and (depth.kind, depth.space) == ("affine", "depth") and in_steps):
            raise CheckpointError(
                f"{record.name} cannot be guided by known depths: completion needs relative depth, denoised in steps."
            )
        if self.dtype == torch.float16:
            raise SettingsError("Completion needs gradients, which overflow in float16; load with bfloat16 or float32.")
        check_guided(settings)

    def _guided(
        self, condition: Condition, known: KnownDepths, stream: torch.Generator, steps: int, modality: Depth
    ) -> Generator[None, None, Tensor]:
        """Denoise one member guided by known depths, pausing after each step -> its map in metres [1, 1, PH, PW]."""
        # Copies, because the originals were made without a way back for gradients.
        photo_latent, features = condition.latent.clone(), tuple(one.clone() for one in condition.features)
        height, width = condition.size

        def velocity(latent: Tensor, t: Tensor) -> Tensor:
            return self.predict_velocity(photo_latent, latent.to(self.dtype), t, features).float()

        def read_depth(clean: Tensor) -> Tensor:
            return modality.read(self.decode(clean.to(self.dtype)).float())[..., :height, :width]

        start = self._start(stream, *photo_latent.shape[-2:]).to(self.device)
        at, metres = (torch.as_tensor(one, device=self.device) for one in (known.at, known.metres))
        with self._recomputing(), self._tiling(condition.tiled):
            return (yield from completion.guided(start, at, metres, self._scheduler(steps), velocity, read_depth))

    @contextmanager
    def _recomputing(self) -> Generator[None]:
        """Let large networks compute activations again on the way back, instead of keeping gigabytes of them."""
        networks: list[Any] = [self.unet, self.vae] if self.unet.num_parameters() > RECOMPUTED_FROM else []
        for network in networks:
            network.enable_gradient_checkpointing()
        try:
            yield
        finally:
            for network in networks:
                network.disable_gradient_checkpointing()

    def grid(
        self,
        photo: PhotoSource,
        *,
        steps: Sequence[int],
        sizes: Sequence[int],
        seeds: Sequence[int] = (0,),
        processing_resolution: int | None = None,
        views: Views | None = None,
    ) -> Iterator[Cell]:
        """Predict with every combination of settings; see ``stream_grid`` to watch and stop.

        Args:
            photo: as ``__call__``.
            steps: numbers of denoising steps.
            sizes: numbers of members, ascending.
            seeds: seeds of the noise.
            processing_resolution: longest edge the network sees, pixels; by default the checkpoint's own.
            views: what the members see; by default the photo alone.

        Yields:
            One ``Cell`` for every (seed, steps, size).

        Raises:
            ImageError: the photo cannot be used.
            SettingsError: a setting is out of range.
            CheckpointError: the network's output is not finite.
        """
        shared = Settings(processing_resolution=processing_resolution, views=views or default(Settings, "views"))
        events = self.stream_grid(photo, steps, sizes, seeds, shared)
        return (event for event in events if isinstance(event, Cell))

    def stream_grid(
        self,
        photo: PhotoSource,
        steps: Sequence[int],
        sizes: Sequence[int],
        seeds: Sequence[int],
        shared: Settings,
    ) -> Iterator[Progress | Cell]:
        """Yield a ``Progress`` each step and every ``Cell`` as it is there; closing stops before the next step.

        ``shared`` is what all cells have in common: their resolution and views.
        The photo is encoded once in each view, members 1..5 are the first of 1..10, and the rows of a seed share their
        first step. The time of a cell leaves out what the caller does with an event.
        """
        photo = load_photo(photo)
        resolution = self.resolve(shared).processing_resolution
        features = self._features_to_fuse(photo, resolution)
        conditions = None
        first_steps = FirstStepCache(self.predict_velocity)
        total, before = len(seeds) * sum(steps) * max(sizes), 0  # steps of single members
        for seed, n in product(seeds, steps):
            settings = self.resolve(shared.changed(num_inference_steps=n, ensemble_size=max(sizes), seed=seed))
            conditions = conditions or self._conditions(photo, settings)
            settings = self._with_batch(settings, conditions, first=0)
            members: list[Tensor] = []
            seconds, began = 0.0, perf_counter()
            for event in self._members(conditions, settings, first=0, first_steps=first_steps):
                if isinstance(event, Progress):
                    seconds += perf_counter() - began
                    yield Progress(before + event.done, total, event.stage)
                    began = perf_counter()
                    continue
                if isinstance(event, Preview):  # a cell is timed without
                    continue
                members.append(event)
                if len(members) in sizes:
                    seconds += perf_counter() - began + first_steps.take_saved_s()
                    yield Cell(self.fuse_members(photo, settings, members, conditions.tiled, features), seconds)
                    began = perf_counter()
            before += n * max(sizes)

    def member_noise(self, photo: PhotoSource, settings: Settings, k: int) -> Tensor:
        """Return the latents [1, 4 P, h, w] float32 on the CPU that member ``k`` (from 0) starts from."""
        resolution, pixels = self.resolve(settings).processing_resolution, load_photo(photo).pixels
        resolution = view_of(settings.views, k).resolution(resolution, pixels.shape[:2])
        x, _ = to_network(pixels, resolution, self.factor)
        return self._start(generator(settings.seed, k), x.shape[-2] // self.factor, x.shape[-1] // self.factor)

    def _start(self, stream: torch.Generator, h: int, w: int) -> Tensor:
        """Return the latents [1, 4 P, h, w] a member starts from: noise, or zeros for a deterministic checkpoint."""
        channels = 4 * self.modality.pictures
        return torch.zeros(1, channels, h, w) if self.checkpoint.family.deterministic else noise(stream, channels, h, w)

    def resolve(self, settings: Settings | None, hints: Hints | None = None) -> ResolvedSettings:
        """Fill in what the checkpoint decides, denoising steps and processing resolution; of a completion, 50 steps.

        Raises:
            SettingsError: steps or members mean nothing for the checkpoint, or not for a completion; or it has no tiny
                autoencoder.
            CheckpointError: it cannot be guided by known depths.
        """
        asked = settings or Settings()
        check_type("settings", asked, Settings)
        if hints is not None:
            check_type("hints", hints, Hints)
        check_decoder(asked.decoder, self.checkpoint.name, has_tiny=self.tiny is not None)
        if hints is not None and hints.guides:
            self._check_completion(asked)
            asked = asked.changed(num_inference_steps=asked.num_inference_steps or COMPLETION_STEPS)
        if asked.tiles_per_side > 1 and self.modality.kind == "class":
            raise SettingsError("tiles_per_side must be 1 for classes, which have no fine and coarse part.")
        return resolve(asked, self.checkpoint)

    # ------------------------------------------------------------------------------- one run, from checks to result

    def _run(
        self,
        photo: PhotoSource,
        settings: Settings | None,
        start: Prediction | None,
        every_member: bool,
        carry: LatentCarry | None = None,
    ) -> Iterator[Progress | Prediction]:
        # 1. Check everything before the first operation.
        photo = load_photo(photo)
        settings = self.resolve(settings)
        members = self._restore_members(photo, settings, start)
        total, tiled = settings.ensemble_size, start is not None and start.tiled
        features = self._features_to_fuse(photo, settings.processing_resolution)
        if len(members) >= total:
            yield self.fuse_members(photo, settings, members[:total], tiled, features)
            return
        # 2. Encode the photo once for all members that see it alike, when the first of them is begun.
        yield Progress(0, 1, "reading the photo")
        conditions = self._conditions(photo, settings)
        settings = self._with_batch(settings, conditions, first=len(members))
        # 3. Denoise and decode, member by member, fusing what is there.
        for event in self._members(conditions, settings, first=len(members), carry=carry):
            if isinstance(event, Progress):
                yield event
                continue
            if isinstance(event, Preview):
                if every_member:
                    shown = [*members, event.member]
                    yield self.fuse_members(photo, settings, shown, tiled or conditions.tiled, features, preview=True)
                continue
            members.append(event)  # [1, C, PH, PW]
            if every_member or len(members) == total:
                yield self.fuse_members(photo, settings, members, tiled or conditions.tiled, features)

    @torch.inference_mode()
    def photo_features(self, photo: Photo, resolution: int) -> Features:
        """Compute the image prior's features of a photo as it is, for draft and expected errors.

        Those that the U-Net is given are of the photo as the autoencoder reproduces it, and tell less. Without padding
        they cover what the map covers. A photo wider or higher than 4:3 is seen with as many pixels as one of 4:3: at
        the same longest edge a wide street would have far fewer rows than the pictures that the draft learned from.
        """
        height, width = photo.pixels.shape[:2]
        elongated = max(height, width) / min(height, width) / TRAINED_ASPECT
        x, _ = to_network(photo.pixels, round(resolution * max(1.0, elongated) ** 0.5), factor=1)
        return self._seen_by_prior(x)

    def _features_to_fuse(self, photo: Photo, resolution: int) -> Features:
        """Compute what ``fuse_members`` is to be given."""
        return self.photo_features(photo, resolution) if self.draft or self.expected_error else ()

    def _conditions(self, photo: Photo, settings: ResolvedSettings) -> Conditions:
        """Return the conditions of a photo and its tiles; each is computed once, when it is first asked for."""
        parts, resolution = [photo, *cut_out(photo, settings)], settings.processing_resolution

        def encode(view: View, part: int) -> Condition:
            return self.encode_photo(parts[part], resolution, view)

        height, width = photo.pixels.shape[:2]
        return Conditions(encode, len(parts), member_grid((height, width), settings))

    def _with_batch(self, settings: ResolvedSettings, conditions: Conditions, first: int) -> ResolvedSettings:
        """State how many members go on together where free memory decides that: sizes of batches round differently."""
        if settings.batch_size or self.device.type != "cuda":
            return settings
        latent = conditions(view_of(settings.views, first)).latent
        channels, missing = self.unet.config["block_out_channels"][0], settings.ensemble_size - first
        return settings.changed(batch_size=members_that_fit(self.device, latent, channels, missing))

    @torch.inference_mode()
    def encode_photo(self, photo: Photo, resolution: int, view: View = View()) -> Condition:  # noqa: B008
        """Encode a view of a photo and compute the image prior's features of it, in tiles when memory runs out."""
        height, width = photo.pixels.shape[:2]
        seen = view.resolution(resolution, (height, width))
        x, size = to_network(view.pixels(photo.pixels), seen, self.factor)  # [1, 3, PPH, PPW]
        grid = network_size(height, width, resolution)
        for tiled in (self.vae.use_tiling, True):
            try:
                with self._tiling(tiled):
                    latent = self.encode(x.to(self.device, self.dtype))
                    focal_px = focal_length_px(size[1], photo.fov_x_deg or assumed_fov_x_deg(*size))
                    return Condition(latent, self.features(latent), size, view, grid, tiled, focal_px)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            release(self.device)
        raise MarigoldError(TOO_LARGE)

    @contextmanager
    def _tiling(self, tiled: bool) -> Generator[None]:
        """Let the autoencoder work in tiles or not, and as before afterwards."""
        before, self.vae.use_tiling = self.vae.use_tiling, tiled
        try:
            yield
        finally:
            self.vae.use_tiling = before

    def _restore_members(self, photo: Photo, settings: ResolvedSettings, start: Prediction | None) -> list[Tensor]:
        """Take over the members [1, C, PH, PW] of an earlier prediction, as precise as it keeps them (float16).

        Raises: SettingsError when ``start`` is of another photo, checkpoint, steps, resolution or seed.
        """
        if start is None:
            return []
        # What may differ without changing a member:
        free = {"ensemble_size": 1, "batch_size": None, "follow_outlines": False}
        made = start.settings
        same = isinstance(made, ResolvedSettings) and made.changed(**free) == settings.changed(**free)
        if (
            not same
            or not np.array_equal(start.photo, photo.pixels)
            or start.checkpoint_sha256 != self.checkpoint.sha256
            or start.preview
        ):
            raise SettingsError(
                "Only a prediction of the same photo, checkpoint, steps, resolution and seed can be continued."
            )
        if start.members is None:
            raise SettingsError("This prediction kept no members, so it cannot be continued.")
        stack = torch.as_tensor(start.members.astype(np.float32)).to(self.device)
        stack = stack.unsqueeze(1) if stack.ndim == 3 else stack.permute(0, 3, 1, 2)
        return list(stack.unsqueeze(1).unbind())

    def _members(
        self,
        conditions: Conditions,
        settings: ResolvedSettings,
        first: int,
        first_steps: FirstStepCache | None = None,
        carry: LatentCarry | None = None,
    ) -> Iterator[Progress | Preview | Tensor]:
        """Yield a ``Progress`` each step and each finished member [1, C, PH, PW], from member ``first`` on.

        A ``Preview`` of each member comes before it where the settings ask for one.

        When memory runs out the batch is halved, then the autoencoder works in tiles, and the events say so.
        Raises: MarigoldError when one member in tiles is still too large; CheckpointError for numbers not finite.
        """
        steps, members = settings.num_inference_steps, settings.ensemble_size
        batch = settings.batch_size or 1  # on a CPU a larger batch saves no time and would delay the first result
        k = first
        while k < members:
            rows = range(k, min(k + batch, members))
            try:
                for event in self._batch(conditions, settings, rows, first, first_steps, carry):
                    k += isinstance(event, Tensor)
                    yield event
                continue
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            # Outside the except block, so that the traceback no longer holds the tensors.
            release(self.device)
            if batch > 1:
                batch = (batch + 1) // 2
                note = f"out of memory: going on with {batch} at a time"
            elif not conditions.tiled:
                conditions.tiled = True
                note = "out of memory: going on with the picture in tiles"
            else:
                raise MarigoldError(TOO_LARGE)
            each = steps * conditions.parts
            yield Progress((k - first) * each, (members - first) * each, note)

    def _batch(
        self,
        conditions: Conditions,
        settings: ResolvedSettings,
        rows: range,
        first: int,
        first_steps: FirstStepCache | None,
        carry: LatentCarry | None,
    ) -> Iterator[Progress | Preview | Tensor]:
        """Denoise and decode the members ``rows`` of every part of the photo, then yield them in their order."""
        decoder, mosaics = settings.decoder, dict[int, Mosaic]()
        for part in range(conditions.parts):
            seen = {k: conditions(view_of(settings.views, k), part) for k in rows}
            before = (rows.start - first) * conditions.parts + len(rows) * part  # maps that are done
            of_whole = (None, None) if part else (first_steps, carry)
            clean = yield from self._denoise_part(conditions, settings, part, seen, before, first, *of_whole)
            for k in rows:
                if decoder == "preview" and part == 0:
                    with torch.inference_mode():
                        preview = self._decode_member(clean[k], seen[k], tiny=True)
                    yield Preview(self.modality.resize(preview, conditions.grid) if conditions.parts > 1 else preview)
                with torch.inference_mode(), self._tiling(conditions.tiled):
                    member = self._decode_member(clean[k], seen[k], tiny=decoder == "tiny")
                    if part == 0 and conditions.parts > 1:
                        mosaics[k] = Mosaic(member, conditions.grid, settings.tiles_per_side, self.modality)
                    elif part:
                        mosaics[k].add(part - 1, member)
                if conditions.parts == 1:
                    yield member
        for mosaic in mosaics.values():
            with torch.inference_mode():
                member = mosaic.member()
            yield member

    def _denoise_part(
        self,
        conditions: Conditions,
        settings: ResolvedSettings,
        part: int,
        seen: dict[int, Condition],
        before: int,
        first: int,
        first_steps: FirstStepCache | None,
        carry: LatentCarry | None,
    ) -> Generator[Progress, None, dict[int, Tensor]]:
        """Denoise members of a part of the photo, those of one size together -> clean latents [1, 4 P, h, w]."""
        steps, members = settings.num_inference_steps, settings.ensemble_size
        groups: dict[torch.Size, list[int]] = {}
        for k in seen:
            groups.setdefault(seen[k].latent.shape, []).append(k)
        clean: dict[int, Tensor] = {}
        done, total = before * steps, (members - first) * conditions.parts * steps
        where = f"tile {part} of {conditions.parts - 1}, " if part else ""
        for shape, group in groups.items():
            streams = [generator(settings.seed, k) for k in group]
            starts = [self._start(stream, *shape[-2:]) for stream in streams]
            if carry and not self.checkpoint.family.deterministic:
                starts = [carry.start(k, start) for k, start in zip(group, starts, strict=True)]
            latent = self._send(torch.cat(starts))
            first_step = partial(first_steps.predict, settings.seed, tuple(group)) if first_steps else None
            photo_latent, features = stack([seen[k] for k in group])
            denoising = self.denoise(photo_latent, latent, steps, streams, first_step, features)
            who = "member" + "s" * (len(group) > 1) + " " + ", ".join(str(k + 1) for k in group)
            for step in range(1, steps + 1):
                with torch.inference_mode():  # entered anew each step: the mode must not leak out of a paused generator
                    latent = next(denoising)  # [B, 4 P, h, w]
                done += len(group)
                yield Progress(done, total, f"{who} of {members}, {where}step {step} of {steps}")
            clean.update(zip(group, latent[:, None].unbind(), strict=True))
        if carry:
            for k in seen:
                carry.keep(k, clean[k])
        return clean

    def _decode_member(self, clean: Tensor, condition: Condition, tiny: bool = False) -> Tensor:
        """Decode the latents [1, 4 P, h, w] of a member and bring it to the photo's grid -> [1, C, PH, PW].

        Where a number of its pictures is not finite, none of the member's is.
        """
        height, width = condition.size
        latents = clean.to(self.dtype)
        pictures = (_decode_by(self.tiny[1], latents) if tiny and self.tiny else self.decode(latents)).float()
        member = self.modality.from_vae(pictures)[..., :height, :width] + 0 * pictures.mean()
        if isinstance(self.modality, Depth) and self.modality.focal_px:
            member = member * (condition.focal_px / self.modality.focal_px)
        if condition.view.mirrored:
            member = self.modality.mirror(member)
        return member if condition.size == condition.photo_size else self.modality.resize(member, condition.photo_size)

    @torch.inference_mode()
    def fuse_members(
        self,
        photo: Photo,
        settings: ResolvedSettings,
        members: list[Tensor],
        tiled: bool = False,
        features: Features = (),
        modality: Modality | None = None,
        preview: bool = False,
    ) -> Prediction:
        """Fuse members [1, C, PH, PW] at processing resolution and bring the result to the photo's size.

        ``features`` are the image prior's of the photo, from which depth is drafted and errors are expected;
        ``modality`` is what the members are, by default what the checkpoint predicts.

        Raises: CheckpointError for numbers that are not finite.
        """
        modality = modality or self.modality
        stack = torch.cat(members)  # [E, C, PH, PW]
        if not torch.isfinite(stack).all():  # only here, as the answer waits for a GPU to end what it was given
            raise CheckpointError(
                f"The checkpoint {self.checkpoint.name} gives numbers that are not finite with"
                f" {str(self.dtype).removeprefix('torch.')}; try float32 or another checkpoint."
            )
        values, spread = self.fuse(stack, features, modality)
        uncertainty, measure = (spread if len(members) >= SPREAD_FROM else None), "spread"
        if self.expected_error is not None and features and modality.kind == "affine":
            with self._autocast():
                uncertainty = self.expected_error.expected(features, values.clamp(0, 1), uncertainty)
            measure = "expected error"
        if not all(one is None or torch.isfinite(one).all() for one in (values, uncertainty)):
            raise CheckpointError(
                f"A network of {self.checkpoint.name} beside the U-Net, {DRAFT} or {ERROR}, gives numbers that are not"
                " finite; train it anew, or remove its folder."
            )
        size = photo.pixels.shape[:2]
        values = modality.resize(values, size)
        if modality.kind == "affine":
            values = values.clamp(0, 1)
        values = _array(values)
        if settings.follow_outlines and modality.name == "depth":
            values = follow_outlines(values, photo.pixels, max(stack.shape[-2:]), self.displacement)
        return Prediction(
            modality=modality.name,
            kind=modality.kind,
            space=self.checkpoint.space,
            values=values,
            uncertainty=None if uncertainty is None else _array(Depth().resize(uncertainty, size)),
            uncertainty_measure=measure,
            members=np.stack([_array(member) for member in members]).astype(np.float16),
            photo=photo.pixels,
            fov_x_deg=photo.fov_x_deg,
            settings=settings.changed(ensemble_size=len(members)),
            checkpoint=self.checkpoint.name,
            checkpoint_sha256=self.checkpoint.sha256,
            device=self.device.type,
            dtype=str(self.dtype).removeprefix("torch."),
            torch_threads=torch.get_num_threads(),
            machine=describe_machine(self.device) + ", compiled" * self.compiled,
            tiled=tiled,
            note=self._note(photo),
            given_size=photo.given_size,
            tiny_decoder=self.tiny[0].label if self.tiny and (preview or settings.decoder == "tiny") else None,
            preview=preview,
            layers=self.checkpoint.layers,
        )

    def fuse(self, stack: Tensor, features: Features, modality: Modality) -> tuple[Tensor, Tensor]:
        """Fuse members [E, C, H, W], average depth with the draft's -> (values [1, C, H, W], the members' spread)."""
        values, spread = modality.fuse(stack)
        if self.draft is None or not features or not isinstance(modality, Depth) or modality.kind != "affine":
            return values, spread
        values, scale = self.draft.averaged(features, values, modality)
        return values, spread * scale

    def _note(self, photo: Photo) -> str | None:
        """What a person should know about a photo: how it was decoded, and a field of view that metres assume."""
        if self.checkpoint.focal_px is None or photo.fov_x_deg:
            return photo.note
        assumed = (
            "The photo does not tell its focal length: its metres assume a field of view of "
            f"{DEFAULT_FOV_DEG:g} degrees along the longer edge."
        )
        return photo.note if assumed in (photo.note or "") else " ".join(filter(None, (photo.note, assumed)))

    def _scheduler(self, steps: int) -> DDIMScheduler | LCMScheduler:
        """Return a scheduler of its own for this run (it holds state), with the timesteps set, on the CPU."""
        scheduler = copy.deepcopy(self.scheduler)
        respace = self.respace and not self.checkpoint.family.one_step and isinstance(scheduler, DDIMScheduler)
        if respace and scheduler.config["timestep_spacing"] == "leading":
            config: dict[str, Any] = {**scheduler.config, "timestep_spacing": "trailing"}
            scheduler = DDIMScheduler(**config)
        scheduler.set_timesteps(steps)
        return scheduler


def _decode_by(vae: Any, z: Tensor) -> Tensor:
    """Decode as ``MarigoldPipeline.decode``, by this autoencoder."""
    scale = vae.config["scaling_factor"]
    return _by_picture(lambda one: vae.decode(one / scale, return_dict=False)[0], z, 4)


def _by_picture(network: Callable[[Tensor], Tensor], pictures: Tensor, channels: int) -> Tensor:
    """Apply a network to [B, ``channels``, H, W], one picture of [B, channels P, H, W] at a time, to spare memory."""
    if pictures.shape[1] == channels:
        return network(pictures)
    return torch.cat([network(one) for one in torch.split(pictures, channels, dim=1)], dim=1)


def _returned(finished: Generator[None, None, Tensor]) -> Tensor:
    """Take what a generator returns that has nothing more to yield."""
    try:
        next(finished)
    except StopIteration as end:
        return end.value
    raise AssertionError("it was not finished")


def _array(values: Tensor) -> np.ndarray:
    """[1, C, H, W] tensor -> [H, W] for one channel, else [H, W, C], float32."""
    array = values[0].permute(1, 2, 0).float().cpu().numpy()
    return np.ascontiguousarray(array[..., 0] if array.shape[-1] == 1 else array)
