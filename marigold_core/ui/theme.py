"""Colours and type of the page: system fonts and local files, nothing from elsewhere."""

from typing import Any

from gradio import themes

from marigold_core.storage import ASSETS

CSS = ASSETS / "app.css"
FAVICON = ASSETS / "favicon.png"

# The 3D viewer tries WebGPU wherever it is announced and fails loudly where no adapter is; WebGL draws the same.
HEAD = (
    "<script>delete Navigator.prototype.gpu</script>"
    # Gradio's sign of loading stands still while the page grows beneath it; the page's own style comes too late.
    "<style>.gradio-container .main > .wrap.full { position: fixed !important; }</style>"
)

_SANS = ("ui-sans-serif", "system-ui", "-apple-system", "Segoe UI", "Helvetica Neue", "Arial", "sans-serif")
_MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")


def script(*names: str) -> str:
    """Read scripts of ``assets/`` as one."""
    return "".join((ASSETS / name).read_text(encoding="utf-8") for name in names)


def theme() -> themes.Base:
    """Make the theme, light and dark."""
    base: Any = themes.Base(
        primary_hue=themes.colors.teal,
        neutral_hue=themes.colors.slate,
        radius_size=themes.sizes.radius_lg,
        font=[themes.Font(name) for name in _SANS],
        font_mono=[themes.Font(name) for name in _MONO],
    )
    return base.set(  # partly untyped
        body_background_fill="#f5f7f9",
        body_background_fill_dark="#0d1117",
        body_text_color_subdued="#586474",
        body_text_color_subdued_dark="#9aa5b4",
        block_title_text_color="#586474",
        block_title_text_color_dark="#d5dbe3",
        block_info_text_color="#586474",
        block_info_text_color_dark="#9aa5b4",
        block_background_fill="white",
        block_background_fill_dark="#161b22",
        block_border_color="#e3e8ee",
        block_border_color_dark="#262d37",
        block_shadow="none",
        button_primary_background_fill="#0f766e",
        button_primary_background_fill_hover="#115e59",
        button_primary_background_fill_dark="#0f766e",
        button_primary_background_fill_hover_dark="#115e59",
        button_primary_text_color="white",
    )
