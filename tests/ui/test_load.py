"""A class behind one router: everybody's jobs are done, each its own, and who waits is told for how long."""

import json
import os
import re
import threading
from collections import Counter
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.helpers.app_server import serve

pytestmark = pytest.mark.slow

CLIENTS, JOBS = 32, int(os.environ.get("JOBS", "2"))  # JOBS=6 is the class that the issue of refusals was seen with
WAITING = re.compile(r"waiting: \d+ jobs? (is|are) before this one, about")


@pytest.fixture(scope="module")
def school(tiny_depth: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serve(str(tiny_depth), tmp_path_factory.mktemp("school")) as address:
        yield address


class Pupil:
    """One client: uploads a photo of its own width, and asks for its depth again and again."""

    def __init__(self, address: str, number: int) -> None:
        self.web = httpx.Client(base_url=address, timeout=300)
        self.width = 32 + 8 * number
        self.answers: list[int | str] = []  # widths of the results, or what went wrong
        self.stages = Counter[str]()

    def work(self) -> None:
        for _ in range(JOBS):
            try:
                self.answers.append(self._ask())
            except (httpx.HTTPError, KeyError, AssertionError) as fault:
                self.answers.append(repr(fault))
        self.web.close()

    def _ask(self) -> int:
        picture = BytesIO()
        Image.new("RGB", (self.width, 40), (self.width, 90, 120)).save(picture, "PNG")
        uploaded = self.web.post("/gradio_api/upload", files={"files": ("a.png", picture.getvalue())})
        assert uploaded.status_code == 200, uploaded.text
        photo = {"path": uploaded.json()[0], "meta": {"_type": "gradio.FileData"}}
        parameters = self.web.get("/gradio_api/info").json()["named_endpoints"]["/predict_depth"]["parameters"]
        given: dict[str, Any] = {
            "photo": photo,
            "num_inference_steps": 1,
            "processing_resolution": 64,
            "formats": ["npy"],
        }
        data = [given.get(one["parameter_name"], one.get("parameter_default")) for one in parameters]
        joined = self.web.post("/gradio_api/call/predict_depth", json={"data": data})
        assert joined.status_code == 200, joined.text
        events = self.web.get(f"/gradio_api/call/predict_depth/{joined.json()['event_id']}").text.split("\n\n")
        self.stages.update("waiting" for event in events if WAITING.search(event))
        name, _, content = events[-2].partition("\ndata: ")
        assert name == "event: complete", events[-2]
        return json.loads(content)[0]["manifest"]["photo"]["width"]


def test_a_class_behind_one_address_loses_no_job_and_mixes_up_none(school: str) -> None:
    pupils = [Pupil(school, number) for number in range(CLIENTS)]
    threads = [threading.Thread(target=pupil.work) for pupil in pupils]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [pupil.answers for pupil in pupils] == [[pupil.width] * JOBS for pupil in pupils]
    assert sum(pupil.stages["waiting"] for pupil in pupils) > 0
