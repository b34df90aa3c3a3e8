"""Write a run as a checkpoint to distribute, ``python -m training.publish RUN assets/marigold-nano``.

In half precision, in files small enough for an ordinary repository, with checksums and a model card.
"""

import shutil
from pathlib import Path

import torch
import tyro
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel

from marigold_core import Settings, load
from marigold_core.checkpoints.layout import INDEX, PRIOR, read_config
from marigold_core.checkpoints.registry import find
from marigold_core.checkpoints.weights import write_checksums
from marigold_core.errors import MarigoldError
from marigold_core.pipeline.image_prior import GuidedUNet, ImagePrior
from marigold_core.storage import atomic_folder, write_json
from training.engine import checkpoints, command

SHARD = "8MB"
CARD = "README.md"


def publish(source: Path, out: Path, card: Path | None = None, resolution_px: int | None = None) -> Path:
    """Write the checkpoint folder ``source`` in half precision to ``out``, replacing older content.

    Without ``card`` the model card in ``out`` is kept. ``resolution_px`` becomes the default processing resolution.

    Raises: CheckpointError for an incomplete source; SettingsError for an invalid resolution; ExportError when the
    result cannot be written.
    """
    Settings(processing_resolution=resolution_px)  # checked before the work
    found = find(source)
    with atomic_folder(out, replace=True) as aside:
        for name in ("scheduler", "tokenizer"):
            shutil.copytree(source / name, aside / name)
        index = read_config(source, INDEX)
        if resolution_px is not None:
            index["default_processing_resolution"] = resolution_px
        write_json(aside / INDEX, index)
        parts = {"unet": GuidedUNet if found.prior else UNet2DConditionModel, "vae": AutoencoderKL}
        parts |= {PRIOR: ImagePrior} if found.prior else {}
        for name, kind in parts.items():
            network = kind.from_pretrained(source / name, torch_dtype=torch.float16)
            network.save_pretrained(aside / name, max_shard_size=SHARD)
        # diffusers loads half precision as single by default, transformers as stored: this small part is stored single
        text = CLIPTextModel.from_pretrained(source / "text_encoder", dtype=torch.float32)
        text.save_pretrained(aside / "text_encoder", max_shard_size=SHARD)
        for path in aside.rglob("*.safetensors"):
            path.chmod(0o644)  # safetensors makes files that only the owner can read
        card = card or out / CARD
        if card.exists():
            shutil.copyfile(card, aside / CARD)
        write_checksums(aside)
        load(aside)
    return out


def main(
    run: tyro.conf.Positional[Path],
    out: tyro.conf.Positional[Path],
    card: Path | None = None,
    resolution_px: int | None = None,
) -> None:
    """Publish the newest checkpoint of a run.

    Args:
        run: folder of a run, or one of its step_* folders.
        out: folder to write; an older one is replaced.
        card: Markdown file that becomes the model card; by default the one in the folder stays.
        resolution_px: default processing resolution; by default that of the run.
    """
    if card is not None and not card.is_file():
        raise MarigoldError(f"There is no model card {card}.")
    publish(Path(checkpoints.in_run(run)), out, card, resolution_px)
    sizes_mb = [path.stat().st_size / 1e6 for path in out.rglob("*.safetensors")]
    print(f"{out}: {sum(sizes_mb):.1f} MB, largest file {max(sizes_mb):.1f} MB")


if __name__ == "__main__":
    command.run(main, "python -m training.publish")
