"""Hosts that lend their GPU: what a call asks for, what is refused beforehand, what a refusal says."""

import pytest

from marigold_core.comparison.sweep import PartTimes
from marigold_core.errors import SettingsError
from marigold_core.serving import hosting

PARTS = PartTimes(encode_s=0.5, step_s=0.5, decode_s=1.0)


@pytest.fixture(autouse=True)
def on_a_machine_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SPACES_ZERO_GPU", "MARIGOLD_MODEL", "MARIGOLD_EXTRA_MODEL", "MARIGOLD_GPU_SECONDS"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(("value", "lent"), [("true", True), ("1", True), ("false", False), ("", False)])
def test_the_host_says_that_it_lends_its_gpu(value: str, lent: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not hosting.is_zero_gpu()
    monkeypatch.setenv("SPACES_ZERO_GPU", value)
    assert hosting.is_zero_gpu() == lent


def test_two_checkpoints_can_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert hosting.hosted_checkpoints() == ["nano"]
    monkeypatch.setenv("MARIGOLD_EXTRA_MODEL", "nano")
    assert hosting.hosted_checkpoints() == ["nano"]
    monkeypatch.setenv("MARIGOLD_MODEL", "v1-1")
    assert hosting.hosted_checkpoints() == ["v1-1", "nano"]


@pytest.mark.parametrize("estimated_s", [0.0, 0.4, 3.0, 17.0, 40.0])
def test_a_call_asks_for_what_it_needs_and_little_more(estimated_s: float) -> None:
    needed = estimated_s + hosting.WORKER_START_S
    assert needed <= hosting.duration_s(estimated_s) <= 1.5 * needed


def test_what_is_too_long_for_one_call_is_refused_beforehand(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match=r"about 79 s, and one run may have it for 60 s.*fewer steps"):
        hosting.duration_s(60.0)
    monkeypatch.setenv("MARIGOLD_GPU_SECONDS", "100")
    assert hosting.duration_s(60.0) == 79


@pytest.mark.parametrize("value", ["0", "-5", "1.5", "long"])
def test_a_limit_that_is_none_is_named(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARIGOLD_GPU_SECONDS", value)
    with pytest.raises(SettingsError, match="MARIGOLD_GPU_SECONDS must be a positive whole number"):
        hosting.limit_s()


@pytest.mark.parametrize("steps", [1, 4, 10])
def test_the_most_members_fit_and_one_more_does_not(steps: int) -> None:
    members = hosting.most_members(PARTS, steps)

    def seconds(count: int) -> float:
        return PARTS.encode_s + count * (steps * PARTS.step_s + PARTS.decode_s)

    assert members > 0
    hosting.duration_s(seconds(members))
    with pytest.raises(SettingsError):
        hosting.duration_s(seconds(members + 1))


def test_no_member_fits_into_too_short_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARIGOLD_GPU_SECONDS", "2")
    assert hosting.most_members(PARTS, 4) == 0


@pytest.mark.parametrize(
    ("title", "message", "sentence"),
    [
        ("ZeroGPU queue timeout", "No GPU was available after 60s. Retry later", "No GPU was free within a minute"),
        ("ZeroGPU client error", "No GPU was available", "No GPU is free just now"),
        (
            "ZeroGPU quota exceeded",
            "You have exceeded your free ZeroGPU quota (90s requested vs. 12s left). Try again in 3:12:45. ",
            "Your GPU time for today does not suffice for this run; it is renewed in 3:12:45 ",
        ),
        ("ZeroGPU quota exceeded", "Space app has reached its GPU limit.", "for this run; come back tomorrow"),
        ("ZeroGPU illegal duration", "The requested GPU duration (90s) is larger", "longer than you may"),
        ("ZeroGPU worker error", "GPU task aborted", "The host ended this run"),
        ("ZeroGPU worker error", "AssertionError", "The process that had the GPU failed (AssertionError)"),
        ("ZeroGPU pending credits exceeded", "You have too many", "Your other runs hold"),
        ("Something new", "a reason", "The host refused this run: a reason"),
    ],
)
def test_every_refusal_is_a_sentence(title: str, message: str, sentence: str) -> None:
    assert sentence in str(hosting.explain_refusal(title, message))
