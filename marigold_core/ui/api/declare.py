"""Declares the endpoints on the page, with our photo input, described arguments and a validator."""

import inspect
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import partial
from typing import Any, cast

import gradio as gr
from gradio.components import Component
from gradio.components.api_component import Api
from gradio_client import handle_file  # pyright: ignore[reportMissingTypeStubs]
from gradio_client import utils as client_utils  # pyright: ignore[reportMissingTypeStubs]

from marigold_core.serving.api.answers import Answer
from marigold_core.serving.api.checks import fault
from marigold_core.serving.api.endpoints import ENDPOINTS, PANORAMA, Endpoint
from marigold_core.serving.jobs import Service
from marigold_core.ui.error_messages import plain, translate_errors
from marigold_core.ui.events import MODEL
from marigold_core.ui.photo_input import EXAMPLES, FileInput, draw_photo

_schema: Callable[[type], dict[str, Any]] = cast(Any, client_utils).python_type_to_json_schema


def add_endpoints(page: gr.Blocks, service: Service) -> None:
    """Declare the endpoints on a page that is being drawn."""
    for endpoint in ENDPOINTS:
        _declare(page, endpoint, service)


def _declare(page: gr.Blocks, endpoint: Endpoint, service: Service) -> None:
    """Do what ``gr.api`` does, but with our photo input, described arguments and a validator."""
    inputs: list[Component] = []
    for name, description in endpoint.files.items():
        file = draw_photo(visible=False) if name == "photo" else FileInput(visible=False)
        shown = EXAMPLES["panorama" if description == PANORAMA else name]
        file.example_payload = partial(cast(Any, handle_file), shown)
        file.api_info = partial(dict, file.api_info(), additional_description=description)
        inputs.append(file)
    for argument in endpoint.arguments:
        described = {**argument.schema, "additional_description": argument.description}
        inputs.append(Api(argument.default, described, argument.name))
        if argument.example is not None:  # its value would be taken as a default
            inputs[-1].example_payload = partial(deepcopy, argument.example)

    def check(*values: object) -> list[dict[str, Any]]:
        """Refuse wrong values with one sentence, at the argument that is wrong."""
        given = endpoint.complete(values)
        at, problem = fault(endpoint, given) or ("", "")
        return [gr.validate(name != at, plain(problem)) for name in given]

    config: Any = page.default_config
    config.set_event_trigger(
        [],
        handler(endpoint, service),
        inputs,
        Api(None, _schema(endpoint.result), "result"),
        postprocess=False,
        show_progress="hidden",
        api_name=endpoint.name,
        trigger_mode=None,
        validator=check,
        **MODEL,
    )


def handler(endpoint: Endpoint, service: Service) -> Callable[..., Iterator[Answer]]:
    """Make the function behind an endpoint; Gradio reads names, defaults and descriptions from it, as MCP tools do."""

    def run(*values: object) -> Iterator[Answer]:
        with translate_errors():
            yield from endpoint.answers(service, endpoint.complete(values))

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    needed = [*endpoint.needs, *(one.name for one in endpoint.arguments if one.example is not None)]
    optional = [inspect.Parameter(name, kind, default=None) for name in endpoint.files if name not in needed]
    optional += [
        inspect.Parameter(one.name, kind, default=one.default) for one in endpoint.arguments if one.name not in needed
    ]
    described = [f"{name}: {description}" for name, description in endpoint.files.items()]
    described += [f"{one.name}: {one.description}" for one in endpoint.arguments]
    run.__signature__ = inspect.Signature([*(inspect.Parameter(name, kind) for name in needed), *optional])  # type: ignore[attr-defined]
    run.__name__ = endpoint.name
    run.__doc__ = "\n".join([endpoint.description, "", "Args:", *described])
    return run
