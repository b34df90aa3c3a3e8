import json
import math
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from marigold_core.errors import SettingsError
from marigold_core.settings import (
    PRESETS,
    ColourSettings,
    Decoder,
    Frozen,
    MeshSettings,
    Settings,
    Views,
    bounds,
    default,
    help_text,
)
from marigold_core.video.settings import DefocusSettings

CHOICES = {"views", "follow_outlines", "decoder", "stereo_layout"}
NUMBERS = [(model, name) for model in (Settings, MeshSettings) for name in model.model_fields if name not in CHOICES]
NULLABLE = {"num_inference_steps", "processing_resolution", "batch_size", "fov_x_deg", "near_ratio"}


def test_defaults_are_the_published_ones() -> None:
    assert Settings().model_dump() == {
        "num_inference_steps": None,
        "ensemble_size": 1,
        "processing_resolution": None,
        "seed": 0,
        "batch_size": None,
        "views": "photo",
        "tiles_per_side": 1,
        "follow_outlines": False,
        "decoder": "own",
    }


@pytest.mark.parametrize("value", ["", "Photo", "mirror", True, None, 1])
def test_other_views_are_refused_in_one_sentence(value: Any) -> None:
    with pytest.raises(
        SettingsError, match="^views must be 'photo', 'mirrored' or 'mirrored-rescaled', but got .*[.]$"
    ):
        Settings(views=value)


@pytest.mark.parametrize("value", ["yes", "True", 1, 0, None])
def test_whether_outlines_are_followed_is_true_or_false(value: Any) -> None:
    with pytest.raises(SettingsError, match="^follow_outlines must be .*[.]$"):
        Settings(follow_outlines=value)


class Listed(Frozen):
    pair: tuple[float, float] = (0.0, 0.0)
    counts: tuple[int, ...] = Field((1,), min_length=1, max_length=2)
    needed: int


@pytest.mark.parametrize(
    ("model", "values", "said"),
    [
        (DefocusSettings, {"focus": (10,)}, "focus must be x,y, but got (10,)."),
        (DefocusSettings, {"focus": ()}, "focus must be x,y, but got ()."),
        (DefocusSettings, {"focus": (5, 5, 5)}, "focus must be x,y, but got (5, 5, 5)."),
        (DefocusSettings, {"focus": 5}, "focus must be a list, but got 5."),
        (DefocusSettings, {"focus": [5, 5]}, "focus must be a valid tuple, but got [5, 5]."),
        (Listed, {"needed": 1, "pair": (1.0,)}, "pair must be a list of 2 values, but got (1.0,)."),
        (Listed, {"needed": 1, "counts": ()}, "counts must be a list of at least 1 value, but got ()."),
        (Listed, {"needed": 1, "counts": (1, 2, 3)}, "counts must be a list of at most 2 values, but got (1, 2, 3)."),
        (Listed, {}, "needed is missing."),
    ],
)
def test_lists_of_other_lengths_are_refused_in_our_words(model: type, values: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError) as refused:
        model(**values)
    assert str(refused.value) == said


@pytest.mark.parametrize(("model", "name"), NUMBERS)
def test_both_ends_of_a_range_are_accepted_and_the_next_values_are_not(model: type, name: str) -> None:
    low, high = bounds(model, name)
    step = 8 if name == "processing_resolution" else 1
    for value in (low, high):
        assert getattr(model(**{name: value}), name) == value
    for value in (low - step, high + step):
        with pytest.raises(SettingsError, match=f"^{name} must be .* but got {value}"):
            model(**{name: value})


@pytest.mark.parametrize(("model", "name"), NUMBERS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, True, False, "4", "four", [4], b"4", {}, 1j])
def test_other_types_are_refused_in_one_sentence(model: type, name: str, value: Any) -> None:
    with pytest.raises(SettingsError) as caught:
        model(**{name: value})
    message = str(caught.value)
    assert message.startswith(f"{name} must be ")
    assert message.endswith(".")
    assert "\n" not in message


@pytest.mark.parametrize(("model", "name"), NUMBERS)
def test_none_stands_for_the_default_only_where_there_is_one_elsewhere(model: type, name: str) -> None:
    if name in NULLABLE:
        assert getattr(model(**{name: None}), name) is None
    else:
        with pytest.raises(SettingsError, match=name):
            model(**{name: None})


@pytest.mark.parametrize("name", sorted(Settings.model_fields.keys() - CHOICES))
def test_whole_numbers_are_not_made_from_fractions(name: str) -> None:
    values: list[Any] = [4.7, 4.0]
    for value in values:
        with pytest.raises(SettingsError, match=f"{name} must be a valid integer, but got {value}"):
            Settings(**{name: value})


@pytest.mark.parametrize(("value", "good"), [(0, True), (8, False), (16, True), (17, False), (768, True), (772, False)])
def test_resolution_is_native_or_a_usable_multiple_of_eight(value: int, good: bool) -> None:
    if good:
        assert Settings(processing_resolution=value).processing_resolution == value
    else:
        with pytest.raises(SettingsError, match="processing_resolution must be"):
            Settings(processing_resolution=value)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(SettingsError, match="Unknown setting 'denoise_steps'"):
        Settings(denoise_steps=4)  # pyright: ignore[reportCallIssue]


@pytest.mark.parametrize("value", ["x" * 10**6, np.zeros((200, 200)), list(range(10**5)), "two\nlines", "\x1b[31mred"])
def test_a_message_stays_one_short_printable_line(value: Any) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings(seed=value)
    message = str(caught.value)
    assert len(message) < 300
    assert message.isprintable()


def test_settings_never_change() -> None:
    settings = Settings()
    with pytest.raises(ValueError, match="frozen"):
        settings.seed = 1  # pyright: ignore[reportAttributeAccessIssue]
    assert hash(settings) == hash(Settings())


@given(
    st.builds(
        Settings,
        num_inference_steps=st.none() | st.integers(1, 50),
        ensemble_size=st.integers(1, 20),
        processing_resolution=st.none() | st.just(0) | st.integers(2, 256).map(lambda k: 8 * k),
        seed=st.integers(0, 2**32 - 1),
        batch_size=st.none() | st.integers(1, 20),
        views=st.sampled_from(get_args(Views)),
        tiles_per_side=st.integers(1, 4),
        follow_outlines=st.booleans(),
        decoder=st.sampled_from(get_args(Decoder)),
    )
)
def test_settings_survive_json(settings: Settings) -> None:
    assert Settings(**json.loads(settings.model_dump_json())) == settings


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_valid_settings(name: str) -> None:
    assert Settings(**PRESETS[name]).model_dump(include=set(PRESETS[name])) == PRESETS[name]


@pytest.mark.parametrize(("model", "name"), NUMBERS)
def test_every_setting_explains_itself_and_its_default_is_within_its_range(model: type, name: str) -> None:
    assert len(help_text(model, name)) > 10
    low, high = bounds(model, name)
    value = default(model, name)
    assert value is None or low <= value <= high


def test_a_field_without_range_has_no_bounds() -> None:
    class Named(Settings):
        name: str = "a"

    with pytest.raises(KeyError, match="Named.name has no range"):
        bounds(Named, "name")


@pytest.mark.parametrize(
    ("model", "low", "high"), [(ColourSettings, "range_from", "range_to"), (MeshSettings, "near_clip", "far_clip")]
)
@pytest.mark.parametrize("ends", [(0.9, 0.1), (0.5, 0.5)])
def test_the_ends_of_a_range_that_are_equal_or_exchanged_are_refused(
    model: type[Frozen], low: str, high: str, ends: tuple[float, float]
) -> None:
    stated = f"{low} must be below {high}, but got {ends[0]:g} and {ends[1]:g}"
    with pytest.raises(SettingsError, match=stated):
        model(**{low: ends[0], high: ends[1]})
