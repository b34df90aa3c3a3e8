"""Renders the page's HTML from ``templates/*.html`` with Jinja2; every value is escaped unless it is ``Markup``."""

from jinja2 import Environment, PackageLoader, StrictUndefined

from marigold_core.ui import text
from marigold_core.ui.text import lab, metres

_ENVIRONMENT = Environment(loader=PackageLoader(__package__), autoescape=True, undefined=StrictUndefined)
_ENVIRONMENT.globals.update(text=text, lab=lab, metres=metres)


def render(name: str, **values: object) -> str:
    """Render one template; all sentences are at hand as ``text``, ``lab`` and ``metres``."""
    return _ENVIRONMENT.get_template(name).render(values)
