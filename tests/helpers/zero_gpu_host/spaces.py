"""Stands in for the package ``spaces`` on ZeroGPU: the program under test imports it instead, from this folder.

It keeps the host's rules: a decorated function runs in a forked process, what goes in and out is pickled, the device is
there on the main thread before the launch and in that process, and nowhere else. In ``$ZERO_GPU_FOLDER`` a test says
what is refused next (``refusal.json``: title, message) and reads what was called (``calls.jsonl``: a line a call).
"""

import json
import multiprocessing
import os
import pickle
import threading
import traceback
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import torch

FORK = multiprocessing.get_context("fork")
FOLDER = Path(os.environ["ZERO_GPU_FOLDER"])
PARENT = os.getpid()


def GPU(*, duration: Callable[..., int]) -> Callable[[Callable[..., Generator[Any]]], Callable[..., Generator[Any]]]:  # noqa: N802 (the package's name)
    def decorate(task: Callable[..., Generator[Any]]) -> Callable[..., Generator[Any]]:
        _emulate()

        def call(*arguments: Any) -> Generator[Any]:
            record = {"task": task.__name__, "seconds": duration(*arguments), "events": 0}
            _refuse()
            events, told, stop = FORK.SimpleQueue(), FORK.SimpleQueue(), FORK.Event()
            worker = FORK.Process(target=_work, args=(task, told, events, stop), daemon=True)
            worker.start()
            told.put(pickle.dumps(arguments))
            try:
                while True:
                    kind, value = pickle.loads(events.get())  # noqa: S301 (our own process wrote it)
                    if kind == "end":
                        break
                    if kind == "failed":
                        _raise("ZeroGPU worker error", value)
                    record["events"] += 1
                    yield value
            except GeneratorExit:
                stop.set()
                while pickle.loads(events.get())[0] != "end":  # noqa: S301 (as the package does, it waits for the end)
                    pass
                record["stopped"] = True
                raise
            finally:
                worker.join(30)
                record["exit"] = worker.exitcode
                with (FOLDER / "calls.jsonl").open("a") as file:
                    file.write(json.dumps(record) + "\n")

        return call

    return decorate


def _work(task: Callable[..., Generator[Any]], told: Any, events: Any, stop: Any) -> None:
    running = task(*pickle.loads(told.get()))  # noqa: S301 (our own process wrote it)
    try:
        for value in running:
            if stop.is_set():
                running.close()
                break
            events.put(pickle.dumps(("event", value)))
    except Exception as error:
        traceback.print_exc()
        events.put(pickle.dumps(("failed", type(error).__name__)))
    events.put(pickle.dumps(("end", None)))


def _refuse() -> None:
    refusal = FOLDER / "refusal.json"
    if refusal.exists():
        words = json.loads(refusal.read_text())
        refusal.unlink()
        _raise(words["title"], words["message"])


def _raise(title: str, message: str) -> None:
    from gradio import Error

    raise Error(message, title=title, print_exception=False)


def _emulate() -> None:
    """Let "cuda" be there on the main thread of the program, which the CPU stands for, and in workers; nowhere else."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    from marigold_core.pipeline import loading

    def pick(device: str) -> torch.device:
        if os.getpid() == PARENT and threading.current_thread() is not threading.main_thread():
            raise RuntimeError("Low-level CUDA init reached")
        return torch.device("cpu")

    encode = AutoencoderKL.encode

    def guarded(self: Any, picture: torch.Tensor, **options: Any) -> Any:
        if os.getpid() == PARENT and not picture.is_meta:
            raise RuntimeError("Low-level CUDA init reached")
        return encode(self, picture, **options)

    loading.pick_device = pick  # type: ignore[assignment]
    AutoencoderKL.encode = guarded  # type: ignore[method-assign]
