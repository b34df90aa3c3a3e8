"""What the server keeps of a visit: values of its state, and no copy of the page."""

import asyncio

import gradio as gr
from gradio.state_holder import StateHolder

from marigold_core.ui.sessions import Session, keep_little


def test_a_visit_keeps_its_state_and_no_description_of_the_page(monkeypatch) -> None:
    monkeypatch.setattr("gradio.state_holder.SessionState", None)  # what it was comes back afterwards
    keep_little()

    async def draw() -> tuple[gr.Blocks, gr.State, gr.Textbox]:  # in a loop that is closed again
        with gr.Blocks() as page:
            return page, gr.State([]), gr.Textbox("before")

    page, result, words = asyncio.run(draw())
    page.state_session_capacity = 2
    visits = StateHolder()
    visits.set_blocks(page)
    visit = visits["a"]
    assert isinstance(visit, Session)
    visit[result._id] = ["id"]
    visit._update_config(words._id)
    visit._update_value_in_config(words._id, "after")
    assert (visits["a"][result._id], visits["b"][result._id]) == (["id"], [])
    assert [*visit.components] == [] and len(visit.config_values) == 0
