"""The queues in which events wait, and what all of the page's own events have in common.

Every event goes through the queue, also the quick ones: the other way in is the route that skips it, which is shut.
"""

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Literal, TypedDict

import gradio as gr
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


MAX_WAITING = 256  # events of all visitors; more are refused
# The line itself is the service's, which tells each job its place; more than these wait before it and are told nothing.
MODEL = Queue(concurrency_id="model", concurrency_limit=32)
LIGHT = Queue(concurrency_id="light", concurrency_limit=4)  # colours, files: beside whatever the model does
SHAPING = Queue(concurrency_id="shaping", concurrency_limit=1)  # shapes: each event finds what the one before it left
MARKING = Queue(concurrency_id="marking", concurrency_limit=1)  # points and hints: the same

QUIET = PrivateEvent(api_visibility="private", show_progress="hidden")
SHOWN = PrivateEvent(api_visibility="private", show_progress="minimal")

# Of what ends a job under way: by default the browser skips a click for as long as the one before is pending.
REPEATED: dict[str, Any] = {"trigger_mode": "multiple"}

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


def download(event: Dependency, link: str) -> None:
    """Let the browser follow the hidden link of this id after an event that has set its address."""
    # The address is drawn a moment after the event.
    click = f"document.querySelector('#{link} a, a#{link}, #{link}')?.click()"
    event.success(None, js=f"() => setTimeout(() => {click}, 60)")
