"""What can be predicted: each target is read, painted, trained, saved, loaded, scored, and kept apart from others."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from marigold_core import Settings, load, save
from marigold_core.checkpoints.families import E2E_FT
from marigold_core.checkpoints.registry import find
from marigold_core.errors import CheckpointError, ExportError, MarigoldError
from marigold_core.geometry.camera import focal_length_px
from marigold_core.images.boxes import Box, find_boxes
from marigold_core.images.colormaps import to_rgb
from marigold_core.images.differences import resize_map
from marigold_core.images.intrinsics import BOXES, Layer
from marigold_core.images.photo import load_photo
from marigold_core.pipeline.modalities import Depth, Intrinsics, Modality, Normals, Segmentation
from marigold_core.pipeline.pipeline import MarigoldPipeline
from marigold_core.prediction import Space
from marigold_core.settings import ColourSettings, MeshSettings
from marigold_core.ui.screens.layers import draw_legends, main_layer, offered, paint
from tests.helpers.damage import edit
from tests.helpers.training_runs import lines, step_lines
from training import ablate, evaluate
from training.data.boxes import true_boxes
from training.data.framing import frame
from training.data.latent_cache import read_index
from training.data.sampling import Latents
from training.data.sets.rendered import RenderedSample, RenderedScenes, View, write_shard
from training.data.sets.sample import Sample
from training.data.targets import (
    CLASSES,
    FOCAL_PX,
    METRIC_RANGE_M,
    NAMES,
    OBJECT_CLASSES,
    OBJECT_PALETTE,
    TargetName,
    focal_px,
    name_of,
    planes,
    target_of,
)
from training.engine.checkpoints import choose, latest
from training.engine.command import run
from training.engine.losses import end_to_end_loss, task_loss
from training.latents import Encoding, encode_set
from training.recipe import RECIPES, Framing
from training.scenes.types import LABELS, THINGS
from training.scoring.protocols import Protocol
from training.scoring.scores import ramp
from training.scoring.targets import DEPTH, blind_protocol, by_field_of_view, mean_ap, metric_of
from training.start import prepare_start
from training.train import Task, train

pytestmark = pytest.mark.usefixtures("one_thread")
SIZE = (48, 64)
FOVS = (50.0, 60.0, 70.0, 80.0)
QUICK = RECIPES["smoke"].changed(steps=2, validate_steps=2, figure_steps=2)


@dataclass(frozen=True)
class Row:
    """What is expected of a target."""

    modality: Modality
    decides: str  # the figure that it is scored by
    channels: int


def classes_in(picture: int) -> Layer:
    return Layer("classes", picture, (0, 1, 2), "srgb", classes=CLASSES)


ALBEDO = Layer("albedo", 0, (0, 1, 2), "srgb")
OBJECTS = tuple(Layer(name, picture, (0, 1, 2), "srgb", grey=True) for picture, name in enumerate(BOXES))
KINDS = Layer("classes", 3, (0, 1, 2), "srgb", classes=OBJECT_CLASSES)
TARGETS: dict[TargetName, Row] = {
    "depth": Row(Depth(), "abs_rel", 1),
    "disparity": Row(Depth(space="disparity"), "abs_rel", 1),
    "log": Row(Depth(space="log"), "abs_rel", 1),
    "metric": Row(Depth("metric", range_m=METRIC_RANGE_M, focal_px=FOCAL_PX), "abs_rel", 1),
    "normals": Row(Normals(), "mean_angle", 3),
    "segmentation": Row(Segmentation((classes_in(0),)), "miou", 1),
    "objects": Row(Intrinsics((*OBJECTS, KINDS)), "ap50", 4),
    "albedo": Row(Intrinsics((ALBEDO,)), "mae", 3),
    "intrinsics": Row(Intrinsics((ALBEDO, Layer("shading", 1, (0, 1, 2), "linear"))), "mae", 6),
}
DEPTHS = ("depth", "disparity", "log", "metric")
each_target = pytest.mark.parametrize("target", TARGETS)


def a_view(seed: int) -> View:
    """A slope with a ball before it, sky above."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    ball = (rows - rng.integers(20, 40)) ** 2 + (columns - rng.integers(10, 50)) ** 2 < 80
    sky = (rows < 6) & ~ball
    depth = np.where(sky, np.inf, np.where(ball, 2.0, 9.0 - rows / 8)).astype(np.float32)
    labels = np.where(sky, 0, np.where(ball, 5, 1)).astype(np.uint8)
    colours = np.array([(120, 160, 220), (90, 120, 90), (0, 0, 0), (0, 0, 0), (0, 0, 0), (220, 60, 40)], np.uint8)
    rgb = colours[labels]
    normals = np.where(ball[..., None], (0.6, 0.0, 0.8), (0.0, 0.8, 0.6)).astype(np.float32)
    normals[sky] = 0
    albedo = np.where(sky[..., None], 0, np.maximum(rgb, 1)).astype(np.uint8)
    return View(rgb, depth, normals, labels, albedo, np.where(ball, 3, 0).astype(np.uint8))


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    meta = {"kinds": ["ball"] * 4, "fov_x_deg": list(FOVS)}
    write_shard(folder / "shard_00000", [a_view(seed) for seed in range(4)], meta)
    return folder


@pytest.fixture(scope="module")
def sample(scenes: Path) -> RenderedSample:
    return RenderedScenes(scenes)[0]


@pytest.fixture(scope="module")
def begun(tiny_depth: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[TargetName], MarigoldPipeline]:
    """``begun(target)`` -> the start of that target, made and loaded once."""
    folder = tmp_path_factory.mktemp("starts")
    return cache(lambda target: load(prepare_start(tiny_depth, folder / target, target=target)))


def painted(modality: Modality, sample: Sample) -> tuple[torch.Tensor, torch.Tensor]:
    """The truth of a sample as a network would paint it without error [1, 3 P, H, W], and what of it is known."""
    target = target_of(modality)
    values = target.finish(planes(target.values(sample, focal_px(sample, 1.0)))[None])
    known, _ = target.masks(values, RenderedScenes.__new__(RenderedScenes), Framing())
    return modality.to_vae(values, known), known


def perfect(modality: Modality, sample: Sample) -> np.ndarray:
    """What is read of that: the truth of a sample as a prediction."""
    back = modality.from_vae(painted(modality, sample)[0])[0]
    return back.permute(1, 2, 0).numpy() if len(back) > 1 else back[0].numpy()


def test_every_target_has_a_row_and_every_thing_a_colour() -> None:
    assert set(TARGETS) == set(NAMES) and tuple(OBJECT_PALETTE)[1:] == THINGS


@each_target
def test_a_target_is_trained_saved_loaded_and_scored(
    target: TargetName, tiny_depth: Path, scenes: Path, tmp_path: Path
) -> None:
    row, data = TARGETS[target], f"rendered:{scenes}"
    task = Task(str(tiny_depth), tmp_path / "run", target=target, data=(data,), validation=(data,), device="cpu")
    train(task, QUICK)
    assert load(choose(tmp_path / "run").source).modality == row.modality
    assert name_of(row.modality) == target
    said = {"abs_rel": "AbsRel", "mean_angle": "mean angle", "miou": "mIoU", "ap50": "AP at IoU .5", "mae": "MAE"}
    assert (tmp_path / "run" / "samples" / "step_00000002.png").exists()
    (validated,) = (line for line in lines(tmp_path / "run") if "validation" in line)
    (means,) = validated["validation"].values()
    (guesses,) = validated["baselines"].values()
    assert metric_of(row.modality).score(means) == validated["score"] > 0 and len(guesses) == 2
    assert f", {said[row.decides]} {means[row.decides]:.4f})" in choose(tmp_path / "run").reason
    quick = Settings(num_inference_steps=1, ensemble_size=1)
    evaluate.main(str(tmp_path / "run"), data, quick, reconstruction=True, json_out=tmp_path / "scores.json")
    report = json.loads((tmp_path / "scores.json").read_text())
    for scored in (report["checkpoint"], "the truth through the autoencoder"):
        assert np.isfinite(report["means"][scored][row.decides])
    prediction = load(latest(tmp_path / "run") or "")(RenderedScenes(scenes)[0].rgb, Settings(ensemble_size=3))
    assert prediction.values.shape == (*SIZE, row.channels)[: 2 + (row.channels > 1)]
    assert prediction.kind == row.modality.kind and prediction.uncertainty is not None
    assert to_rgb(prediction).shape == (*SIZE, 3)


@each_target
def test_ablations_score_a_target_as_evaluation_does(
    target: TargetName, begun: Callable[[TargetName], MarigoldPipeline], scenes: Path, tmp_path: Path
) -> None:
    start, data = str(begun(target).checkpoint.folder), f"rendered:{scenes}"
    task = Task(start, tmp_path / "out", validation=(data,), device="cpu")
    ablate.main("ensemble", task, QUICK, num_inference_steps=(1,), ensemble_sizes=(1,))
    (row,) = json.loads((tmp_path / "out" / "ensemble.json").read_text())["rows"]
    evaluate.main(start, data, Settings(num_inference_steps=1, seed=0), json_out=tmp_path / "scores.json")
    report = json.loads((tmp_path / "scores.json").read_text())
    wanted = report["means"][report["checkpoint"]]
    (score,) = row["scores"].values()
    assert [*score["means"]] == [column.name for column in metric_of(TARGETS[target].modality).columns]
    assert score["means"] == pytest.approx({name: wanted[name] for name in score["means"]}, abs=1e-6)
    assert row["published"] == (["6.13", "11.89"] if target == "depth" else [])  # the paper's are of depth
    assert (tmp_path / "out" / "ensemble.png").exists()


def test_objectives_of_another_target_are_compared_at_equal_compute(
    tiny_depth: Path, scenes: Path, tmp_path: Path
) -> None:
    data = (f"rendered:{scenes}",)
    task = Task(str(tiny_depth), tmp_path, target="segmentation", data=data, validation=data, device="cpu")
    ablate.main("objective", task, RECIPES["smoke"].changed(steps=4), train_seeds=2)
    rows = json.loads((tmp_path / "objective.json").read_text())["rows"]
    assert [row["label"] for row in rows][:2] == ["latent", "end to end"] and rows[0]["published"] == []
    scores = [score for row in rows for score in row["scores"].values()]
    assert all([*score["means"]] == ["miou", "accuracy"] and len(score["seeds"]) == 2 for score in scores)
    steps = {
        path.parts[-3]: json.loads(path.read_text())["recipe"]["steps"] for path in tmp_path.glob("*/seed_0/run.json")
    }
    assert steps["end_to_end"] < steps["latent"] == 4


@each_target
def test_the_truth_itself_scores_perfectly(target: TargetName, sample: RenderedSample) -> None:
    row = TARGETS[target]
    values = perfect(row.modality, sample)
    if target == "disparity":
        values = 1 - values  # as evaluation turns it back
    alignment = {"disparity": "disparity", "log": "log", "metric": "none"}.get(target, "depth")
    if target == "metric":
        values = values * focal_length_px(SIZE[1], FOVS[0]) / FOCAL_PX
    protocol = Protocol(alignment=alignment)  # type: ignore
    found, flipped = metric_of(row.modality).row(values, sample, protocol), values[::-1]
    # quantiles cut off 2 % at either end, and the range of metric depth nothing
    metric = metric_of(row.modality)
    errors = [metric.score(metric.mean([each], "pictures")) for each in (found, metric.row(flipped, sample, protocol))]
    assert errors[0] < {"normals": 0.5, "metric": 1e-3}.get(target, 0.02)
    assert errors[1] > max(3 * errors[0], 0.01)


@pytest.mark.parametrize("space", ["depth", "log", "disparity"])
def test_baselines_are_fitted_in_the_space_of_the_prediction(space: Space) -> None:
    """A map that the ramp is exact for in one space is not exact in the others."""
    up = np.repeat(np.linspace(1, 0, SIZE[0], dtype=np.float32)[:, None], SIZE[1], axis=1)
    depth = {"depth": 1 + 9 * up, "log": 10**up, "disparity": 1 / (1 - 0.9 * up)}[space]
    sample = Sample("a", np.zeros((*SIZE, 3), np.uint8), depth)
    errors = {
        one: DEPTH.row(ramp(sample.rgb), sample, blind_protocol(Protocol(), Depth(space=one)))["abs_rel"]
        for one in ("depth", "log", "disparity")
    }
    assert errors.pop(space) < 1e-4 and min(errors.values()) > 0.05
    assert blind_protocol(Protocol(alignment="none"), TARGETS["metric"].modality).alignment == "depth"
    assert blind_protocol(Protocol(alignment="log"), Depth()).alignment == "log"  # as asked for


@each_target
def test_a_lossless_autoencoder_would_keep_a_target(
    target: TargetName, begun: Callable[[TargetName], MarigoldPipeline], scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_set, protocol = RenderedScenes(scenes), Protocol()
    source = evaluate.open_source(str(begun(target).checkpoint.folder), Settings(processing_resolution=64), protocol)
    assert source.pipeline is not None
    for name in ("encode", "decode"):
        monkeypatch.setattr(source.pipeline, name, lambda pictures: pictures)
    for sample in (a_set[0], a_set[3]):  # of other focal lengths
        rows = [source.metric.row(source.reconstruct(sample, a_set), sample, protocol)]
        error = source.metric.score(source.metric.mean(rows, "pictures"))
        assert error < {"normals": 0.5, "metric": 1e-3}.get(target, 0.02)


@each_target
def test_latents_are_kept_apart_by_target(
    target: TargetName,
    begun: Callable[[TargetName], MarigoldPipeline],
    scenes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pipeline = begun(target)
    folder, told = tmp_path / "latents", []
    monkeypatch.setattr("training.latents.say_disk_need", lambda folder, size, *words, **rest: told.append(size))
    encode_set(pipeline, RenderedScenes(scenes), folder, Framing(), Encoding(variants=1))
    assert told == [sum(np.load(path).nbytes for path in folder.rglob("*.npy"))]
    latents, made_by = Latents(folder), str(read_index(folder)["autoencoder_sha256"])
    latents.check(made_by, None, pipeline.modality)
    assert (latents.read([0], (0,)).grey is not None) == (target in DEPTHS)
    assert ("target" in read_index(folder)) == (target != "depth")  # as older folders record depth
    for name, other in TARGETS.items():
        if name != target:
            with pytest.raises(MarigoldError, match=f"are of {target} and the start predicts {name};"):
                latents.check(made_by, None, other.modality)
    wrong = begun("normals" if target != "normals" else "log")
    with pytest.raises(MarigoldError, match="were made with another (name|target)"):
        encode_set(wrong, RenderedScenes(scenes), folder, Framing(), Encoding(variants=1))


@each_target
@pytest.mark.parametrize("turned", [{"flip": 1.0}, {"upside_down": 1.0}, {"flip": 1.0, "upside_down": 1.0}])
def test_a_mirrored_picture_has_the_target_of_a_mirrored_world(
    target: TargetName, turned: dict[str, float], scenes: Path
) -> None:
    modality, a_set = TARGETS[target].modality, RenderedScenes(scenes)
    plain, other = (
        frame([a_set[0]], a_set, SIZE, Framing(**{"flip": 0.0, **how}), 8, (0,), modality=modality)  # type: ignore
        for how in ({}, turned)
    )
    axes = [axis for name, axis in (("flip", -1), ("upside_down", -2)) if name in turned]
    signs = torch.ones(plain.target.shape[1])
    if target == "normals":
        for axis in axes:
            signs[0 if axis == -1 else 1] *= -1  # what faced right faces left, what faced up faces down
    assert torch.equal(other.image, plain.image.flip(axes)) and torch.equal(other.valid, plain.valid.flip(axes))
    assert torch.allclose(other.target, plain.target.flip(axes) * signs.view(1, -1, 1, 1), atol=1e-6)


def test_another_target_leaves_nothing_of_the_one_before(tiny_depth: Path, tmp_path: Path) -> None:
    source: str | Path = prepare_start(tiny_depth, tmp_path / "root", depth_curve="root")
    for target in ("metric", "normals", "segmentation", "log", "albedo", "disparity", "depth"):
        source = prepare_start(source, tmp_path / target, target=target)
        assert load(source).modality == TARGETS[target].modality
    same = prepare_start(tmp_path / "root", tmp_path / "same", target="depth")  # the same target keeps its curve
    assert load(same).modality == Depth(transfer="root")
    with pytest.raises(CheckpointError, match="was made from .* and target depth, not from .* and target log"):
        prepare_start(tmp_path / "root", tmp_path / "same", target="log")


@pytest.mark.parametrize("target", ["normals", "metric", "segmentation", "albedo"])
def test_a_data_set_without_the_target_is_one_sentence(
    target: TargetName, tiny_depth: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(a_view(0).rgb).save(tmp_path / "a.png")
    np.save(tmp_path / "a.depth.npy", np.ones(SIZE, np.float32))
    task = Task(str(tiny_depth), tmp_path / "run", target=target, data=(f"pairs:{tmp_path}",), device="cpu")
    with pytest.raises(
        MarigoldError,
        match="a (has no (normals|classes|albedo)|does not tell its focal length), which .*(train on|give rendered:)",
    ):
        train(task, QUICK.changed(batch_size=1, micro_batch_size=1))


# ------------------------------------------------------------------------------------------- metres


def test_one_focal_length_for_all(sample: RenderedSample) -> None:
    """A picture of a thing twice as far with twice the focal length is the same picture: so is its target."""
    near, far = sample, replace(sample, depth_m=2 * sample.depth_m)
    half = np.degrees(2 * np.arctan(np.tan(np.radians(FOVS[0]) / 2) / 2))
    target = target_of(TARGETS["metric"].modality)
    longer = replace(far, fov_x_deg=float(half))
    one, other = (target.values(each, focal_px(each, 1.0)) for each in (near, longer))
    known = np.isfinite(one)
    np.testing.assert_allclose(one[known], other[known], rtol=1e-5)
    assert one[known].min() == pytest.approx(2.0 * FOCAL_PX / focal_length_px(SIZE[1], FOVS[0]), rel=1e-5)
    enlarged = target.values(near, focal_px(near, 2.0))  # seen twice as large it is half as far
    np.testing.assert_allclose(enlarged[known], one[known] / 2, rtol=1e-5)


def test_metres_grow_with_the_focal_length_and_an_assumed_one_is_told(
    tiny_depth: Path, sample: RenderedSample, tmp_path: Path
) -> None:
    pipeline = load(prepare_start(tiny_depth, tmp_path / "start", target="metric"))
    photo = load_photo(sample.rgb)
    made = {fov: pipeline(replace(photo, fov_x_deg=fov), Settings(seed=3)) for fov in (None, 30.0, 60.0, 55.0)}
    ratio = focal_length_px(SIZE[1], 30.0) / focal_length_px(SIZE[1], 60.0)
    np.testing.assert_allclose(made[30.0].values, made[60.0].values * ratio, rtol=1e-5)
    np.testing.assert_allclose(made[None].values, made[55.0].values, rtol=1e-5)
    assert made[55.0].note is None
    told = "The photo does not tell its focal length: its metres assume a field of view of 55 degrees"
    assert (made[None].note or "").startswith(told)
    assert made[60.0].kind == "metric" and made[60.0].values.min() > 0
    again = pipeline(replace(photo, note=made[None].note), Settings(seed=3))
    assert again.note == made[None].note  # told once
    rescaled = pipeline(replace(photo, fov_x_deg=60.0), Settings(seed=3, views="mirrored-rescaled", ensemble_size=3))
    assert rescaled.values.max() < 3 * made[60.0].values.max()  # each view has a focal length of its own


def test_metric_depth_is_scored_as_it_is_and_affine_depth_is_not(
    tiny_depth: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metric = prepare_start(tiny_depth, tmp_path / "start", target="metric")
    quick = ["--num-inference-steps", "1", "--ensemble-size", "1"]
    for checkpoint, words, code in (
        (metric, ["--json-out", str(tmp_path / "scores.json"), "--figures", str(tmp_path)], 0),
        (metric, ["--alignment", "none"], 0),
        (tiny_depth, ["--alignment", "none"], 2),
    ):
        with pytest.raises(SystemExit) as ended:
            run(evaluate.main, "evaluate", [str(checkpoint), f"rendered:{scenes}", *quick, *words])
        assert (ended.value.code or 0) == code
    sentence = "tiny-depth predicts depth whose scale and shift are not known, so that it cannot be scored with"
    assert capsys.readouterr().err.splitlines()[-1].startswith(sentence)
    assert all((tmp_path / f"field_of_view.{ending}").is_file() for ending in ("png", "pdf"))
    report = json.loads((tmp_path / "scores.json").read_text())
    pipeline, protocol = load(metric, dtype="float32"), Protocol()
    sample, row = RenderedScenes(scenes)[1], report["photos"]["shard_00000/0001"]
    photo = replace(load_photo(sample.rgb), fov_x_deg=FOVS[1])
    settings = Settings(num_inference_steps=1, processing_resolution=report["settings"]["processing_resolution"])
    values, counted = pipeline(photo, settings).values.clip(1e-3, 80), protocol.counted(sample.depth_m)
    error = np.mean(np.abs(values - sample.depth_m)[counted] / sample.depth_m[counted])
    assert row["abs_rel"] == pytest.approx(error, rel=1e-4)
    assert row["fov_x_deg"] == pytest.approx(FOVS[1])
    assert {"50 to 60 degrees", "70 to 70 degrees", "80 to 80 degrees"} <= report["means"].keys()
    assert by_field_of_view([{"pixels": 1.0, "fov_x_deg": 60.0}] * 6) == {}  # of one camera: nothing to divide


@pytest.mark.parametrize(
    "claim",
    [
        {"metric_range_m": [2, 1]},
        {"metric_range_m": [0, 1]},
        {"canonical_focal_px": None},
        {"canonical_focal_px": -1.0},
        {"scale_invariant": True, "shift_invariant": True},
    ],
)
def test_a_checkpoint_of_metres_states_range_and_focal_length(
    claim: dict[str, object], tiny_depth: Path, tmp_path: Path
) -> None:
    folder = prepare_start(tiny_depth, tmp_path / "start", target="metric")
    edit(folder / "model_index.json", **claim)
    with pytest.raises(CheckpointError, match="canonical_focal_px|metric_range_m must be greater than 0"):
        find(folder)


# ------------------------------------------------------------------------------------------- normals


def test_angles_are_degrees_of_known_normals(sample: RenderedSample) -> None:
    turn = np.radians(20.0)
    matrix = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    found = metric_of(Normals()).row((sample.normals @ matrix.T).astype(np.float32), sample, Protocol())
    truth = sample.normals.astype(float)
    known = np.linalg.norm(truth, axis=-1) > 0.5
    unit = truth[known] / np.linalg.norm(truth[known], axis=-1, keepdims=True)
    angles = np.degrees(np.arccos(np.clip((unit * (unit @ matrix.T)).sum(-1), -1, 1)))
    assert found["pixels"] == known.sum() < known.size
    assert found["mean_angle"] == pytest.approx(angles.mean(), abs=1e-3)
    assert found["median_angle"] == pytest.approx(np.median(angles), abs=1e-3)
    assert found["within_11.25"] == pytest.approx((angles < 11.25).mean())
    with pytest.raises(MarigoldError, match=r"Normals are \[H, W, 3\]"):
        metric_of(Normals()).row(sample.depth_m, sample, Protocol())


# ------------------------------------------------------------------------------- classes


def segmentation() -> Segmentation:
    modality = TARGETS["segmentation"].modality
    assert isinstance(modality, Segmentation)
    return modality


def test_colours_of_classes_are_far_apart_and_read_back_under_noise() -> None:
    assert [one.name for one in CLASSES] == list(LABELS)
    colours = np.array([one.rgb for one in CLASSES], float)
    distances = np.linalg.norm(colours[:, None] - colours, axis=-1)
    assert distances[~np.eye(len(colours), dtype=bool)].min() > 63
    labels = torch.randint(len(CLASSES), (2, 1, 16, 16), generator=torch.manual_seed(0)).float()
    picture = segmentation().to_vae(labels, torch.ones_like(labels, dtype=torch.bool))
    noise = (torch.rand(picture.shape, generator=torch.manual_seed(1)) - 0.5) / 4  # up to 16 of 255 steps a channel
    assert torch.equal(segmentation().from_vae(picture + noise), labels)
    assert (segmentation().to_vae(labels, torch.zeros_like(labels, dtype=torch.bool)) == 0).all()


def test_members_vote_and_the_share_of_the_others_is_the_uncertainty() -> None:
    members = torch.tensor([[3.0, 1.0], [3.0, 2.0], [5.0, 2.0], [3.0, 2.0]])[:, None, None]  # [E, 1, 1, 2]
    values, share = segmentation().fuse(members)
    assert values.flatten().tolist() == [3, 2] and share.flatten().tolist() == [0.25, 0.25]
    assert segmentation().resize(values, (2, 4)).unique().tolist() == [2, 3]  # no class lies between two


def test_classes_are_shown_on_the_page_and_saved_in_their_colours(tiny_depth: Path, tmp_path: Path) -> None:
    pipeline = load(prepare_start(tiny_depth, tmp_path / "start", target="segmentation"))
    made = pipeline(a_view(0).rgb, Settings(num_inference_steps=1, ensemble_size=3))
    colours = np.array([one.rgb for one in CLASSES], np.uint8)[made.values.astype(int)]
    assert main_layer(made) == "classes"
    assert {name for _, name in offered(made)} >= {"classes", "photo", "uncertainty"}
    shown = np.asarray(Image.open(paint(made, "classes", ColourSettings(), MeshSettings())).convert("RGB"))
    np.testing.assert_array_equal(shown, colours)
    legend = draw_legends(made, ["classes"], ColourSettings())
    assert all(f"rgb{one.rgb}" in legend.split(f"</i>{one.name}<")[0][-40:] for one in CLASSES)  # each by its colour
    files = save(made, tmp_path / "out", ["npy", "color", "uncertainty"])
    np.testing.assert_array_equal(np.asarray(Image.open(files["classes"])), colours)
    with np.load(files["layers"]) as stored:
        np.testing.assert_array_equal(stored["classes"], made.values)
    with pytest.raises(ExportError, match="segmentation has no glb"):
        save(made, tmp_path / "out", ["glb"])
    smaller = resize_map(made.values, (17, 23), kind="class")
    assert set(np.unique(smaller)) <= set(np.unique(made.values))  # no class lies between two


def test_objects_are_shown_as_labelled_boxes(tiny_depth: Path, sample: RenderedSample, tmp_path: Path) -> None:
    pipeline = load(prepare_start(tiny_depth, tmp_path / "start", target="objects"))
    modality = TARGETS["objects"].modality
    made = pipeline(sample.rgb, Settings(num_inference_steps=1, ensemble_size=3))
    assert made.values.shape == (*SIZE, 4) and set(np.unique(made.values[..., 3])) <= set(range(len(OBJECT_CLASSES)))
    planted = replace(made, values=perfect(modality, sample))
    (box,) = planted.boxes()
    assert sample.instances is not None
    (true,) = true_boxes(sample.instances, sample.labels, tuple(LABELS))
    assert box.name == "object" and box.iou(true) > 0.8
    assert main_layer(planted) == "boxes" and [name for _, name in offered(planted)][:2] == ["photo", "boxes"]
    shown = np.asarray(Image.open(paint(planted, "boxes", ColourSettings(), MeshSettings())).convert("RGB"))
    assert (shown == (255, 221, 51)).all(axis=-1).any() and shown.shape == sample.rgb.shape
    files = save(planted, tmp_path / "out", ["npy", "color"])
    with np.load(files["layers"]) as stored:
        assert [*stored] == ["centre", "widths", "heights", "classes"]
    votes = torch.tensor([3.0, 5.0, 3.0])[:, None, None, None]
    sizes = torch.tensor([0.2, 0.4, 0.9])[:, None, None, None].repeat(1, 3, 1, 1)
    values, _ = modality.fuse(torch.cat([sizes, votes], dim=1))
    assert values.flatten().tolist() == pytest.approx([0.4, 0.4, 0.4, 3])


def test_objects_survive_the_bundled_autoencoder() -> None:
    """Their sizes did not as the colours of one picture, so that no network could have learned them."""
    instances, labels = np.zeros((96, 128), np.uint8), np.ones((96, 128), np.uint8)
    places = {"furniture": (8, 10, 50, 40), "vehicle": (60, 30, 84, 98), "plant": (20, 90, 40, 108)}
    for number, (name, (top, left, bottom, right)) in enumerate(places.items(), start=1):
        instances[top:bottom, left:right], labels[top:bottom, left:right] = number, LABELS.index(name)
    modality, pipeline = Intrinsics((*OBJECTS, KINDS)), load("nano", dtype="float32")
    values = target_of(modality).finish(planes(np.dstack([instances, labels]).astype(np.float32))[None])
    with torch.inference_mode():
        pictures = modality.to_vae(values, torch.ones_like(values[:, :1], dtype=torch.bool))
        decoded = torch.cat([pipeline.decode(pipeline.encode(each)) for each in pictures.split(3, dim=1)], dim=1)
    found = find_boxes(modality.layers, modality.from_vae(decoded)[0].permute(1, 2, 0).numpy())
    assert len(found) == len(places)
    for box in found:
        top, left, bottom, right = places[box.name]
        assert box.iou(Box(box.name, 1, left, top, right, bottom)) > 0.6


def test_miou_is_over_the_whole_set(sample: RenderedSample) -> None:
    metric, truth = metric_of(segmentation()), sample.labels.astype(np.float32)
    half = np.where(np.arange(SIZE[1]) < SIZE[1] // 2, truth, 11.0).astype(np.float32)
    rows = [metric.row(values, sample, Protocol()) for values in (truth, half)]
    found = metric.mean(rows, "pictures")
    left = sample.labels[:, : SIZE[1] // 2]
    expected = {}
    for number in (0, 1, 5):
        count, kept = (sample.labels == number).sum(), (left == number).sum()
        expected[CLASSES[number].name] = (count + kept) / (2 * count)
    assert {name: found[f"iou_{name}"] for name in expected} == pytest.approx(expected)
    assert found["iou_opening"] == 0 and found["miou"] == pytest.approx(sum(expected.values()) / 4)
    with pytest.raises(MarigoldError, match=r"Classes are \[H, W\]"):
        metric.row(truth[:-1], sample, Protocol())


@pytest.mark.parametrize(
    "properties", [{"target_names": ["classes"]}, {"target_names": []}, {"target_names": ["classes", "albedo"]}]
)
def test_a_segmentation_states_its_classes(properties: dict, tiny_depth: Path, tmp_path: Path) -> None:
    folder = prepare_start(tiny_depth, tmp_path / "start", target="segmentation")
    edit(folder / "model_index.json", target_properties=properties)
    with pytest.raises(CheckpointError, match="target_properties"):
        find(folder)


def test_albedo_of_older_shards_is_asked_for(scenes: Path, tmp_path: Path) -> None:
    older = Path(shutil.copytree(scenes, tmp_path / "older"))
    (older / "shard_00000" / "albedo.npy").unlink()
    with pytest.raises(MarigoldError, match="rendered without albedo, by an older version: render it again"):
        target_of(TARGETS["albedo"].modality).values(RenderedScenes(older)[0], None)


# ------------------------------------------------------------------------------- objectives


@each_target
def test_the_loss_of_decoded_pictures_is_least_at_the_truth(target: TargetName, sample: RenderedSample) -> None:
    modality = TARGETS[target].modality
    truth, known = painted(modality, sample)
    noise = torch.randn(truth.shape, generator=torch.manual_seed(0))
    losses = [float(task_loss(modality, truth + size * noise, truth, known.float())) for size in (0.0, 0.1, 0.3, 1.0)]
    assert losses == sorted(losses) and losses[1] > losses[0] >= 0
    guess = (truth + 0.1 * noise).requires_grad_(True)
    task_loss(modality, guess, truth, known.float()).backward()
    assert guess.grad is not None and torch.isfinite(guess.grad).all() and guess.grad.abs().max() > 0


def test_objects_of_uncertain_place_are_no_empty_map_and_sizes_count_inside_boxes() -> None:
    modality = TARGETS["objects"].modality
    things = np.zeros((8, 2, 48, 64), np.float32)
    for number, (instances, labels) in enumerate(things):
        left = 8 * (number % 4)
        instances[8:24, left : left + 16], labels[8:24, left : left + 16] = 1, LABELS.index("furniture")
    values = target_of(modality).finish(torch.from_numpy(things))
    known = torch.ones_like(values[:, :1])
    truth = modality.to_vae(values, known.bool())
    centres = truth[:, :3]
    right, expected, empty = (
        task_loss(modality, torch.cat([map_.expand_as(centres), truth[:, 3:]], dim=1), truth, known)
        for map_ in (centres, centres.mean(dim=0, keepdim=True), torch.full_like(centres, -1))
    )
    assert expected - right < 0.8 * (empty - right)
    outside = (values[:, 1:3].amax(dim=1, keepdim=True) == 0).expand(-1, 6, -1, -1)
    guess = truth.clone()
    guess[:, 3:9][outside] = 0.7
    torch.testing.assert_close(*(task_loss(modality, each, truth, known) for each in (guess, truth)))
    guess[:, 3:9][~outside] -= 0.2
    assert task_loss(modality, guess, truth, known) > task_loss(modality, truth, truth, known) + 0.05


@pytest.mark.parametrize("target", ["depth", "segmentation", "objects"])
@pytest.mark.parametrize("encoded", [False, True])
def test_end_to_end_trains_the_one_step_that_inference_makes(
    target: TargetName, encoded: bool, tiny_depth: Path, scenes: Path, tmp_path: Path
) -> None:
    start = prepare_start(tiny_depth, tmp_path / "start", target=target)
    folder = tmp_path / "latents"
    if encoded:
        encode_set(load(start), RenderedScenes(scenes), folder, Framing(), Encoding(variants=1, precision="float32"))
    what = {"latents": (folder,)} if encoded else {"data": (f"rendered:{scenes}",)}
    task = Task(str(start), tmp_path / "run", validation=(f"rendered:{scenes}",), device="cpu", **what)  # type: ignore
    recipe = QUICK.changed(steps=12, objective="end_to_end", lr=3e-3, ema_decay=0.0, validate_steps=12, warmup_steps=0)
    train(task, recipe)
    losses = [line["loss"] for line in step_lines(task.out)]
    assert np.mean(losses[-3:]) < np.mean(losses[:3])
    made = load(latest(task.out) or "")
    assert made.checkpoint.family is E2E_FT and made.resolve(None).num_inference_steps == 1
    one, two = (made(RenderedScenes(scenes)[0].rgb, Settings(seed=seed)).values for seed in (0, 1))
    np.testing.assert_array_equal(one, two)  # nothing is drawn
    with pytest.raises(CheckpointError, match="of the E2E-FT family"):
        prepare_start(task.out, tmp_path / "again")
    prepare_start(task.out, tmp_path / "more", objective="end_to_end")


def test_end_to_end_scores_what_the_pipeline_decodes(tiny_depth: Path, tmp_path: Path) -> None:
    pipeline = load(prepare_start(tiny_depth, tmp_path / "start", objective="end_to_end"), dtype="float32")
    pipeline.prompt = pipeline.prompt.clone()
    image = torch.randn(2, 4, 6, 8, generator=torch.manual_seed(0))
    with torch.no_grad():
        *_, clean = pipeline.denoise(image, torch.zeros_like(image), 1)
        guess, truth = pipeline.decode(clean), torch.rand(2, 3, 48, 64, generator=torch.manual_seed(1)) * 2 - 1
        wanted = task_loss(pipeline.modality, guess, truth, torch.ones(2, 1, 48, 64))
        valid = torch.ones(2, 1, 6, 8, dtype=torch.bool)
        found = end_to_end_loss(pipeline, image, truth, valid, recipe=QUICK, micro=0)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_average_precision_is_the_area_below_precision_over_recall() -> None:
    rows = [
        {"there_object": 2.0, "found_object 0": 0.9, "found_object 1": -0.8, "found_person 2": -0.99},
        {"there_object": 1.0, "found_object 0": 0.7, "there_plant": 1.0},
    ]
    found = mean_ap(rows, "pictures")
    assert found["ap50_object"] == pytest.approx((1 + 2 / 3) / 3) and found["ap50_plant"] == 0
    assert found["ap50"] == pytest.approx(found["ap50_object"] / 2) and "ap50_person" not in found
    assert found["recall"] == 2 / 4


def test_a_network_of_more_pictures_begins_as_each_of_them_alone(tiny_depth: Path, tmp_path: Path) -> None:
    one, two = load(tiny_depth), load(prepare_start(tiny_depth, tmp_path / "two", target="intrinsics"))
    image, noisy = torch.randn(2, 1, 4, 6, 8, generator=torch.Generator().manual_seed(0))
    t = torch.tensor(500)
    with torch.inference_mode():
        alone, both = one.predict_velocity(image, noisy, t), two.predict_velocity(image, noisy.repeat(1, 2, 1, 1), t)
    torch.testing.assert_close(both, alone.repeat(1, 2, 1, 1), atol=1e-4, rtol=1e-4)
    back = load(prepare_start(tmp_path / "two", tmp_path / "back", target="depth"))
    with torch.inference_mode():
        torch.testing.assert_close(back.predict_velocity(image, noisy, t), alone, atol=1e-4, rtol=1e-4)


def test_boxes_are_those_of_what_is_seen(scenes: Path) -> None:
    sample = RenderedScenes(scenes)[0]
    assert sample.instances is not None
    (box,) = true_boxes(sample.instances, sample.labels, tuple(LABELS))
    rows, columns = np.nonzero(sample.instances)
    assert box == Box("object", 1.0, columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert true_boxes(np.zeros_like(sample.instances), sample.labels, tuple(LABELS)) == []
