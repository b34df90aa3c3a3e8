"""Gradio's client for JavaScript: it lists, calls, is refused, cancels and calls again."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


def test_a_javascript_program_calls_is_refused_cancels_and_calls_again(url: str, picture: Path, tmp_path: Path) -> None:
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        pytest.skip("needs Node.js")
    command = [npm, "install", "--no-fund", "--no-audit", "@gradio/client@2"]
    if subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=120).returncode:
        pytest.skip("needs a registry of npm packages")
    shutil.copy(Path(__file__).with_name("client.mjs"), tmp_path)
    done = subprocess.run(
        [node, "client.mjs", url, str(picture)], cwd=tmp_path, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert {"/predict_depth", "/build_mesh", "/calibrate", "/import_depth", "/compare"} <= set(told["names"])
    assert told["manifest"]["settings"]["num_inference_steps"] == 2
    assert told["bytes"] == 128 + 4 * told["manifest"]["photo"]["width"] * told["manifest"]["photo"]["height"]
    assert "num_inference_steps must be a valid integer, but got 4.7." in told["refusal"]
    assert 2 <= told["seen"] < 10 and told["after"] == 1  # what was on its way still comes
