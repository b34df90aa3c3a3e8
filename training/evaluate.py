"""Scores on photographs with measured depth, ``python -m training.evaluate CHECKPOINT DATA``.

DATA holds a folder a photograph: ``NAME/rgb.png`` and ``NAME/depth.npz`` with ``depth`` [H, W] float32, metres along
the optical axis, NaN where nothing was measured. Anything that gives a map for a photo can be scored.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import tyro
from tqdm import tqdm

from marigold_core import Settings, load
from marigold_core.weights import write_json
from training.honesty import check_honesty
from training.protocol import BASELINES, Protocol, averages, evaluate
from training.readers import read_measured


def table(scores: dict[str, dict[str, float]]) -> str:
    """Write rows of metrics as aligned text."""
    names = list(next(iter(scores.values())))
    lines = [f"{'':32s}" + "".join(f"{name:>10s}" for name in names)]
    for label, row in scores.items():
        lines.append(f"{label:32s}" + "".join(f"{row[name]:10.3f}" for name in names))
    return "\n".join(lines)


def main(
    checkpoint: tyro.conf.Positional[str],
    data: tyro.conf.Positional[Path],
    settings: Annotated[Settings, tyro.conf.arg(name="")] = Settings(num_inference_steps=4, ensemble_size=4),  # noqa: B008
    protocol: Annotated[Protocol, tyro.conf.arg(name="")] = Protocol(),  # noqa: B008
    honesty: Path | None = None,
    json_out: Path | None = None,
) -> None:
    """Score a checkpoint on photographs with measured depth, beside guesses that do not look at the photo.

    Args:
        checkpoint: short name, diffusers folder or hub id.
        data: folder of NAME/rgb.png and NAME/depth.npz.
        settings: how to predict; see marigold_core.Settings.
        protocol: what is compared.
        honesty: folder of example photographs; adds checks that the network looks at the photo and can be random.
        json_out: file for all numbers.
    """
    pipeline = load(checkpoint)
    photos = read_measured(data)
    maps = {photo.name: pipeline(photo.pixels, settings).values for photo in tqdm(photos, unit="photo", disable=None)}
    rows = {photo.name: protocol.score(maps[photo.name], photo.depth_m) for photo in photos}
    means = {pipeline.checkpoint.name: averages(list(rows.values()))}
    means |= {name: averages(evaluate(guess, photos, protocol)) for name, guess in BASELINES.items()}
    print(table({**rows, **{f"mean, {name}": row for name, row in means.items()}}))
    report: dict[str, object] = {
        "checkpoint": pipeline.checkpoint.name,
        "sha256": pipeline.checkpoint.sha256,
        "settings": pipeline.resolve(settings).model_dump(),
        "protocol": protocol.model_dump(),
        "photos": rows,
        "means": means,
    }
    if honesty is not None:
        checks = check_honesty(pipeline, photos, maps, settings, protocol, honesty)
        print(json.dumps(asdict(checks), indent=2))
        report["honesty"] = asdict(checks)
    if json_out is not None:
        write_json(json_out, report)


if __name__ == "__main__":
    tyro.cli(main)
