"""The queues in which events wait, and what all of the page's own events have in common.

Every event goes through the queue, also the quick ones: the other way in is the route that skips it, which is shut.
"""

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Literal, TypedDict

import gradio as gr
from gradio.blocks import Block
from gradio.components import Component
from gradio.events import Dependency


class Queue(TypedDict):
    """A queue of waiting events: one name, and how many of them run at once."""

    concurrency_id: str
    concurrency_limit: int


class PrivateEvent(TypedDict):
    """An event of the page: no endpoint for others, and how its outputs show that it runs."""

    api_visibility: Literal["private"]
    show_progress: Literal["minimal", "hidden"]


MAX_WAITING = 256  # jobs of all visitors that wait for a place before the model; more are refused
MAX_EVENTS = 2 * MAX_WAITING  # with the quick events of pages, such as Stop, which a full line does not refuse
# The line itself is the service's, which tells each job its place; more than these wait before it and are told nothing.
MODEL = Queue(concurrency_id="model", concurrency_limit=32)
LONG = Queue(concurrency_id="long", concurrency_limit=16)  # jobs of minutes or hours, which leave those places free
MODEL_QUEUES = {queue["concurrency_id"]: queue["concurrency_limit"] for queue in (MODEL, LONG)}
LIGHT = Queue(concurrency_id="light", concurrency_limit=4)  # colours, files: beside whatever the model does
SHAPING = Queue(concurrency_id="shaping", concurrency_limit=1)  # shapes: each event finds what the one before it left
MARKING = Queue(concurrency_id="marking", concurrency_limit=1)  # points and hints: the same
FOLLOWING = Queue(concurrency_id="following", concurrency_limit=1)  # quick answers, in the order of the changes

QUIET = PrivateEvent(api_visibility="private", show_progress="hidden")
SHOWN = PrivateEvent(api_visibility="private", show_progress="minimal")

# By default the browser skips an event for as long as the one before is pending, which suits a double click alone.
REPEATED: dict[str, Any] = {"trigger_mode": "multiple"}
LAST: dict[str, Any] = {"trigger_mode": "always_last"}  # once more in the end; of what comes after another event alone

_gradio: Any = gr  # partly untyped
NO_CHANGE: object = _gradio.skip()  # as the value of an output


def on(
    triggers: Callable[..., Any] | Sequence[Callable[..., Any]],
    handler: Callable[..., Any] | None,
    inputs: Component | Sequence[Component] | AbstractSet[Component] | None,
    outputs: Component | Sequence[Component] | None,
    queue: Queue = LIGHT,
    *,
    shown: bool = False,
    **options: Any,
) -> Dependency:
    """Call a handler at events of the page, by default in the light queue and without a sign that it runs.

    A set of inputs makes Gradio call the handler with one mapping from widget to value, ``run_controller.Values``.
    ``options`` are those of ``gr.on``.
    """
    return _gradio.on(triggers, handler, inputs, outputs, **queue, **(SHOWN if shown else QUIET), **options)


def follow(
    changes: Callable[..., Any] | Sequence[Callable[..., Any]],
    handler: Callable[..., Any],
    inputs: Component | Sequence[Component] | AbstractSet[Component] | None,
    outputs: Component | Sequence[Component] | None,
    queue: Queue = FOLLOWING,
    *,
    shown: bool = False,
    edited: Sequence[Component] | None = None,
    js: str = "() => []",
) -> Dependency:
    """Call a handler after changes: at once, and while it still answers an earlier one once more in the end.

    What changes in widgets that a visitor edits is written by the browser before, as a late answer would take back
    what was edited since: ``js`` maps the values of ``edited`` to new ones, undefined where one stays.
    """
    # An event of the browser's own between the two: where a handler of a widget's event is put off, Gradio repeats all
    # that this event has, and two of them would repeat each other for ever.
    changed = _gradio.on(changes, None, edited, edited, js=js, **QUIET)
    return changed.then(handler, inputs, outputs, **LAST, **queue, **(SHOWN if shown else QUIET))


def one_of_many(update: Mapping[Component, Any]) -> dict[Component, Any]:
    """Wrap the values that reach the browser as objects, such as files, in an update that an event does not end with.

    The browser makes the update after it by editing the objects of this one, also where a widget already holds them as
    its value: a photo would lose its path with the next update that leaves the photo as it is.
    """
    return {
        widget: _gradio.update(value=value) if _is_object(widget) and not _is_whole(value) else value
        for widget, value in update.items()
    }


def _is_object(widget: Component) -> bool:
    return getattr(widget, "data_model", None) is not None


def _is_whole(value: object) -> bool:
    return value is None or isinstance(value, (Block, dict))  # an update already


def draw_file() -> gr.DownloadButton:
    """Make the place of a file for ``download``; nothing is seen of it."""
    return gr.DownloadButton(visible=False)


def download(event: Dependency, file: Component) -> None:
    """Let the browser download a file after the event that has put it into its place, which no other event uses."""
    event.success(
        None,
        file,
        None,
        js="""({ url, orig_name }) => {
          const link = Object.assign(document.createElement("a"), { href: url, download: orig_name });
          document.body.append(link);
          link.click();
          link.remove();
          return [];
        }""",
        **QUIET,
    )
