"""The same photo, settings and seed give the same numbers: in fresh processes, from threads, whatever the surface."""

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from marigold_core import ImageError, Prediction, Settings, SettingsError, cli, load
from marigold_core.files.manifest import Manifest
from tests.helpers.command_line import fingerprints, fresh, predicting


@pytest.mark.slow
def test_fresh_processes_write_the_same_bytes(folder: Path, out: Path, tiny_depth: Path, write) -> None:
    path = write(folder / "a.png")
    seen = set()
    for run in range(3):
        target = out / str(run)
        words = predicting(target, tiny_depth, path, "--ensemble-size", 3, "--edge-cut", 0)
        ended = fresh("-m", "marigold_core", *words, PYTHONHASHSEED=str(run))
        assert ended.returncode == cli.ALL_DONE, ended.stderr
        seen.add(json.dumps(fingerprints(target)))
    assert len(seen) == 1
    recorded = Manifest.model_validate_json((out / "0" / "a" / "manifest.json").read_text())
    assert recorded.torch_threads


def test_four_threads_get_what_one_gets(tiny_depth: Path, photo) -> None:
    from marigold_core.serving.jobs import Service

    pipe = load(tiny_depth, device="cpu")
    service = Service(loader=lambda _: pipe)
    photos = [photo(20, 28, seed) for seed in range(20)]
    settings = Settings(num_inference_steps=1, processing_resolution=16)
    serial = [pipe(pixels, settings).values for pixels in photos]
    results: dict[tuple[int, int], np.ndarray] = {}

    def work(thread: int) -> None:
        for number, pixels in enumerate(photos):
            *_, last = service.run(pixels, settings, "tiny")
            assert isinstance(last, Prediction)
            results[thread, number] = last.values

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    service.close()
    assert len(results) == 80
    assert all(np.array_equal(values, serial[number]) for (_, number), values in results.items())


@pytest.mark.parametrize(
    "wrong", [None, 3, 1.5, [], {}, object(), np.zeros((20, 20, 3), bool), np.zeros((4, 4, 3), np.uint8)]
)
def test_the_library_refuses_other_types_in_a_sentence(tiny_depth: Path, wrong: Any) -> None:
    with pytest.raises(ImageError) as caught:
        load(tiny_depth, device="cpu")(wrong)
    assert str(caught.value).endswith(".")


@pytest.mark.parametrize("name", ["device", "dtype"])
def test_the_library_refuses_an_unknown_device_or_dtype_in_a_sentence(tiny_depth: Path, name: str) -> None:
    with pytest.raises(SettingsError, match=f"The {name} 'abacus' is .*; use auto"):
        load(tiny_depth, **dict[str, Any]({name: "abacus"}))
