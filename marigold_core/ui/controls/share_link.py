"""A link to this page as it is set: settings and example in its query, under the names of ``Settings``.

It carries no photo of a visitor and no folder of the server, and nothing is stored for it, so it lasts as long as the
page does. What comes in through a link is checked like any other value, and never starts the model by itself.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urlencode

import gradio as gr

from marigold_core.checkpoints.registry import NAMED, default_checkpoint
from marigold_core.errors import MarigoldError, SettingsError
from marigold_core.files import examples
from marigold_core.serving.hosting import check_checkpoint
from marigold_core.settings import PRESETS, Settings
from marigold_core.ui import text
from marigold_core.ui.controls.examples import ExampleGallery
from marigold_core.ui.controls.settings import DEFAULT_PRESET, OFFERED_PX, SettingsInputs
from marigold_core.ui.error_messages import translate_errors
from marigold_core.ui.events import FOLLOWING, LAST, NO_CHANGE, QUIET, follow, on
from marigold_core.ui.run_controller import RunController, Update, Values, button_note

FIELDS = tuple(name for name in Settings.model_fields if name != "batch_size")  # which changes no result
CHECKPOINT, EXAMPLE = "checkpoint", "example"
COPY_JS = f"""async (query) => {{
  const link = location.origin + location.pathname + query;
  try {{ await navigator.clipboard.writeText(link); return [link, {json.dumps(button_note(text.LINK_COPIED))}]; }}
  catch {{ return [link, {json.dumps(button_note(text.LINK_SHOWN))}]; }}
}}"""


@dataclass(frozen=True)
class PageState:
    """What a link brings back."""

    settings: Settings
    checkpoint: str
    example: str | None


def write(state: PageState) -> str:
    """Write the query of a link; a checkpoint without a short name is known on this machine alone and left out."""
    words = {name: getattr(state.settings, name) for name in FIELDS}
    words[CHECKPOINT] = state.checkpoint if state.checkpoint in NAMED else None
    words[EXAMPLE] = state.example
    return "?" + urlencode({name: value for name, value in words.items() if value is not None})


def read(query: Mapping[str, str]) -> PageState | None:
    """Read the query of a link -> what it asks for, with defaults for the rest; None when it names nothing of ours.

    Raises: SettingsError, CheckpointError for values that the page does not offer.
    """
    if not query.keys() & {*FIELDS, CHECKPOINT, EXAMPLE}:
        return None
    given: dict[str, Any] = {name: _value(query[name]) for name in FIELDS if name in query}
    asked = Settings(**{**PRESETS[DEFAULT_PRESET], **given})
    if asked.processing_resolution not in (None, *OFFERED_PX):
        raise _unknown("processing_resolution", asked.processing_resolution, map(str, OFFERED_PX))
    example = query.get(EXAMPLE)
    if example not in (None, *examples.NAMES):
        raise _unknown(EXAMPLE, example, examples.NAMES)
    return PageState(asked, check_checkpoint(query.get(CHECKPOINT, default_checkpoint())), example)


class ShareLink:
    """The button that makes a link, and the page's beginning, which follows one."""

    def __init__(self, controller: RunController, inputs: SettingsInputs, gallery: ExampleGallery) -> None:
        """Draw the button and the field that the link appears in."""
        self.controller, self.inputs, self.gallery = controller, inputs, gallery
        with gr.Row(elem_classes="take"):
            self.button = gr.Button(text.LINK, size="sm", scale=0, elem_id="link")
            self.note = gr.HTML(button_note(text.LINK_USE))
        self.address = gr.Textbox(label=text.LINK_ADDRESS, visible=False, elem_id="link-address")

    def listen(self) -> None:
        """Make a link when the button is pressed; the browser knows the page's address and has the clipboard."""
        linked: list[Any] = [self.controller.photo, *self.inputs.values]
        made = on(self.button.click, self.compose, {*linked}, self.address)
        given, shown = {self.address, *linked}, [self.address, self.note]
        copied = made.success(None, self.address, shown, js=COPY_JS)
        # A press that came before news of the photo or a setting is answered after them; the field that the link has
        # just appeared in does not always tell that it changed.
        copied.then(self.renew, given, shown, **LAST, **FOLLOWING, **QUIET)
        follow([widget.change for widget in linked], self.renew, given, shown)

    def compose(self, values: Values) -> gr.Textbox:
        """Write the query of the settings that are in place."""
        with translate_errors():
            return gr.Textbox(self._query(values), visible=True)

    def renew(self, values: Values) -> Update:
        """Keep the link that is shown that of the page as it is now; without valid settings there is none."""
        link = values[self.address]
        if not link or link.startswith("?"):  # none, or one that the browser has still to make whole
            return {self.address: NO_CHANGE}
        try:
            now = link.partition("?")[0] + self._query(values)
        except MarigoldError:
            return {self.address: gr.Textbox("", visible=False), self.note: button_note(text.LINK_USE)}
        return {self.address: NO_CHANGE} if now == link else {self.address: now, self.note: button_note(text.LINK_NEW)}

    def _query(self, values: Values) -> str:
        example = self.gallery.name_of(values[self.controller.photo])
        return write(PageState(self.inputs.read(values), values[self.inputs.checkpoint], example))

    def on_load(self, values: Values, request: gr.Request) -> Update:
        """Begin with what the page's address asks for, else with the first example, unless a visitor was faster."""
        if not values[self.controller.current].is_new:
            return {self.controller.status: NO_CHANGE}
        query = dict(cast(Mapping[str, str], cast(Any, request).query_params))
        return self.controller.pick(lambda: self._begin(query, values), values)

    def _begin(self, query: Mapping[str, str], values: Values) -> Update:
        first = examples.NAMES[0]
        try:
            state = read(query)
        except MarigoldError as error:
            return self.gallery.show(first, values, text.LINK_REFUSED.format(reason=error))
        if state is None:
            return self.gallery.show(first, values)
        photo = self.gallery.fill(state.example, values) if state.example else {}
        shown = self.gallery.show(state.example or first, values, text.LINK_RESTORED)
        return {**self.inputs.restored(state.settings, state.checkpoint), **photo, **shown}


def _value(word: str) -> int | bool | str:
    """Read a whole number or a truth value; any other word is left to ``Settings``."""
    try:
        return int(word)
    except ValueError:
        return {"True": True, "False": False}.get(word, word)


def _unknown(name: str, value: object, known: Iterable[str]) -> SettingsError:
    return SettingsError(text.UNKNOWN_VALUE.format(name=name, value=value, known=", ".join(known)))
