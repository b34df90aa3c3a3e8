"""The presets, and one widget for every field of ``Settings``."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.components import Component

from marigold_core.checkpoints.registry import default_checkpoint, family_of
from marigold_core.pipeline.views import VIEWS, most_members
from marigold_core.settings import PRESETS, Settings, Views, bounds, default, help_text
from marigold_core.ui import text
from marigold_core.ui.events import QUIET, follow
from marigold_core.ui.offered_checkpoints import checkpoint_choices

DEFAULT_PRESET = "balanced"
OWN_RESOLUTION = "own"  # a drop-down has no choice for None
RESOLUTIONS_PX = (256, 384, 512, 768, 1024)
PRESET_FIELDS = ("num_inference_steps", "ensemble_size", "views", "tiles_per_side", "follow_outlines")
PRESET_VALUES_JS = json.dumps(
    {name: [getattr(Settings(**values), field) for field in PRESET_FIELDS] for name, values in PRESETS.items()}
)
# The row never shows a preset whose values do not apply, whoever has set them.
MATCHING_PRESET_JS = f"""(...chosen) => Object.entries({PRESET_VALUES_JS})
  .find(([, values]) => values.every((value, place) => value === chosen[place]))?.[0] ?? null"""
OFFERED_PX = (*RESOLUTIONS_PX, 0)  # 0: the photo's own size


@dataclass(frozen=True)
class SettingsInputs:
    """The widgets of ``Settings``, the checkpoint and the preset."""

    steps: gr.Slider
    members: gr.Slider
    resolution: gr.Dropdown
    seed: gr.Number
    views: gr.Dropdown
    tiles: gr.Slider
    outlines: gr.Checkbox
    decoder: gr.Dropdown
    checkpoint: gr.Dropdown
    preset: gr.Radio

    @property
    def values(self) -> list[Component]:
        """What an event lists as inputs."""
        return [
            self.steps,
            self.members,
            self.resolution,
            self.seed,
            self.views,
            self.tiles,
            self.outlines,
            self.decoder,
            self.checkpoint,
        ]

    def follow_checkpoint(self, page: gr.Blocks) -> None:
        """Fit the widgets to the checkpoint at the page's beginning, and whenever it or the views change."""
        given, fitted = [self.checkpoint, self.views], [self.steps, self.members, self.seed, self.preset]
        changes = [page.load, self.checkpoint.change, self.views.change]
        follow(changes, fit_to_checkpoint, given, fitted, edited=[*given, self.steps, self.members], js=limit_js())

    def read(self, values: Mapping[Component, Any]) -> Settings:
        """Make ``Settings`` from what the widgets hold. Raises: SettingsError."""
        return Settings(
            num_inference_steps=values[self.steps],
            ensemble_size=values[self.members],
            processing_resolution=chosen_px(values[self.resolution]),
            seed=values[self.seed],
            views=values[self.views],
            tiles_per_side=values[self.tiles],
            follow_outlines=values[self.outlines],
            decoder=values[self.decoder],
        )

    def restored(self, asked: Settings, checkpoint: str) -> dict[Component, object]:
        """Show settings in the widgets; what they do not offer leaves them as they are."""
        steps, pixels = asked.num_inference_steps, asked.processing_resolution
        update: dict[Component, object] = {
            self.members: asked.ensemble_size,
            self.seed: asked.seed,
            self.views: asked.views,
            self.tiles: asked.tiles_per_side,
            self.outlines: asked.follow_outlines,
            self.decoder: asked.decoder,
            self.checkpoint: checkpoint,
        }
        if steps is not None:
            update[self.steps] = steps
        if pixels is None:
            update[self.resolution] = OWN_RESOLUTION
        elif pixels in OFFERED_PX:
            update[self.resolution] = pixels
        return update


def chosen_px(resolution: int | str) -> int | None:
    """Read the choice of ``draw_resolution``; None is the checkpoint's own."""
    return resolution if isinstance(resolution, int) else None


def draw_resolution(elem_id: str) -> gr.Dropdown:
    """Draw the choice of how large the network sees a photo; ``chosen_px`` reads it."""
    return gr.Dropdown(
        [
            (text.RESOLUTION_OWN, OWN_RESOLUTION),
            *((f"{px} px", px) for px in RESOLUTIONS_PX),
            (text.RESOLUTION_NATIVE, 0),
        ],
        value=OWN_RESOLUTION,
        label=text.RESOLUTION,
        info=text.RESOLUTION_INFO,
        min_width=140,
        elem_id=elem_id,
    )


def draw_views(elem_id: str, value: Views) -> gr.Dropdown:
    """Draw the choice of what the members see."""
    choices = [(label, name) for name, label in text.VIEWS.items()]
    return gr.Dropdown(choices, value=value, label=text.VIEWS_LABEL, info=_info("views"), elem_id=elem_id)


def draw_presets(value: str = DEFAULT_PRESET, elem_id: str | None = None) -> gr.Radio:
    """Draw the presets."""
    choices = [(label, name) for name, label in text.PRESETS.items()]
    return gr.Radio(choices, value=value, label=text.PRESET, show_label=False, elem_id=elem_id, elem_classes="preset")


def draw_checkpoint(elem_classes: str | None = None) -> gr.Dropdown:
    """Draw the choice of a checkpoint."""
    choices = checkpoint_choices()
    return gr.Dropdown(choices, value=default_checkpoint(), label=text.CHECKPOINT, elem_classes=elem_classes)


def preset_settings(preset: str | None, checkpoint: str) -> Settings:
    """Make the settings of a preset; a checkpoint of one step has none but its own."""
    return Settings() if family_of(checkpoint).one_step else Settings(**PRESETS.get(preset or "", {}))


def draw_effort() -> tuple[gr.Slider, gr.Slider, gr.Radio]:
    """Draw what a run's time goes into -> denoising steps, ensemble size, and the presets."""
    chosen = Settings(**PRESETS[DEFAULT_PRESET])
    with gr.Column(elem_id="effort"):
        preset = draw_presets(elem_id="preset")
        steps = _slider("num_inference_steps", text.STEPS, chosen.num_inference_steps)
        members = _slider("ensemble_size", text.MEMBERS, chosen.ensemble_size)
    return steps, members, preset


def draw_settings(effort: tuple[gr.Slider, gr.Slider, gr.Radio]) -> SettingsInputs:
    """Draw the fold with all other settings, and tie them to the presets; ranges and help come from ``Settings``."""
    steps, members, preset = effort
    chosen = Settings(**PRESETS[DEFAULT_PRESET])
    with gr.Accordion(text.ADVANCED, open=False, elem_id="settings"):
        with gr.Row():
            resolution = draw_resolution("resolution")
            low, high = bounds(Settings, "seed")
            seed = gr.Number(
                default(Settings, "seed"),
                precision=0,
                minimum=low,
                maximum=high,
                label=text.SEED,
                info=_info("seed"),
                min_width=140,
            )
        views = draw_views("members-see", chosen.views)
        tiles = _slider("tiles_per_side", text.TILES, chosen.tiles_per_side)
        outlines = gr.Checkbox(
            chosen.follow_outlines, label=text.OUTLINES, info=_info("follow_outlines"), elem_id="outlines"
        )
        decoder = gr.Dropdown(
            [(label, name) for name, label in text.DECODERS.items()],
            value=chosen.decoder,
            label=text.DECODER,
            info=_info("decoder"),
            visible=bool(os.environ.get("MARIGOLD_TINY_AUTOENCODER")),  # without one there is nothing to choose
            elem_id="decoder",
        )
        checkpoint = draw_checkpoint()
    # In the browser, so that no run can begin with the values of the preset before, and no late answer takes away the
    # preset that was chosen since.
    parts = [steps, members, views, tiles, outlines]  # as PRESET_FIELDS
    preset.input(None, preset, parts, js=f"(name) => ({PRESET_VALUES_JS})[name]", **QUIET)
    for part in parts:
        part.change(None, parts, preset, js=MATCHING_PRESET_JS, **QUIET)
    return SettingsInputs(steps, members, resolution, seed, views, tiles, outlines, decoder, checkpoint, preset)


def limit_js() -> str:
    """Write what lowers steps and members to the most that mean something, of checkpoint, views, steps and members."""
    families = {name: family_of(name) for _, name in checkpoint_choices()}
    limits = {
        name: [1 if family.one_step else None, {views: most_members(family, views) for views in VIEWS}]
        for name, family in families.items()
    }
    return f"""(checkpoint, views, ...asked) => {{
      const [steps, members] = ({json.dumps(limits)})[checkpoint] ?? [null, {{}}];
      return [undefined, undefined, ...[steps ?? Infinity, members[views] ?? Infinity].map((most, place) =>
        asked[place] > most ? most : undefined)];
    }}"""


def fit_to_checkpoint(checkpoint: str, views: Views) -> tuple[gr.Slider, gr.Slider, gr.Number, gr.Radio]:
    """Leave open only what means something for a checkpoint -> steps, members, seed and presets, without values."""
    family = family_of(checkpoint)
    most = most_members(family, views)
    about_steps = text.ONE_STEP if family.one_step else _info("num_inference_steps")
    return (
        gr.Slider(interactive=not family.one_step, info=about_steps),
        gr.Slider(
            maximum=max(2, most),  # a slider needs two ends
            interactive=most > 1,
            info=text.SAME_MEMBERS if family.deterministic else _info("ensemble_size"),
        ),
        gr.Number(interactive=not family.deterministic),
        gr.Radio(visible=not family.one_step),
    )


def _slider(name: str, label: str, value: int | None) -> gr.Slider:
    low, high = bounds(Settings, name)
    return gr.Slider(low, high, value=value, step=1, precision=0, label=label, info=_info(name))


def _info(name: str) -> str:
    return text.capital(help_text(Settings, name))
