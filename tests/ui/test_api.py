"""The running app over HTTP: the endpoints through Gradio's client, and what raw requests must not get."""

import csv
import json
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import httpx
import numpy as np
import pytest
import trimesh
from gradio_client import Client, handle_file
from gradio_client.exceptions import ValidationError
from PIL import Image

from marigold_core import Settings, load
from marigold_core.comparison.sweep import COLUMNS
from marigold_core.serving.api.endpoints import ENDPOINTS
from marigold_core.ui import text
from marigold_core.video.convert import predict_video
from marigold_core.video.settings import VideoSettings
from tests.helpers.app_server import ROOT
from tests.helpers.clips import scene, write_clip

pytestmark = pytest.mark.slow
EFFECTS = {  # of the endpoints that make something else of depth: what each answers
    "panorama": {"npy", "png16", "color", "glb", "record"},
    "video": {"color", "side_by_side", "table", "record"},
    "parallax": {"clip", "invented"},
    "defocus": {"picture", "invented"},
}


@pytest.fixture(scope="module")
def picture(photo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    Image.fromarray(photo(48, 64)).save(path)
    return path


def test_only_the_photo_is_required(client, picture):
    answer = client.predict(handle_file(picture), api_name="/predict_depth")
    assert set(answer) == {"manifest", "npy", "png16", "color"}
    depth = np.load(answer["npy"])
    assert depth.shape == (48, 64) and depth.dtype == np.float32
    assert 0 <= depth.min() <= depth.max() <= 1
    assert np.asarray(Image.open(answer["png16"])).dtype == np.uint16
    assert answer["manifest"]["settings"]["ensemble_size"] == 1


def test_settings_arrive_and_the_numbers_are_those_of_python(client, picture, tiny_depth):
    settings: dict[str, Any] = {"num_inference_steps": 2, "ensemble_size": 3, "processing_resolution": 64, "seed": 7}
    answer = client.predict(handle_file(picture), **settings, formats=["npy", "uncertainty"], api_name="/predict_depth")
    expected = load(tiny_depth)(picture, Settings(**settings))
    assert expected.uncertainty is not None
    np.testing.assert_allclose(
        np.load(answer["npy"]), expected.values, atol=1e-4
    )  # its threads may add in another order
    np.testing.assert_allclose(np.load(answer["uncertainty_npy"]), expected.uncertainty, atol=1e-4)
    assert {name: answer["manifest"]["settings"][name] for name in settings} == settings


def test_a_mesh_opens_elsewhere(client, picture):
    answer = client.predict(
        handle_file(picture), formats=["glb", "ply"], edge_cut=0.0, fov_x_deg=60, api_name="/build_mesh"
    )
    assert len(trimesh.load_mesh(answer["glb"]).faces) > 100
    assert answer["manifest"]["mesh"]["fov_x_deg"] == 60


def test_what_is_known_gives_metres(client, picture, tiny_depth):
    settings: dict[str, Any] = {"num_inference_steps": 1, "processing_resolution": 64}
    values = load(tiny_depth)(picture, Settings(**settings)).values
    (near_y, near_x), (far_y, far_x) = (divmod(int(at), values.shape[1]) for at in (values.argmin(), values.argmax()))
    known = [[near_x, near_y, 1.5], [far_x, far_y, 4]]
    answer = client.predict(handle_file(picture), anchors=known, formats=["npy"], **settings, api_name="/calibrate")
    depth_m = np.load(answer["npy"])
    assert (depth_m.min(), depth_m.max()) == pytest.approx((1.5, 4), rel=1e-3)
    found = answer["calibration"]
    assert (found["kind"], found["how"]) == ("metric", answer["manifest"]["how"])
    assert found["scale_error"] > 0 and found["shift_error"] > 0
    assert [(one["given"], one["unit"]) for one in found["residuals"]] == [(1.5, "m"), (4, "m")]
    assert answer["manifest"]["hints"]["anchors"][0] == {"x": near_x, "y": near_y, "metres": 1.5, "along": "axis"}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ({"anchors": [[1, 2]]}, r"anchors must be a list of \[x,y,metres\], but got \[1, 2\]"),
        ({"anchors": [[1, 2, True]]}, r"anchors must be a list of \[x,y,metres\]"),
        ({"lengths": "1,2,3,4,5"}, r"lengths must be a list of \[x1,y1,x2,y2,metres\]"),
        ({"patch": [[1, 2, 3, "4"]]}, r"patch must be a list of \[x0,y0,x1,y1\]"),
        ({"near_m": "2"}, "near_m must be a number of metres"),
        ({"along": "way"}, "along has no 'way'; choose from axis, ray"),
        ({"fov_x_deg": 200}, "fov_x_deg must be"),
        ({}, "Give a known depth, a known length or a flat patch"),
        ({"anchors": [[64, 1, 2]]}, "lies outside the photo, which has 64 x 48 pixels"),
        ({"lengths": [[1, 1, 9, 9, 2]]}, "needs the camera's field of view"),
    ],
)
def test_hints_that_are_none_are_refused_before_the_model_runs(client, picture, words, sentence):
    with pytest.raises(ValidationError, match=sentence):
        given = {"anchors": None, "num_inference_steps": 50, "ensemble_size": 20, **words}
        client.predict(handle_file(picture), **given, api_name="/calibrate")


def test_progress_is_seen_on_the_way(client, picture):
    job = client.submit(handle_file(picture), num_inference_steps=3, api_name="/predict_depth")
    job.result(60)
    stages = [output["progress"] for output in job.outputs() if "progress" in output]
    assert stages


def test_wrong_values_are_refused_in_a_sentence(client, picture):
    for name, value in [("num_inference_steps", 4.7), ("ensemble_size", True), ("seed", 1e9), ("checkpoint", "/etc")]:
        with pytest.raises(ValidationError, match=name if name != "checkpoint" else "choose one of"):
            client.predict(handle_file(picture), **{name: value}, api_name="/predict_depth")


def test_values_that_no_client_sends_are_refused_too(url):
    for value in ("NaN", "Infinity", "1e400", "true", "[]", '"50"', "-1"):
        body = f'{{"data": [{{"path": "x"}}, {value}, 1, null, 0, null, null, null, "Spectral"]}}'
        answer = httpx.post(f"{url}/gradio_api/call/predict_depth", content=body, headers=JSON, timeout=30)
        assert 400 <= answer.status_code < 500, (value, answer.status_code, answer.text)


def test_a_file_that_is_no_photo_is_told(client, tmp_path):
    fake = tmp_path / "photo.png"
    fake.write_bytes(b"<svg onload=alert(1)>")
    with pytest.raises(ValidationError, match="not a photo|damaged"):
        client.predict(handle_file(fake), api_name="/predict_depth")


def test_only_the_endpoints_are_public(client):
    public = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert set(public) == {f"/{endpoint.name}" for endpoint in ENDPOINTS}


def test_a_cancelled_job_gives_the_model_to_the_next(client, picture):
    long = client.submit(
        handle_file(picture),
        num_inference_steps=50,
        ensemble_size=20,
        processing_resolution=512,
        api_name="/predict_depth",
    )
    deadline = time.monotonic() + 60
    while not long.outputs() and time.monotonic() < deadline:
        time.sleep(0.05)
    long.cancel()
    began = time.monotonic()
    client.predict(handle_file(picture), num_inference_steps=1, api_name="/predict_depth")
    assert time.monotonic() - began < 30  # the long job alone would take minutes


def test_clients_at_the_same_time_each_get_their_own(url, tmp_path, tiny_depth):
    results: dict[int, tuple[int, int]] = {}

    def job(number: int) -> None:
        path = tmp_path / f"{number}.png"
        Image.new("RGB", (32 + 8 * number, 40), (number * 40, 90, 120)).save(path)
        own = Client(url, verbose=False, download_files=str(tmp_path / str(number)))
        answer = own.predict(handle_file(path), num_inference_steps=1, formats=["npy"], api_name="/predict_depth")
        results[number] = np.load(answer["npy"]).shape

    threads = [threading.Thread(target=job, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: (40, 32 + 8 * number) for number in range(4)}


# ------------------------------------------------------------------------------- compare


def test_sheet_table_and_rows_say_the_same(client: Client, picture: Path, tiny_depth: Path) -> None:
    asked = {"steps": [2, 1], "sizes": [1, 3], "processing_resolution": 32}
    job: Any = client.submit(handle_file(picture), **asked, api_name="/compare")
    answer = job.result(120)
    assert any(output.get("progress") == "3 of 4 cells" for output in job.outputs())
    with Image.open(answer["sheet"]) as sheet, Image.open(answer["differences"]) as other:
        assert sheet.size == other.size and sheet.format == "PNG"
    table = list(csv.DictReader(Path(answer["table"]).read_text().splitlines()))
    assert [tuple(row) for row in answer["rows"]] == [COLUMNS] * 4
    assert [(row["steps"], row["members"]) for row in answer["rows"]] == [(1, 1), (1, 3), (2, 1), (2, 3)]
    for row, line in zip(answer["rows"], table, strict=True):
        assert row["checkpoint"] == line["checkpoint"] == tiny_depth.name
        assert f"{row['difference']:.4f}" == line["difference"]
        assert (row["uncertainty"] is None) == (line["uncertainty"] == "") == (row["members"] < 3)
    assert [row["reference"] for row in answer["rows"]] == [False, False, False, True]


def test_a_given_depth_map_stands_beside_the_cells_and_is_what_they_are_measured_against(
    client: Client, picture: Path, tmp_path: Path
) -> None:
    depth = np.add.outer(np.arange(48), np.arange(64)).astype(np.float32)
    np.save(tmp_path / "mine.npy", depth)
    asked = {"steps": [1], "sizes": [1], "processing_resolution": 32, "greater": "farther"}
    answer = client.predict(handle_file(picture), handle_file(tmp_path / "mine.npy"), **asked, api_name="/compare")
    given, cell = answer["rows"]
    assert (given["checkpoint"], given["reference"], given["steps"]) == ("given: mine.npy", True, None)
    assert not cell["reference"] and cell["difference"] > 0


def test_frames_of_a_video_come_as_archives_and_the_numbers_are_those_of_python(
    client: Client, tiny_depth: Path, tmp_path: Path
) -> None:
    still = scene(1)
    clip = write_clip(tmp_path / "clip.mp4", [still.window(still.picture, number) for number in range(3)])
    settings: dict[str, Any] = {"num_inference_steps": 1, "processing_resolution": 32}
    how = {"video_formats": ["png16"], "window": 2}
    job: Any = client.submit(handle_file(clip), **settings, **how, api_name="/video")
    answer = job.result(120)
    assert any("frame 2 of 3" in output.get("progress", "") for output in job.outputs())
    video = VideoSettings(video_formats=("png16",), window=2)
    made = predict_video(load(tiny_depth), clip, tmp_path, Settings(**settings), video)
    with ZipFile(answer["png16"]) as frames:
        names = sorted(path.name for path in made.files["png16"].iterdir())
        assert frames.namelist() == names and len(names) == 3
        for name in names:
            found = np.asarray(Image.open(frames.open(name))).astype(int)
            expected = np.asarray(Image.open(made.files["png16"] / name)).astype(int)
            assert np.abs(found - expected).max() <= 300  # its threads may add in another order
    assert answer["record"]["frames"] == 3 and answer["record"]["video"]["window"] == 2


def test_too_much_is_refused_before_it_waits(client: Client, picture: Path) -> None:
    refused: list[tuple[dict[str, Any], str]] = [
        ({"steps": [0]}, "steps"),
        ({"seeds": [0, 1, 2, 3, 4]}, "80 cells are too many"),
        ({"checkpoints": ["/etc"]}, "choose one of"),
    ]
    for asked, message in refused:
        with pytest.raises(ValidationError, match=message):
            client.predict(handle_file(picture), **asked, api_name="/compare")


# ------------------------------------------------------------------------------- the API page, raw requests


@pytest.mark.parametrize("name", [endpoint.name for endpoint in ENDPOINTS])
def test_the_example_of_the_api_page_runs_as_printed(client: Client, url: str, name: str) -> None:
    info = httpx.get(f"{url}/gradio_api/info", timeout=30).json()["named_endpoints"][f"/{name}"]
    printed = info["code_snippets"]["python"]
    assert f"handle_file('{info['parameters'][0]['example_input']['url']}')" in printed
    code = re.sub(r'Client\("[^"]*"\)', "client", printed, count=1).replace("print(result)", "")
    if name == "calibrate":  # the server's own has random weights, whose maps the hints contradict
        code = code.replace("checkpoint=None", 'checkpoint="nano"')
    code = code.replace("sizes=None", "sizes=[1, 3]")  # 16 cells as printed take a minute and more
    code = code.replace("seconds=4.0", "seconds=0.5")
    names: dict[str, Any] = {"client": client}
    exec(code, names)
    answer = names["result"]
    if name == "compare":
        assert len(answer["rows"]) == 8
    elif name in EFFECTS:
        assert set(answer) == EFFECTS[name] and all(one for one in answer.values())
    else:
        assert answer["manifest"]["photo"]["width"] == 640
        assert answer["manifest"]["kind"] == ("metric" if name == "calibrate" else "affine")


def test_a_depth_map_from_elsewhere_becomes_files(client: Client, picture: Path, tmp_path: Path) -> None:
    z = (2 + np.add.outer(np.arange(24) / 24, np.arange(32) / 8)).astype(np.float32)
    np.save(tmp_path / "z.npy", z * 1000)
    photo, depth = handle_file(picture), handle_file(tmp_path / "z.npy")
    answer = client.predict(
        photo, depth, unit_m=0.001, formats=["npy", "ply"], save_for=["rgbd"], api_name="/import_depth"
    )
    assert answer["manifest"]["kind"] == "metric" and answer["manifest"]["checkpoint"] == "given: z.npy"
    assert set(answer) == {"manifest", "npy", "ply", "photo", "depth_mm", "intrinsics"}
    assert np.load(answer["npy"]).max() == pytest.approx(z.max(), rel=0.01)
    anchors = [[2, 3, 2.2], [60, 40, 6.6]]
    answer = client.predict(photo, depth, quantity="depth", anchors=anchors, api_name="/import_depth")
    assert answer["calibration"]["kind"] == "metric" and answer["manifest"]["settings"]["kind"] == "affine"
    with pytest.raises(ValidationError, match="carries no depth map"):
        client.predict(photo, None, api_name="/import_depth")
    with pytest.raises(ValidationError, match="unit_m must be greater than 0"):
        client.predict(photo, depth, unit_m=-1, api_name="/import_depth")
    with pytest.raises(ValidationError, match="unit_m is needed for metres"):
        client.predict(photo, depth, kind="metric", api_name="/import_depth")


def test_files_for_programs_take_their_settings(client: Client, picture: Path) -> None:
    asked = {"num_inference_steps": 1, "save_for": ["stereo", "print"], "formats": ["stl"]}
    shape = {"stereo_layout": "anaglyph", "relief_mm": 50.0, "relief_height_mm": 5.0, "relief_base_mm": 2.0}
    answer = client.predict(handle_file(picture), **asked, **shape, api_name="/predict_depth")
    assert set(answer) == {"manifest", "stereo", "stereo_filled", "stl", "relief_3mf"}
    with Image.open(answer["stereo"]) as pair:
        assert pair.size == (64, 48)  # red and cyan in one picture, not side by side
    np.testing.assert_allclose(trimesh.load_mesh(answer["stl"]).extents, (50, 37.5, 7), atol=1)
    with pytest.raises(ValidationError, match="stereo_layout must be"):
        client.predict(handle_file(picture), stereo_layout="wide", api_name="/predict_depth")
    with pytest.raises(ValidationError, match="needs depth in metres"):
        client.predict(handle_file(picture), save_for=["nerfstudio"], api_name="/predict_depth")


def test_metres_come_as_files_for_programs(client: Client, picture: Path, tiny_depth: Path) -> None:
    settings: dict[str, Any] = {"num_inference_steps": 1, "processing_resolution": 64}
    values = load(tiny_depth)(picture, Settings(**settings)).values
    ends = [divmod(int(at), values.shape[1]) for at in (values.argmin(), values.argmax())]
    known = [[x, y, metres] for (y, x), metres in zip(ends, (1.5, 4), strict=True)]
    asked = {"save_for": ["nerfstudio"], "fov_x_deg": 60, **settings}
    answer = client.predict(handle_file(picture), known, **asked, api_name="/calibrate")
    assert set(answer) == {"manifest", "calibration", "photo", "depth_mm", "ply", "transforms"}


def test_null_is_the_default_and_files_are_described_completely(url: str, picture: Path) -> None:
    uploaded = httpx.post(
        f"{url}/gradio_api/upload", files={"files": ("photo.png", picture.read_bytes())}, timeout=30
    ).json()[0]
    data = [{"path": uploaded}, None]  # what is left out is null
    event = httpx.post(f"{url}/gradio_api/call/predict_depth", json={"data": data}, timeout=30).json()["event_id"]
    answer = httpx.get(f"{url}/gradio_api/call/predict_depth/{event}", timeout=120).text
    (result,) = json.loads(answer.rstrip().rsplit("data: ", 1)[1].splitlines()[0])
    file = result["npy"]
    assert (file["orig_name"], file["size"]) == ("depth.npy", Path(file["path"]).stat().st_size)
    assert httpx.get(file["url"], timeout=30).content == Path(file["path"]).read_bytes()


def test_requests_of_another_form_are_told_what_is_wrong(url: str) -> None:
    address = f"{url}/gradio_api/call/predict_depth"
    for body in ("{}", '{"data": null}', '{"data": "x"}', "[]", "no JSON"):
        answer = httpx.post(address, content=body, headers=JSON, timeout=30)
        assert (answer.status_code, answer.json()["detail"]) == (400, text.UNREADABLE)
    answer = httpx.post(address, json={"data": []}, timeout=30)
    (fault,) = answer.json()["detail"]  # of the one argument that is wrong
    assert answer.status_code == 422 and "Give a photo" in fault["message"] and fault["parameter_name"] == "photo"
    for path, fields in {"cancel": "session_hash, fn_index, event_id", "reset": "event_id"}.items():
        answer = httpx.post(f"{url}/gradio_api/{path}", json={}, timeout=30)
        expected = text.UNREADABLE_FIELDS.format(names=fields)
        assert (answer.status_code, answer.json()["detail"]) == (422, expected)
    for path in ("call/predict_depth/nosuch", "queue/data?session_hash=nosuch"):
        answer = httpx.get(f"{url}/gradio_api/{path}", timeout=30)
        assert (answer.status_code, answer.json()["detail"]) == (404, text.NO_EVENT)
    assert httpx.get(f"{url}/gradio_api/openapi.json", timeout=30).status_code == 404


JSON = {"content-type": "application/json"}


@pytest.mark.parametrize("endpoint", [endpoint.name for endpoint in ENDPOINTS])
def test_photos_of_the_server_that_nobody_uploaded_are_not_read(url: str, picture: Path, endpoint: str) -> None:
    parameters = httpx.get(f"{url}/gradio_api/info", timeout=30).json()["named_endpoints"][f"/{endpoint}"]["parameters"]
    rest = [one.get("parameter_default") for one in parameters[1:]]
    refusals = set()
    for path in (str(picture), "/etc/hostname", "/etc/nope", "data:image/png;base64,AAAA"):
        for meta in ({}, {"meta": {"_type": "gradio.FileData"}}):
            body = {"data": [{"path": path, **meta}, *rest]}
            answer = httpx.post(f"{url}/gradio_api/call/{endpoint}", json=body, timeout=30)
            assert answer.status_code == 400, (path, meta, answer.text)
            refusals.add(answer.json()["detail"])
    name = parameters[0]["parameter_name"]
    assert refusals == {text.NOT_UPLOADED.format(name=name)}


def test_files_of_the_server_are_not_given(url, tmp_path):
    canary = tmp_path / "canary.txt"
    canary.write_text("a secret")
    paths = [str(canary), "/etc/passwd", "/proc/self/environ", "pyproject.toml", "../pyproject.toml", "app.py"]
    for path in paths:
        answer = httpx.get(f"{url}/gradio_api/file={path}", timeout=30)
        assert answer.status_code in (403, 404), path
        for payload in (
            {"path": path, "meta": {"_type": "gradio.FileData"}},
            {"path": path},
            {"url": f"file://{path}", "path": path},
        ):
            assert "secret" not in submit(url, payload)


def test_web_addresses_are_not_followed(url):
    hits = []
    server = Canary(hits)
    try:
        for payload in (
            {"path": server.url, "meta": {"_type": "gradio.FileData"}},
            {"path": "photo.png", "url": server.url, "meta": {"_type": "gradio.FileData"}},
        ):
            submit(url, payload)
        httpx.get(f"{url}/gradio_api/file={server.url}", timeout=30)
        httpx.get(f"{url}/gradio_api/proxy={server.url}", timeout=30)
    finally:
        server.close()
    assert hits == []


def test_large_requests_are_refused(url):
    inline = "data:image/png;base64," + "A" * 400_000
    body = json.dumps({"data": [{"url": inline, "path": "x"}]})
    answer = httpx.post(f"{url}/gradio_api/call/predict_depth", content=body, headers=JSON, timeout=30)
    assert answer.status_code == 413
    answer = httpx.post(f"{url}/gradio_api/upload", files={"files": ("a.png", b"0" * 42_000_000)}, timeout=60)
    assert answer.status_code == 413


def test_the_page_is_private_and_fetches_nothing_from_outside(url):
    page = httpx.get(url, timeout=30)
    assert "frame-ancestors" in page.headers["content-security-policy"]
    assert page.headers["x-content-type-options"] == "nosniff"
    assert "fonts.googleapis" not in page.text and "cdnjs" not in page.text
    icon = httpx.get(f"{url}/favicon.ico", timeout=30)
    assert icon.status_code == 200 and icon.content[:4] == b"\x89PNG"
    foreign = httpx.get(url, headers={"origin": "https://evil.example"}, timeout=30)
    assert "evil" not in foreign.headers.get("access-control-allow-origin", "")


def submit(url: str, photo: dict) -> str:
    """Submit a photo payload and return everything that the server says about it."""
    arguments = [photo, 1, 1, None, 0, None, None, ["npy"], "Spectral"]
    answer = httpx.post(f"{url}/gradio_api/call/predict_depth", json={"data": arguments}, timeout=30)
    if answer.status_code != 200:
        return answer.text
    event = answer.json()["event_id"]
    return httpx.get(f"{url}/gradio_api/call/predict_depth/{event}", timeout=60).text


class Canary:
    """A web server that notes who asks."""

    def __init__(self, hits: list[str]) -> None:
        from http.server import BaseHTTPRequestHandler, HTTPServer

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                hits.append(self.path)
                self.send_error(404)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/photo.png"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def test_the_program_of_the_readme_runs(url: str, picture: Path) -> None:
    (program,) = re.findall(r"^```py\n(.*?)^```$", (ROOT / "README.md").read_text(encoding="utf-8"), re.M | re.S)
    changed = program.replace("http://127.0.0.1:7860", url).replace("photo.jpg", str(picture))
    assert url in changed and str(picture) in changed
    ended = subprocess.run(
        [sys.executable, "-c", f"{changed}\nprint(sorted(result))"], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0 and "'manifest', 'npy'" in ended.stdout, ended.stderr
