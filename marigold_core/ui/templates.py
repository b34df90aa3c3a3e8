"""The page's own markup: Jinja2 templates in the folder ``templates``, in which every value is escaped."""

from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from marigold_core.ui import text
from marigold_core.ui.text import batch, compare, lens, metres


@cache
def _environment() -> Environment:
    loader = FileSystemLoader(Path(__file__).with_name("templates"))
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


def render(name: str, **values: object) -> str:
    """Fill the template ``templates/<name>.html``, which has the sentences of ``ui.text`` at hand.

    A ``Markup`` goes in as it is, any other value is escaped. What comes out is a ``Markup`` too, so one template's
    result can be a value of another.
    """
    sentences = {"text": text, "batch": batch, "compare": compare, "lens": lens, "metres": metres}
    return Markup(_environment().get_template(f"{name}.html").render(values, **sentences))
