"""The pipeline by itself: streams, seeds, batches, memory, continuation and grids."""

from time import sleep
from typing import Any

import numpy as np
import pytest
import torch

from marigold_core import CheckpointError, MarigoldError, Prediction, Progress, Settings, SettingsError, load
from marigold_core.images.intrinsics import ClassColour, Layer
from marigold_core.images.photo import load_photo
from marigold_core.pipeline import pipeline
from marigold_core.pipeline.modalities import Segmentation
from marigold_core.pipeline.pipeline import MarigoldPipeline
from marigold_core.pipeline.sampling import generator
from marigold_core.pipeline.views import view_of

pytestmark = pytest.mark.numeric

CLASSES = Layer(
    "classes", 0, (0, 1, 2), "srgb", classes=(ClassColour("sky", (0, 0, 255)), ClassColour("wall", (99, 9, 9)))
)
QUICK: dict[str, Any] = {"num_inference_steps": 2, "processing_resolution": 48}


def members(pipe: MarigoldPipeline, picture: np.ndarray, **settings: Any) -> np.ndarray:
    """The members [E, h, w] of a quick run, float32; they are kept in half precision."""
    found = pipe(picture, Settings(**{**QUICK, **settings})).members
    assert found is not None
    return found.astype(np.float32)


def test_a_prediction_has_the_promised_shapes_and_ranges(pipe, picture):
    prediction = pipe(picture, Settings(**QUICK, ensemble_size=3))
    assert prediction.values.shape == prediction.uncertainty.shape == (50, 70)
    assert prediction.values.dtype == prediction.uncertainty.dtype == np.float32
    assert 0 <= prediction.values.min() < prediction.values.max() <= 1
    assert prediction.uncertainty.min() >= 0 and prediction.uncertainty.max() > 0
    assert prediction.members.shape == (3, 34, 48) and prediction.members.dtype == np.float16
    assert (prediction.modality, prediction.kind, prediction.space) == ("depth", "affine", "depth")
    assert np.array_equal(prediction.photo, picture)


def test_normals_are_unit_vectors(tiny_normals, picture):
    prediction = load(tiny_normals, device="cpu")(picture, Settings(**QUICK, ensemble_size=3))
    assert prediction.values.shape == (50, 70, 3) and prediction.kind == "unit-vector"
    np.testing.assert_allclose(np.linalg.norm(prediction.values, axis=-1), 1, atol=1e-5)
    assert prediction.members is not None and prediction.members.shape == (3, 34, 48, 3)


def test_defaults_come_from_the_checkpoint_and_are_reported(pipe, picture):
    prediction = pipe(picture)
    assert prediction.settings == Settings(
        num_inference_steps=pipe.checkpoint.default_steps, processing_resolution=pipe.checkpoint.default_resolution
    )
    assert prediction.uncertainty is None


def test_stream_reports_each_step_and_a_prediction_after_each_member(pipe, picture):
    events = list(pipe.stream(picture, Settings(**QUICK, ensemble_size=3, batch_size=1)))
    predictions = [event for event in events if isinstance(event, Prediction)]
    steps = [event for event in events if isinstance(event, Progress) and "step" in event.stage]
    assert [p.fused for p in predictions] == [1, 2, 3]
    assert [(p.done, p.total) for p in steps] == [(i, 6) for i in range(1, 7)]
    assert predictions[1].uncertainty is None and predictions[2].uncertainty is not None
    assert np.array_equal(predictions[-1].values, pipe(picture, Settings(**QUICK, ensemble_size=3)).values)


def test_closing_a_stream_stops_before_the_next_step(pipe, picture, calls_of):
    calls = calls_of(pipe.unet, "forward")
    stream = pipe.stream(picture, Settings(num_inference_steps=10, processing_resolution=48))
    for event in stream:
        if isinstance(event, Progress) and "step 3 " in event.stage:
            stream.close()
    assert len(calls) == 3
    assert not torch.is_inference_mode_enabled()


def test_members_depend_on_seed_and_index_alone(pipe, picture):
    one = pipe(picture, Settings(**QUICK, ensemble_size=5, batch_size=1)).members.astype(np.float32)
    for size in (2, 5):
        other = pipe(picture, Settings(**QUICK, ensemble_size=5, batch_size=size)).members.astype(np.float32)
        np.testing.assert_allclose(one, other, atol=6e-4)
    prefix = pipe(picture, Settings(**QUICK, ensemble_size=2, batch_size=1)).members
    assert np.array_equal(prefix.astype(np.float32), one[:2])
    assert np.abs(pipe(picture, Settings(**QUICK, seed=1)).members[0] - one[0]).mean() > 1e-3
    assert torch.equal(torch.randn(4, generator=generator(1, 2)), torch.randn(4, generator=generator(1, 2)))
    assert not torch.equal(torch.randn(4, generator=generator(1, 2)), torch.randn(4, generator=generator(2, 1)))


def test_a_batch_that_free_memory_decides_is_recorded(pipe, picture, monkeypatch) -> None:
    settings = pipe.resolve(Settings(**QUICK, ensemble_size=5))
    conditions = pipe._conditions(load_photo(picture), settings)
    assert pipe._with_batch(settings, conditions, first=0) == settings
    conditions(view_of("photo", 0))
    monkeypatch.setattr(MarigoldPipeline, "device", torch.device("cuda"))
    monkeypatch.setattr(pipeline, "members_that_fit", lambda device, latent, channels, at_most: min(at_most, 4))
    found = [pipe._with_batch(settings, conditions, first).batch_size for first in (0, 3)]
    assert found == [4, 2] and pipe._with_batch(settings.changed(batch_size=1), conditions, first=0).batch_size == 1


@pytest.mark.parametrize("checkpoint", ["tiny_depth_lcm", "tiny_guided"])
def test_members_of_other_kinds_do_not_depend_on_the_batch(checkpoint, picture, request):
    pipe = load(request.getfixturevalue(checkpoint), device="cpu")
    one, three = (members(pipe, picture, ensemble_size=3, batch_size=size) for size in (1, 3))
    np.testing.assert_allclose(one, three, atol=6e-4)


def test_the_photo_is_encoded_once_for_all_members(pipe, picture, calls_of):
    calls = calls_of(pipe.vae, "encode")
    pipe(picture, Settings(**QUICK, ensemble_size=3, batch_size=1))
    assert len(calls) == 1


def test_the_image_prior_looks_once_at_a_photo(tiny_guided, picture, calls_of):
    pipe: Any = load(tiny_guided, device="cpu")
    looks = calls_of(pipe.prior, "forward")
    part = pipe(picture, Settings(**QUICK, ensemble_size=2, batch_size=1))
    assert len(looks) == 1
    *_, whole = pipe.stream(picture, Settings(**QUICK, ensemble_size=3, batch_size=1), start=part)
    assert len(looks) == 2
    list(pipe.stream(picture, Settings(**QUICK, ensemble_size=2), start=whole))  # nothing is left to do
    assert len(looks) == 2
    list(pipe.grid(picture, steps=[1, 2], sizes=[1, 2], seeds=[0, 7], processing_resolution=48))
    assert len(looks) == 3
    assert np.array_equal(whole.members, pipe(picture, Settings(**QUICK, ensemble_size=3, batch_size=1)).members)


def test_an_image_prior_without_enough_memory_is_shown_tiles(tiny_guided, picture, monkeypatch):
    pipe: Any = load(tiny_guided, device="cpu")
    forward, tiling = pipe.prior.forward, []

    def starved(seen):
        tiling.append(pipe.vae.use_tiling)
        if len(tiling) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(seen)

    monkeypatch.setattr(pipe.prior, "forward", starved)
    assert pipe(picture, Settings(**QUICK)).values.shape == (50, 70)
    assert tiling == [False, True]


MESSAGES = [
    "MPS backend out of memory (MPS allocated: 17.2 GB, other allocations: 1.0 GB, max allowed: 18.1 GB).",
    "Invalid buffer size: 12.00 GB",
    "[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate",
    "[enforce fail at alloc_cpu.cpp:80] data. DefaultCPUAllocator: not enough memory: you tried to allocate 1 bytes",
    "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED",
    "Failed to allocate private MTLBuffer for size 1",
]


@pytest.mark.parametrize("error", [*map(RuntimeError, MESSAGES), MemoryError()])
def test_tiles_last_for_one_photo_and_are_recorded(pipe, picture, monkeypatch, error):
    decode, failed = pipe.decode, []

    def starved(latent):
        if not pipe.vae.use_tiling and not failed:
            failed.append(1)
            raise error
        return decode(latent)

    monkeypatch.setattr(pipe, "decode", starved)
    tight = pipe(picture, Settings(**QUICK, ensemble_size=2, batch_size=1))
    assert tight.tiled and not pipe.vae.use_tiling
    *_, continued = pipe.stream(picture, Settings(**QUICK, ensemble_size=3), start=tight)
    assert continued.tiled
    assert not pipe(picture, Settings(**QUICK)).tiled
    failed.clear()
    cells = list(pipe.grid(picture, steps=[1, 2], sizes=[1], processing_resolution=48))
    assert [cell.prediction.tiled for cell in cells] == [True, True] and len(failed) == 1
    assert not pipe.vae.use_tiling


def test_other_errors_are_no_lack_of_memory(pipe, picture, monkeypatch):
    def broken(latent):
        raise RuntimeError("shapes cannot be multiplied")

    monkeypatch.setattr(pipe, "decode", broken)
    with pytest.raises(RuntimeError, match="multiplied"):
        pipe(picture, Settings(**QUICK))


def test_a_prediction_can_be_continued(pipe, picture, calls_of):
    whole = pipe(picture, Settings(**QUICK, ensemble_size=5, seed=4))
    part = pipe(picture, Settings(**QUICK, ensemble_size=3, seed=4))
    calls = calls_of(pipe.unet, "forward")
    *_, last = pipe.stream(picture, Settings(**QUICK, ensemble_size=5, seed=4), start=part)
    assert len(calls) == 4  # two more members of two steps
    assert np.array_equal(last.members, whole.members)
    np.testing.assert_allclose(last.values, whole.values, atol=5e-3)  # members are kept as float16


def test_another_job_cannot_be_continued(pipe, picture, photo):
    part = pipe(picture, Settings(**QUICK, ensemble_size=1))
    for other in (Settings(**QUICK, seed=1), Settings(num_inference_steps=3, processing_resolution=48)):
        with pytest.raises(SettingsError, match="same photo"):
            list(pipe.stream(picture, other, start=part))
    with pytest.raises(SettingsError, match="same photo"):
        list(pipe.stream(photo(50, 70, 1), Settings(**QUICK), start=part))


def test_grid_shares_the_encoding_and_the_members(pipe, picture, calls_of):
    encodes, steps = calls_of(pipe.vae, "encode"), calls_of(pipe.unet, "forward")
    cells = list(pipe.grid(picture, steps=[1, 2], sizes=[3, 1], seeds=[0, 7], processing_resolution=48))
    assert len(encodes) == 1 and len(steps) == 2 * 3 * (1 + 1)  # the first of two steps is that of one step
    told = [(c.settings.seed, c.settings.num_inference_steps, c.settings.ensemble_size) for c in cells]
    assert told == [(s, n, e) for s in (0, 7) for n in (1, 2) for e in (1, 3)]
    alone = pipe(picture, Settings(num_inference_steps=2, ensemble_size=3, seed=7, processing_resolution=48))
    assert np.array_equal(cells[-1].prediction.values, alone.values)
    assert cells[1].seconds > cells[0].seconds > 0


@pytest.mark.parametrize("checkpoint", ["tiny_depth", "tiny_depth_leading", "tiny_depth_lcm", "tiny_guided"])
def test_sharing_changes_no_bit(checkpoint, picture, request):
    pipe = load(request.getfixturevalue(checkpoint), device="cpu")
    for cell in pipe.grid(picture, steps=[3, 1, 2], sizes=[2, 1], seeds=[5, 6], processing_resolution=48):
        expected = pipe(picture, cell.settings).members
        assert cell.prediction.members is not None and expected is not None
        assert np.array_equal(cell.prediction.members, expected)


def test_the_time_of_a_cell_counts_the_step_it_was_spared(pipe, picture, monkeypatch):
    waits = pipe.predict_velocity
    monkeypatch.setattr(pipe, "predict_velocity", lambda *a: (sleep(0.05), waits(*a))[1])
    first, second = pipe.grid(picture, steps=[2, 2], sizes=[1], processing_resolution=48)
    assert first.seconds >= 0.1 and second.seconds >= 0.1


def test_leading_checkpoints_run_with_trailing_spacing(tiny_depth_leading):
    pipe = load(tiny_depth_leading, device="cpu")
    assert pipe._scheduler(4).timesteps.tolist() == [999, 749, 499, 249]
    pipe.respace = False
    assert pipe._scheduler(4).timesteps.tolist() == [751, 501, 251, 1]


def test_the_last_step_returns_the_clean_latent(pipe):
    latent, noise = torch.randn(2, 1, 4, 6, 6, generator=torch.Generator().manual_seed(0)).unbind()
    with torch.inference_mode():
        velocity = pipe.predict_velocity(latent, noise, torch.tensor(999))
        (clean,) = pipe.denoise(latent, noise, 1)
    torch.testing.assert_close(clean, -velocity)  # zero terminal SNR: alpha_bar is 0 at t = 999


@pytest.mark.parametrize("failures", range(1, 5))
def test_running_out_of_memory_steps_down_and_says_so(tiny_depth, picture, monkeypatch, failures):
    pipe = load(tiny_depth, device="cpu")
    calls = []
    forward = pipe.unet.forward

    def starved(*args, **kwargs):
        calls.append(len(args[0]))
        if len(calls) <= failures:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(*args, **kwargs)

    expected = members(pipe, picture, ensemble_size=4)
    monkeypatch.setattr(pipe.unet, "forward", starved)
    settings = Settings(**QUICK, ensemble_size=4, batch_size=4)
    if failures == 4:  # 4, 2, 1, then in tiles: nothing smaller is left
        with pytest.raises(MarigoldError, match="lower processing resolution"):
            list(pipe.stream(picture, settings))
    else:
        events = list(pipe.stream(picture, settings))
        told = [event.stage for event in events if isinstance(event, Progress) and "memory" in event.stage]
        assert len(told) == failures
        result: Any = events[-1]
        np.testing.assert_allclose(result.members, expected, atol=2e-3 if failures < 3 else 0.2)
    assert calls[:failures] == [4, 2, 1, 1][:failures]
    monkeypatch.undo()
    assert pipe(picture, Settings(**QUICK)).values.shape == (50, 70)


def test_other_errors_pass_through(pipe, picture, monkeypatch):
    monkeypatch.setattr(pipe.unet, "forward", lambda *a, **k: (_ for _ in ()).throw(RuntimeError("a bug")))
    with pytest.raises(RuntimeError, match="a bug"):
        pipe(picture, Settings(**QUICK))


@pytest.mark.parametrize("modality", [None, Segmentation((CLASSES,))])
def test_weights_that_give_nan_are_refused(tiny_depth, picture, modality):
    pipe: Any = load(tiny_depth, device="cpu")
    pipe.modality = modality or pipe.modality
    with torch.no_grad():
        pipe.unet.conv_out.bias[0] = float("nan")
    with pytest.raises(CheckpointError, match="not finite"):
        pipe(picture, Settings(**QUICK))


@pytest.mark.parametrize(
    ("name", "value"),
    [("checkpoint", []), ("device", None), ("dtype", []), ("refetch", "no"), ("tiny_autoencoder", 3), ("compile", 1)],
)
def test_arguments_of_another_type_are_refused_before_loading(name: str, value: Any) -> None:
    with pytest.raises(SettingsError, match=f"^{name} must be "):
        load(**{name: value})


def test_unknown_devices_and_dtypes_are_refused(tiny_depth):
    with pytest.raises(SettingsError, match="tpu"):
        load(tiny_depth, device="tpu")
    with pytest.raises(SettingsError, match="int8"):
        load(tiny_depth, dtype="int8")


def test_bfloat16_runs_close_to_float32(tiny_depth, pipe, picture):
    half = load(tiny_depth, device="cpu", dtype="bfloat16")
    assert half.dtype == torch.bfloat16 and half.prompt.dtype == torch.bfloat16
    np.testing.assert_allclose(
        half(picture, Settings(**QUICK)).values, pipe(picture, Settings(**QUICK)).values, atol=0.15
    )
