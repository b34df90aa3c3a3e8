"""A public checkpoint from the hub, chosen by a person: its download is followed, it runs, and a replay equals it."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from marigold_core.checkpoints.hub import CONFIG_FILES
from marigold_core.checkpoints.registry import NAMED
from tests.browser.test_files_page import DROP_JS, take
from tests.helpers.app_server import in_chromium, looking, serve, unfold, upload
from tests.helpers.fake_hub import FakeHub

pytestmark = in_chromium

PUBLIC = NAMED["v1-1"]


@pytest.fixture
def hub(tiny_depth: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub with random weights under the public id, which falls silent in the middle of the first weights."""
    hub = FakeHub()
    assert PUBLIC.hub_id is not None
    hub.folders[PUBLIC.hub_id] = tiny_depth
    names = [path.relative_to(tiny_depth).as_posix() for path in tiny_depth.rglob("*")]
    configurations = sum(1 for name in names if CONFIG_FILES.fullmatch(name))
    hub.pause_at = 1 + 2 * configurations + 2  # the listing, then head and body of each file
    for name, value in {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "hf")}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield hub
    hub.close()


@pytest.fixture
def visit(browser: Browser, hub: FakeHub, tiny_depth: Path, tmp_path: Path) -> Iterator[Page]:
    with serve(str(tiny_depth), tmp_path) as address:
        context = browser.new_context(viewport={"width": 1280, "height": 860}, accept_downloads=True)
        with looking(context, address) as page:
            yield page


def test_a_public_checkpoint_is_downloaded_run_and_run_again(
    visit: Page, hub: FakeHub, picture: Path, tmp_path: Path
) -> None:
    unfold(visit, visit.locator("#settings button").first)
    visit.get_by_label("Checkpoint").first.click()
    visit.get_by_role("option", name="v1-1 (downloads 2.6 GB)").click()
    visit.locator("#cost").get_by_text("2.6 GB are downloaded, once").wait_for()
    assert hub.requests == []  # nothing before the person asks for a run
    upload(visit, picture)
    visit.locator("#status").get_by_text("Downloading the checkpoint").wait_for()
    hub.released.set()
    visit.locator("#status").get_by_text("v1-1").wait_for()
    asked = len(hub.requests)

    visit.get_by_role("tab", name="Files").click()
    manifest = take(visit, "Manifest", tmp_path)
    record = json.loads(manifest.read_text())
    assert record["checkpoint"] == "v1-1"
    visit.get_by_role("tab", name="Depth").click()
    visit.evaluate(DROP_JS, [manifest.name, manifest.read_text()])
    visit.locator("#status").get_by_text("Made again. Same bytes").wait_for()
    assert len(hub.requests) == asked
