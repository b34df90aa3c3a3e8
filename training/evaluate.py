"""Scores predictions of depth and other targets, ``python -m training.evaluate CHECKPOINT DATA``.

DATA is a data set, ``KIND:FOLDER`` or a folder that is recognised; CHECKPOINT is a checkpoint or a folder of maps
``NAME.npy``, so that whatever gives a map for a photo can be scored. The protocol is the one published for the
kind of data, unless another is named.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro
from pydantic import Field

from marigold_core import Prediction, Settings, load
from marigold_core.errors import MarigoldError
from marigold_core.images.photo import network_size
from marigold_core.pipeline.modalities import Depth
from marigold_core.pipeline.pipeline import MarigoldPipeline
from marigold_core.settings import Dtype, ResolvedSettings
from marigold_core.storage import real_path, refuse_existing, write_json
from training.data.framing import frame
from training.data.sets import open_set
from training.data.sets.sample import DepthSet, Sample, spread
from training.data.targets import focal_px
from training.engine.checkpoints import BEST, choose, is_run
from training.engine.command import check_json_out, run
from training.engine.progress import follow
from training.recipe import Framing
from training.scoring.maps import check_maps, holds_maps, read_map, write_map
from training.scoring.metrics import REMOVED
from training.scoring.plots import PDF, PNG, draw_comparison, draw_fields_of_view, draw_sparsification
from training.scoring.protocols import PRESETS, Overrides, Protocol, choose_protocol
from training.scoring.sanity_checks import SanityChecks
from training.scoring.scores import Comparison, Row, averages
from training.scoring.targets import COUNTS, DEPTH, Metric, blind_protocol, by_field_of_view, metric_of, photo_of

PRINTED_ROWS = 40  # pictures that are listed one by one on the screen; the JSON has all
SPLIT = "test"
RECONSTRUCTION = "the truth through the autoencoder"
SUMMARIES = SPARSIFICATION, FIELDS_OF_VIEW = "sparsification", "field_of_view"  # figures of all pictures together
REPORTED = ("data", "checkpoint", "settings", "protocol", "photos", "means")  # keys of every report


class ProtocolSettings(ResolvedSettings):
    """Settings at the resolution of a protocol, which need only suit the autoencoder: 756 pixels for ETH3D."""

    processing_resolution: int = Field(ge=0, le=2048, multiple_of=2)  # pyright: ignore[reportIncompatibleVariableOverride]

    def resolved(self, steps: int, resolution: int) -> "ProtocolSettings":
        """Nothing is left to the checkpoint."""
        return self


@dataclass(frozen=True)
class Source:
    """Where predictions come from: a checkpoint, or a folder of maps."""

    name: str
    pipeline: MarigoldPipeline | None
    settings: Settings | None  # as resolved, of a checkpoint
    folder: Path | None
    chosen: str = ""  # which checkpoint of a run, and why

    @property
    def label(self) -> str:
        """Its name in figures, by the sha256 of a checkpoint too."""
        return f"{self.name}, sha256 {self.pipeline.checkpoint.sha256[:8]}" if self.pipeline else self.name

    @property
    def metric(self) -> Metric:
        """How it is scored; maps are depth."""
        return metric_of(self.pipeline.modality) if self.pipeline else DEPTH

    @property
    def metres(self) -> bool:
        """Whether it predicts depth in metres."""
        return self.pipeline is not None and self.pipeline.modality.kind == "metric"

    def predict(self, sample: Sample) -> np.ndarray | Prediction:
        """Predict from the photo of a sample, or look its map up."""
        if self.pipeline is not None:
            return self.pipeline(photo_of(sample), self.settings)
        assert self.folder is not None
        height, width = sample.depth_m.shape
        return read_map(self.folder, sample.name, (height, width))

    @torch.inference_mode()
    def reconstruct(self, sample: Sample, a_set: DepthSet) -> Prediction:
        """Encode and decode the truth of a sample at the size that the network sees -> what no U-Net would surpass."""
        pipeline = self.pipeline
        assert pipeline is not None  # of a checkpoint
        settings = pipeline.resolve(self.settings)
        modality, (height, width) = pipeline.modality, sample.depth_m.shape
        seen = network_size(height, width, settings.processing_resolution)
        rows, columns = (max(1, round(edge / pipeline.factor)) * pipeline.factor for edge in seen)
        size = rows, columns
        framed = frame([sample], a_set, size, Framing(flip=0), pipeline.factor, (0,), modality=modality)
        member = modality.from_vae(pipeline.decode(pipeline.encode(framed.target.to(pipeline.device))).float())
        if isinstance(modality, Depth) and modality.focal_px and (own_px := focal_px(sample, columns / width)):
            member = member * (own_px / modality.focal_px)
        return pipeline.fuse_members(photo_of(sample), settings, [member])


@dataclass
class Scores:
    """Scores of all pictures so far."""

    rows: dict[str, Row] = field(default_factory=dict)  # by name of the picture
    baselines: dict[str, list[Row]] = field(default_factory=dict)
    curves: list[np.ndarray] = field(default_factory=list)


def open_source(
    checkpoint: str, settings: Settings, protocol: Protocol, step: str = BEST, dtype: Dtype = "float32"
) -> Source:
    """Open a checkpoint, or a folder of maps; the protocol has the resolution, unless the settings do.

    ``step`` chooses a checkpoint of a run. Raises: CheckpointError as ``load``, MarigoldError when there is no such
    step, or what it predicts is not scored.
    """
    if _are_maps(checkpoint):
        folder = Path(checkpoint)
        return Source(folder.resolve().name, None, None, folder)
    chosen = choose(checkpoint, step)
    if chosen.reason:
        print(chosen.reason)
    pipeline = load(chosen.source, dtype=dtype)
    name = pipeline.checkpoint.name
    metric_of(pipeline.modality)
    if settings.processing_resolution is None and protocol.processing_resolution is not None:
        seen_px = -(-protocol.processing_resolution // pipeline.factor) * pipeline.factor
        given = pipeline.resolve(settings).model_dump() | {"processing_resolution": seen_px}
        return Source(name, pipeline, ProtocolSettings(**given), None, chosen.reason)
    return Source(name, pipeline, pipeline.resolve(settings), None, chosen.reason)


def table(scores: dict[str, Row]) -> str:
    """Write rows of metrics as aligned text; a dash stands for what a row does not have."""
    names = list(dict.fromkeys(name for row in scores.values() for name in row))
    lines = [["", *names]]
    lines += [[label, *(_short(row[name]) if name in row else "-" for name in names)] for label, row in scores.items()]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    first, *rest = widths
    return "\n".join(
        f"{line[0]:{first}s}" + "".join(f"{word:>{wide + 2}s}" for word, wide in zip(line[1:], rest, strict=True))
        for line in lines
    )


def main(
    checkpoint: tyro.conf.Positional[str],
    data: tyro.conf.Positional[str],
    settings: Settings = Settings(num_inference_steps=4, ensemble_size=4),  # noqa: B008
    overrides: Overrides = Overrides(),  # noqa: B008
    protocol: Annotated[str | None, tyro.conf.arg(metavar="|".join(PRESETS))] = None,
    step: str = BEST,
    dtype: Dtype = "float32",
    limit: Annotated[int | None, tyro.conf.arg(metavar="N")] = None,
    figures: Path | None = None,
    save_maps: Path | None = None,
    honesty: Path | None = None,
    reconstruction: bool = False,
    json_out: Path | None = None,
) -> None:
    """Score a checkpoint, or maps of depth, on pictures whose target is known, beside baselines that ignore the photo.

    Args:
        checkpoint: short name, diffusers folder, hub id, a run, or a folder of maps NAME.npy.
        data: KIND:FOLDER, KIND/SPLIT:FOLDER, or a folder that is recognised.
        settings: how to predict; see marigold_core.Settings.
        overrides: single fields of the protocol.
        protocol: which protocol, by name; by default the one published for the kind of data.
        step: which checkpoint of a run: best, newest, or a number of steps.
        dtype: type of the weights; scores in float32 do not depend on the machine.
        limit: score only this many pictures, evenly spread.
        figures: folder for figures, PNG and PDF: photo, truth, prediction and error of each; metres by field of view.
        save_maps: folder for the predictions, NAME.npy.
        honesty: folder of example photographs; adds checks that predictions depend on the photo and on the noise.
        reconstruction: adds the truth as the autoencoder encodes and decodes it, which bounds what a U-Net can reach.
        json_out: file for all numbers.
    """
    if limit is not None and limit < 1:
        raise MarigoldError(f"limit must be at least 1 picture, but got {limit}.")
    a_set = open_set(data, SPLIT)
    indices = spread(a_set, limit)
    names = [*map(a_set.name, indices)]
    _check_target(
        figures, [f"{name}{ending}" for name in (*names, *SUMMARIES) for ending in (PNG, PDF)], a_set, checkpoint
    )
    _check_target(save_maps, [f"{name}.npy" for name in names], a_set, checkpoint)
    check_json_out(json_out, REPORTED)
    chosen = choose_protocol(a_set.kind, protocol, overrides)
    source = open_source(checkpoint, settings, chosen, step, dtype)
    checks = None if honesty is None else _sanity_checks(source, chosen, honesty)
    if reconstruction and source.pipeline is None:
        raise MarigoldError("Maps have no autoencoder: leave out --reconstruction, or give a checkpoint.")
    if source.folder is not None:
        check_maps(source.folder, names)
    if figures is not None and source.metric is not DEPTH:
        raise MarigoldError(
            f"Figures show depth, and {source.name} predicts {_predicted(source)}: leave out --figures."
        )
    metric, scores = source.metric, Scores()
    fitted = blind_protocol(chosen, source.pipeline.modality if source.pipeline else None)
    for index in follow(indices, len(indices), a_set.kind):
        sample = a_set[index]
        prediction = source.predict(sample)
        found = metric.measure(prediction, sample, chosen)
        row, comparison = (found.row, found) if isinstance(found, Comparison) else (found, None)
        if source.metres and sample.fov_x_deg is not None:
            row["fov_x_deg"] = sample.fov_x_deg
        scores.rows[sample.name] = row
        if comparison and comparison.curves is not None:
            scores.curves.append(comparison.curves)
        beside = metric.guess(sample, fitted)
        if reconstruction:
            beside[RECONSTRUCTION] = metric.row(source.reconstruct(sample, a_set), sample, chosen)
        for name, one in beside.items():
            scores.baselines.setdefault(name, []).append(one)
        if checks is not None and isinstance(prediction, Prediction):
            checks.add(sample, prediction)
        if figures is not None and comparison:
            draw_comparison(sample, comparison, source.label, figures / f"{sample.name}{PNG}")
        if save_maps is not None:
            values = prediction.values if isinstance(prediction, Prediction) else prediction
            write_map(save_maps, sample.name, values)
    if figures is not None and scores.curves:
        draw_sparsification(np.mean(scores.curves, axis=0), source.label, figures / f"{SPARSIFICATION}{PNG}")
    if figures is not None and (groups := by_field_of_view([*scores.rows.values()])):
        draw_fields_of_view([*groups.values()], source.label, figures / f"{FIELDS_OF_VIEW}{PNG}")
    report = {"data": {"kind": a_set.kind, "folder": a_set.folder.name}, **summary(source, chosen, scores)}
    if checks is not None:
        report["honesty"] = asdict(checks.finish())
        print(json.dumps(report["honesty"], indent=2))
    if json_out is not None:
        write_json(json_out, report)


def _sanity_checks(source: Source, protocol: Protocol, examples: Path) -> SanityChecks:
    """Begin the honesty checks of a checkpoint. Raises: MarigoldError for what they cannot be made of."""
    if source.pipeline is None or source.settings is None:
        raise MarigoldError("The honesty checks ask for more predictions: give a checkpoint, not a folder of maps.")
    if source.pipeline.checkpoint.family.one_step:
        raise MarigoldError(
            f"The honesty checks compare denoising steps, and {source.name} predicts in one: score it without them."
        )
    if source.metric is not DEPTH:
        raise MarigoldError(f"The honesty checks are of depth, and {source.name} predicts {_predicted(source)}.")
    return SanityChecks(source.pipeline, source.settings, protocol, examples)


def _predicted(source: Source) -> str:
    assert source.pipeline is not None  # maps are depth
    return source.pipeline.modality.name


def _are_maps(checkpoint: str) -> bool:
    """Tell a folder of maps from a checkpoint, and from a run in whose folder maps were saved."""
    return holds_maps(checkpoint) and not is_run(checkpoint)


def _check_target(out: Path | None, names: Sequence[str], a_set: DepthSet, checkpoint: str) -> None:
    """Check that files of these names in ``out`` would replace nothing. Raises: MarigoldError."""
    if out is None:
        return
    for folder in (a_set.folder, *([Path(checkpoint)] if _are_maps(checkpoint) else [])):
        if real_path(out).is_relative_to(folder.resolve()):
            raise MarigoldError(f"{out} is a part of {folder}, whose files it could replace: give another folder.")
    refuse_existing((out / name for name in names), False, f"remove it, or give another folder than {out}")


def summary(source: Source, protocol: Protocol, scores: Scores) -> dict[str, object]:
    """Average and print what was scored -> all numbers, ready for JSON."""
    groups = {source.name: list(scores.rows.values()), **scores.baselines}
    means = {label: source.metric.mean(rows, protocol.averaging) for label, rows in groups.items()}
    if source.metres:
        thirds = by_field_of_view(groups[source.name])
        means |= {label: averages(rows, protocol.averaging) for label, rows in thirds.items()}
    shown = scores.rows.items() if len(scores.rows) <= PRINTED_ROWS else ()
    listed = {name: {key: row[key] for key in row if not key.startswith(COUNTS)} for name, row in shown}
    print("Protocol: " + ", ".join(f"{name} {value}" for name, value in protocol))
    print(table({**listed, **{f"mean, {name}": row for name, row in means.items()}}))
    content: dict[str, object] = {
        "checkpoint": source.name,
        "chosen": source.chosen,
        "sha256": source.pipeline.checkpoint.sha256 if source.pipeline else None,
        "settings": source.settings.model_dump() if source.settings else None,
        "protocol": json.loads(protocol.model_dump_json()),  # writes null for no limit
        "photos": scores.rows,
        "means": means,
    }
    if scores.curves:
        by_uncertainty, oracle = np.mean(scores.curves, axis=0).tolist()
        content["sparsification"] = {"removed": REMOVED.tolist(), "error": by_uncertainty, "oracle": oracle}
    return content


def _short(value: float) -> str:
    """Four digits or so."""
    return f"{value:.0f}" if value >= 1000 else f"{value:.4f}" if abs(value) < 10 else f"{value:.2f}"


if __name__ == "__main__":
    run(main, "python -m training.evaluate")
