"""What the server keeps of a visit: values of its state, and no copy of the page."""

import asyncio
from typing import Any

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
    visit[words._id] = changed = gr.Textbox("after", render=False)
    assert visit.blocks_config.blocks[words._id] is changed and visits["b"].blocks_config.blocks[words._id] is words
    held: Any = visit.blocks_config
    assert (len(held.blocks.maps[0]), len(held.fns.maps[0])) == (1, 0)  # all else is the page's own
    assert [*visit.components] == [] and len(visit.config_values) == 0
