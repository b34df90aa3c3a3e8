"""Running a manifest again: the same bytes here, a sentence where it cannot be, names for what is different."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from PIL import Image

from marigold_core import MeshSettings, Settings, SettingsError, cli, load
from marigold_core.files.manifest import Manifest
from marigold_core.files.replay import against, read, stream
from marigold_core.files.writers import save
from marigold_core.prediction import Progress
from tests.helpers.command_line import QUICK, fingerprints, fresh, run_command
from tests.helpers.damage import edit

Replay = Callable[..., int]
QUICKLY = Settings(num_inference_steps=1, processing_resolution=32)
ALL = "npy,png16,color,uncertainty,normals,glb,ply,stl,exr"


@pytest.fixture
def done(folder: Path, out: Path, write, predict) -> Path:
    """The folder of a finished prediction of ``folder / "a.png"``, with every file there is."""
    words = ["--ensemble-size", 3, "--seed", 7, "--edge-cut", 0, "--colormap", "magma", "--quiet"]
    assert predict(write(folder / "a.png"), *words, formats=ALL) == cli.ALL_DONE
    return out / "a"


@pytest.fixture
def replay(tiny_depth: Path, folder: Path, tmp_path: Path) -> Replay:
    """``replay(manifest, options)`` on the right checkpoint and photo, into ``tmp_path / "again"``."""

    def replay(*words: object) -> int:
        given = [*words, "--model", tiny_depth] if "--model" not in words else list(words)
        given += [] if "--photo" in words else ["--photo", folder / "a.png"]
        given += [] if "-o" in words else ["-o", tmp_path / "again"]
        return run_command("replay", *given)

    return replay


# ------------------------------------------------------------------------------- the same bytes


def test_every_file_has_the_same_bytes(done, tmp_path, replay, capsys) -> None:
    assert replay(done / "manifest.json") == cli.ALL_DONE
    assert capsys.readouterr().out == "Same bytes: 11 files.\n"
    assert fingerprints(tmp_path / "again" / "a") == fingerprints(done)
    assert len(fingerprints(done)) == 12


def test_another_process_with_other_threads_writes_the_same(done: Path, folder: Path, tiny_depth: Path) -> None:
    assert read(done).torch_threads == torch.get_num_threads()
    words = ("replay", done, "--model", tiny_depth, "--photo", folder / "a.png")
    ended = fresh("-m", "marigold_core", *words, OMP_NUM_THREADS="1" if torch.get_num_threads() > 1 else "2")
    assert (ended.returncode, ended.stdout, ended.stderr) == (cli.ALL_DONE, "Same bytes: 11 files.\n", "")


def test_each_event_is_made_with_the_threads_of_the_record(done: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are the calling thread's, and a server asks for each event from another one."""
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    before = torch.get_num_threads()

    def events() -> Iterator[Progress]:
        for number in range(4):
            yield Progress(torch.get_num_threads(), number, "denoising")

    for recorded, used in ((3, 3), (64, 4), (None, before)):
        record = read(done).model_copy(update={"torch_threads": recorded})
        replayed = stream(events(), record)
        for _ in range(4):
            with ThreadPoolExecutor(1) as other:
                event, after = other.submit(lambda events=replayed: (next(events), torch.get_num_threads())).result()
            assert isinstance(event, Progress) and (event.done, after) == (used, before)
        assert torch.get_num_threads() == before
        assert next(replayed, None) is None


@pytest.mark.parametrize("words", [["--dtype", "bfloat16"], ["--batch-size", "2", "--ensemble-size", "2"]])
def test_the_type_of_the_weights_and_the_batch_are_kept(words, folder, out, write, predict, replay, capsys) -> None:
    assert predict(write(folder / "a.png"), *words, "--quiet") == cli.ALL_DONE
    recorded = read(out / "a")
    assert (recorded.device, recorded.dtype) == ("cpu", "bfloat16" if "--dtype" in words else "float32")
    assert recorded.machine
    assert replay(out / "a") == cli.ALL_DONE
    assert capsys.readouterr().out == "Same bytes: 1 file.\n"


def test_intrinsics_are_replayed_too(folder, out, tiny_intrinsics, write, predict, replay, capsys) -> None:
    words = (write(folder / "a.png"), "--model", tiny_intrinsics, "--ensemble-size", 3, "--quiet")
    assert predict(*words, formats="npy,png16,color,uncertainty,exr") == cli.ALL_DONE
    assert replay(out / "a", "--model", tiny_intrinsics) == cli.ALL_DONE
    assert predict(*words, "--save-for", "print", formats="npy") == cli.USAGE
    assert "needs depth, not intrinsics" in capsys.readouterr().err


def test_normals_are_replayed_too(folder, out, tiny_normals, write, predict, replay, capsys) -> None:
    assert predict(write(folder / "a.png"), "--model", tiny_normals, "--quiet", formats="normals") == cli.ALL_DONE
    assert replay(out / "a", "--model", tiny_normals) == cli.ALL_DONE
    assert capsys.readouterr().out == "Same bytes: 2 files.\n"


def test_metres_are_made_again_from_their_hints(folder, out, tmp_path, tiny_depth, write, replay, capsys) -> None:
    quick = Settings(num_inference_steps=1, processing_resolution=32)
    values = load(tiny_depth, device="cpu")(write(folder / "a.png"), quick).values
    (y1, x1), (y2, x2) = (divmod(int(at), values.shape[1]) for at in (values.argmin(), values.argmax()))
    hints = f"{x1},{y1},2; {x2},{y2},3.5"
    words = ["-o", out, "--model", tiny_depth, "--device", "cpu", "--formats", "npy,ply", "--anchors", hints, *QUICK]
    assert run_command("calibrate", folder / "a.png", *words, "--quiet") == cli.ALL_DONE
    assert replay(out / "a") == cli.ALL_DONE
    assert capsys.readouterr().out == "Same bytes: 2 files.\n"
    assert read(tmp_path / "again" / "a").hints == read(out / "a").hints


def test_without_an_output_nothing_is_kept(done: Path, folder: Path, tiny_depth: Path, tmp_path: Path) -> None:
    before = fingerprints(tmp_path)
    words = ["replay", done, "--model", tiny_depth, "--photo", folder / "a.png", "--quiet"]
    assert run_command(*words) == cli.ALL_DONE
    assert fingerprints(tmp_path) == before


def test_what_is_there_is_left_alone_unless_it_may_be_replaced(done, out, replay, capsys) -> None:
    before = fingerprints(out)
    assert replay(done, "-o", out) == cli.USAGE
    assert "exists already; --overwrite" in capsys.readouterr().err
    assert replay(done, "-o", out, "--overwrite") == cli.ALL_DONE
    assert fingerprints(out) == before


# ------------------------------------------------------------------------------- the photo


def test_the_photo_is_found_near_the_manifest(done, folder, tmp_path, tiny_depth, write, monkeypatch) -> None:
    words = ["replay", str(done), "--model", str(tiny_depth), "--quiet"]
    assert cli.main(words) == cli.USAGE
    write(done.parent / "a.png", seed=5)  # a namesake
    (done / "a.txt").write_text("no photo")
    assert cli.main(words) == cli.USAGE
    for place in (done, done.parent, tmp_path, folder):
        monkeypatch.chdir(folder if place == folder else tmp_path / "in" / "..")
        shutil.copy(folder / "a.png", place / "a.bmp")
        assert cli.main(words) == cli.ALL_DONE
        (place / "a.bmp").unlink()
        monkeypatch.chdir("/")


def test_a_copy_of_the_photo_without_its_metadata_will_do(folder, out, tmp_path, photo, predict, replay) -> None:
    tags = Image.Exif()
    tags[0x8769] = {0xA405: 28}  # focal length, 35 mm equivalent
    with_tags, without = folder / "a.png", tmp_path / "b.png"
    Image.fromarray(photo(24, 32)).save(with_tags, exif=tags)
    Image.fromarray(photo(24, 32)).save(without)
    assert predict(with_tags, "--quiet", "--edge-cut", 0, formats="glb") == cli.ALL_DONE
    assert read(out / "a").fov_x_deg is not None
    assert replay(out / "a", "--photo", without) == cli.ALL_DONE


# ------------------------------------------------------------------------------- what cannot be


def test_refusals_are_a_sentence(
    done, folder, out, tmp_path, tiny_depth, tiny_depth_lcm, write, replay, capsys
) -> None:
    other = write(folder / "b.png", seed=3)
    before = fingerprints(tmp_path)
    for words, status, message in (
        ([done, "--photo", other], cli.USAGE, "b.png is another photo than the recorded one"),
        ([done, "--photo", folder / "c.png"], cli.USAGE, "there is no such file"),
        ([done, "--model", tiny_depth_lcm], cli.CHECKPOINT, "has other weights than the recorded run"),
        ([done, "--model", "no-such"], cli.CHECKPOINT, "There is no checkpoint 'no-such'"),
        ([folder], cli.USAGE, "There is no manifest"),
        ([done / "depth_16bit.png"], cli.USAGE, "is not a manifest: it is not a text"),
    ):
        assert replay(*words) == status
        captured = capsys.readouterr()
        assert (captured.out, captured.err.count("\n")) == ("", 1) and message in captured.err
    assert fingerprints(tmp_path) == before
    assert run_command("replay", done, "--photo", folder / "a.png") == cli.CHECKPOINT
    assert re.search(
        rf"The manifest names '{tiny_depth.name}'; give its folder with --model\.", capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"schema_version": 99}, "has schema version 99, but this version of marigold_core reads 1"),
        ({"schema_version": "new"}, "schema_version"),
        ({"photo": None}, "photo: "),
        ({"settings": {"seed": -1}}, "seed must be greater"),
        ({"schema_version": 2, "how": "metric from one length"}, "calibrate again"),
    ],
)
def test_a_manifest_that_cannot_be_read_is_said(values: dict[str, object], message: str, done: Path) -> None:
    edit(done / "manifest.json", **values)
    with pytest.raises(SettingsError, match=re.escape(message)):
        read(done)
    (done / "manifest.json").write_text("{")
    with pytest.raises(SettingsError, match="cannot|can be replayed"):
        read(done)


def test_records_of_the_first_schema_are_replayed(done, replay, capsys) -> None:
    text = json.loads((done / "manifest.json").read_text())
    absent = ("device", "dtype", "machine", "how", "hints", "colours")
    edit(done / "manifest.json", *absent, schema_version=1, colormap=text["colours"]["colormap"])
    assert replay(done) == cli.ALL_DONE
    assert capsys.readouterr().out == "Same bytes: 11 files.\n"


# ------------------------------------------------------------------------------- other bytes


def test_other_bytes_are_named_with_what_is_different(done, replay, capsys) -> None:
    record = read(done)
    versions = record.versions | {"torch": "1.0", "gone": "2"}
    edit(
        done / "manifest.json",
        files=record.files | {"depth.npy": "0" * 64, "depth.xyz": "1" * 64},
        versions=versions,
        machine="Plan9 vax",
    )
    assert replay(done, "--quiet") == cli.SOME_FAILED
    said = capsys.readouterr().out
    assert said.startswith("10 files of 12 with the same bytes; other bytes in depth.npy; not made by this version: ")
    assert f"torch 1.0 -> {record.versions['torch']}" in said and f"machine Plan9 vax -> {record.machine}" in said
    assert "gone 2 -> None" in said and "numpy" not in said and "threads" not in said


def test_what_is_recorded_is_the_run_s_not_the_writer_s(folder, out, tiny_depth, write, monkeypatch) -> None:
    """A server computes in one thread, or in a process that was lent a GPU, and writes files in another."""
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX3")
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX512_CORE")
    with ThreadPoolExecutor(1, initializer=lambda: torch.set_num_threads(3)) as other:
        made = other.submit(lambda: load(tiny_depth, device="cpu")(write(folder / "a.png"), QUICKLY)).result()
    monkeypatch.undo()
    record = read(save(made, out, ["npy"])["manifest"])
    assert (made.torch_threads, record.torch_threads) == (3, 3)
    assert record.machine == made.machine and {"AVX3", "ONEDNN_MAX_CPU_ISA=AVX512_CORE"} <= {
        *str(made.machine).split(", ")
    }
    assert {"scipy", "matplotlib", "fast-simplification"} <= record.versions.keys()


def test_other_bytes_without_a_cause_say_so(done: Path) -> None:
    record = read(done)
    other = Manifest(**{**dict(record), "files": record.files | {"depth.npy": "0" * 64}})
    outcome = against(record, other)
    assert (outcome.different, outcome.missing, outcome.causes) == (["depth.npy"], [], [])
    assert "Nothing that the manifest records is different" in outcome.describe()


def test_nonsense_in_a_manifest_is_a_sentence(done: Path, tmp_path: Path, replay, capsys) -> None:
    """None of it ends in a trace, in another run without a word, or in files outside the folder."""
    whole = json.loads((done / "manifest.json").read_text())
    untrue = {"kind": "metric", "value_range": {"low": -1.0, "high": 2.0}, "photo": {**whole["photo"], "width": -1}}
    other = {**whole["settings"], "num_inference_steps": None}
    for changed, status, sentence in (
        ({"modality": "x"}, cli.USAGE, "is of 'x', but results are of depth, normals, "),
        ({"settings": None}, cli.USAGE, "is not a manifest that can be replayed; settings"),
        ({"torch_threads": -1}, cli.USAGE, "is not a manifest that can be replayed; torch_threads"),
        ({"settings": "x"}, cli.USAGE, "is not a manifest that can be replayed; settings"),
        ({"prefix": "../../other_"}, cli.USAGE, "prefix: A prefix is the beginning of a file's name, but got '../.."),
        ({"prefix": "a\0"}, cli.USAGE, "prefix: A prefix is the beginning of a file's name"),
        (
            untrue,
            cli.SOME_FAILED,
            "Same bytes: 11 files. But the manifest states another kind, value_range, photo than",
        ),
        ({"settings": other}, cli.SOME_FAILED, "Different from the recorded run: num_inference_steps None -> 4"),
    ):
        (done / "manifest.json").write_text(json.dumps(whole | changed), encoding="utf-8-sig")
        assert replay(done, "--quiet", "--overwrite", "-o", tmp_path / "deep" / "er") == status
        said = "".join(capsys.readouterr())
        assert sentence in said and said.count("\n") == 1
    assert not [*tmp_path.glob("other_*"), *(tmp_path / "deep").glob("other_*")]


def test_a_continued_result_is_not_mistaken_for_the_same(done, folder, out, tiny_depth, replay, capsys) -> None:
    """Members that are taken over are kept in half precision, so that the map differs in its last bits."""
    pipe = load(tiny_depth, device="cpu")
    settings = read(done).settings
    assert isinstance(settings, Settings)
    part = pipe(folder / "a.png", type(settings)(**{**dict(settings), "ensemble_size": 2}))
    *_, whole = pipe.stream(folder / "a.png", settings, start=part)
    save(whole, out / "more", ["npy"], mesh=MeshSettings())  # type: ignore[arg-type]
    assert replay(out / "more") == cli.SOME_FAILED
    assert "was continued from an earlier one" in capsys.readouterr().out
