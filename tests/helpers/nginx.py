"""A proxy before several processes of the page, as CONTRIBUTING describes it."""

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.helpers.app_server import ROOT, free_port

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/bin")

needs_nginx = pytest.mark.skipif(NGINX is None, reason="needs nginx")


@contextmanager
def proxy(folder: Path, pages: Sequence[str]) -> Iterator[str]:
    """Run nginx as CONTRIBUTING says, with these pages behind it -> its address.

    Its answers name the page that gave them in a header, ``x-page``.
    """
    text = (ROOT / ".github" / "CONTRIBUTING.md").read_text()
    site = text.partition("```nginx\n")[2].partition("```")[0]
    port = free_port()
    for given, page in zip(("127.0.0.1:7861", "127.0.0.1:7862"), pages, strict=True):
        site = site.replace(given, page.removeprefix("http://"))
    site = site.replace("listen 7860", f"listen 127.0.0.1:{port}")
    site = site.replace("proxy_buffering", "add_header X-Page http://$upstream_addr;\n        proxy_buffering")
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
