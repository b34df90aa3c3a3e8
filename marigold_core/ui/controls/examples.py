"""The example photos: a result at the first click, made beforehand."""

import filecmp
from functools import partial
from pathlib import Path
from typing import Any, cast

import gradio as gr

from marigold_core.files import examples
from marigold_core.ui import text
from marigold_core.ui.error_messages import translate_errors
from marigold_core.ui.events import REPEATED, on
from marigold_core.ui.pictures import file_value
from marigold_core.ui.run_controller import RunController, Update, Values


def draw_examples(elem_id: str) -> gr.Dataset:
    """Draw the example photos to pick from; the value is the index of one."""
    return gr.Dataset(
        components=[gr.Image(render=False)],
        samples=[[str(path)] for path in examples.photos()],
        label=text.EXAMPLES,
        type="index",
        samples_per_page=12,
        elem_id=elem_id,
    )


def example_files(gallery: gr.Dataset) -> list[dict[str, Any]]:
    """List the page's own copies of the examples, each the value of a photo input as the browser has it.

    They stay for as long as the page is served.
    """
    return [file_value(Path(sample["path"])) for (sample,) in cast(Any, gallery).samples]


class ExampleGallery:
    """Pictures to pick from; each brings its photo and its stored result."""

    def __init__(self, controller: RunController) -> None:
        """Draw the pictures."""
        self.controller = controller
        self.pictures = draw_examples("examples")

    def listen(self) -> None:
        """Show a picture's result when it is picked."""
        given = {self.pictures, *self.controller.inputs}
        picked = on(self.pictures.click, self.on_pick, given, self.controller.outputs, **REPEATED)
        self.controller.after(picked)

    def on_pick(self, values: Values) -> Update:
        """Put an example photo into the input and its stored result on show."""
        index: int = values[self.pictures]
        name = examples.NAMES[index]
        return self.controller.pick(lambda: {**self.fill(name, values), **self.show(name, values)}, values)

    def fill(self, name: str, values: Values) -> Update:
        """Put an example photo into the input."""
        file = example_files(self.pictures)[examples.NAMES.index(name)]["path"]
        return self.controller.fill_photo(file, values)

    def show(self, name: str, values: Values, before: str = "") -> Update:
        """Show the stored result of an example; ``before`` comes ahead of the sentence about it."""
        with translate_errors():
            prediction = examples.load_result(examples.FOLDER / f"{name}.jpg")
            sentence = before + text.EXAMPLE.format(name=prediction.checkpoint)
            return self.controller.show_result(prediction, sentence, values)

    @staticmethod
    def name_of(photo: str | None) -> str | None:
        """Name the example that a photo file is a copy of, None for any other."""
        if photo is None:
            return None
        same = partial(filecmp.cmp, photo, shallow=False)  # sizes first, then bytes
        return next((path.stem for path in examples.photos() if same(path)), None)
