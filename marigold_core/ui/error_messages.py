"""From exceptions to what a person reads: our errors as they are, everything else as a reference into the log."""

import logging
import secrets
from collections.abc import Generator
from contextlib import contextmanager

import gradio as gr

from marigold_core.errors import MarigoldError
from marigold_core.ui import text

log = logging.getLogger(__name__)


@contextmanager
def translate_errors() -> Generator[None]:
    """Translate at the edge of a handler. Toasts render markup, so none is let through."""
    try:
        yield
    except gr.Error:
        raise
    except MarigoldError as error:
        raise gr.Error(plain(str(error)), print_exception=False) from None
    except Exception:
        reference = secrets.token_hex(4)
        log.exception("Unexpected error, reference %s", reference)
        raise gr.Error(text.UNEXPECTED.format(reference=reference), print_exception=False) from None


def plain(sentence: str) -> str:
    """Replace the two characters that markup needs; sentences may quote what a person typed."""
    return sentence.replace("<", "‹").replace(">", "›")
