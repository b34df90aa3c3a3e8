"""Two processes behind one address: a visitor stays with one, and the other one has the results when it ends."""

import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from tests.helpers.app_server import ROOT, serve
from tests.ui.test_load import Pupil

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/bin")

pytestmark = [pytest.mark.slow, pytest.mark.skipif(NGINX is None, reason="needs nginx")]


@contextmanager
def proxy(folder: Path, pages: list[str]) -> Iterator[str]:
    """Run nginx as CONTRIBUTING says, with these pages behind it -> its address."""
    text = (ROOT / ".github" / "CONTRIBUTING.md").read_text()
    site = text.partition("```nginx\n")[2].partition("```")[0]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for given, page in zip(("127.0.0.1:7861", "127.0.0.1:7862"), pages, strict=True):
        site = site.replace(given, page.removeprefix("http://"))
    site = site.replace("listen 7860", f"listen 127.0.0.1:{port}")
    folder.mkdir()
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in kinds)
    main = f"daemon off; master_process off; pid {folder}/pid; error_log {folder}/log; events {{}}\n"
    (folder / "nginx.conf").write_text(f"{main}http {{ access_log off;\n{paths}{site}}}\n")
    assert NGINX is not None
    server = subprocess.Popen([NGINX, "-p", folder, "-c", folder / "nginx.conf"], stderr=subprocess.DEVNULL)
    try:
        with httpx.Client(transport=httpx.HTTPTransport(retries=5)) as web:
            web.get(f"http://127.0.0.1:{port}/")
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(20)


def test_a_visitor_is_served_by_both_and_loses_no_result(tiny_depth: Path, tmp_path: Path) -> None:
    with ExitStack() as first, ExitStack() as second:
        pages = [one.enter_context(serve(str(tiny_depth), tmp_path)) for one in (first, second)]
        with proxy(tmp_path / "nginx", pages) as address:
            visitor = Pupil(address, 1)
            visitor.web.get("/")
            assert re.fullmatch("[0-9a-f]{32}", visitor.web.cookies["visitor"])
            assert visitor._ask() == visitor.width  # queue and events are in one process
            file = next((tmp_path / "work" / "results").rglob("depth.npy"))
            path = f"/gradio_api/file={file}"
            assert re.search("/results/[0-9a-f]{32}/[0-9a-f]{8}/depth.npy$", path)
            got = [httpx.get(f"{page}{path}") for page in (*pages, address)]
            assert {one.status_code for one in got} == {200} and {one.content for one in got} == {file.read_bytes()}
            assert httpx.get(f"{address}/gradio_api/file={file.parents[2]}").status_code >= 400  # no list of results
            cookie = visitor.web.cookies["visitor"]
            first.close()
            assert visitor.web.get(path).content == got[0].content
            assert visitor._ask() == visitor.width
            assert visitor.web.cookies["visitor"] == cookie
            visitor.web.close()
