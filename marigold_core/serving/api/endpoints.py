"""The table of the endpoints: what each takes, answers and runs."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, cast

from marigold_core.calibration.calibrate import CalibrationMethod
from marigold_core.comparison.sweep import Comparison
from marigold_core.errors import SettingsError
from marigold_core.prediction import Progress
from marigold_core.serving.api.answers import (
    Answer,
    CompareResult,
    DefocusResult,
    DepthResult,
    MetresResult,
    PanoramaResult,
    ParallaxResult,
    VideoResult,
)
from marigold_core.serving.api.arguments import (
    Arguments,
    CompareOutput,
    DepthOutput,
    EffectOutput,
    GivenOutput,
    MeshOutput,
    Parameter,
    fields,
    hint_arguments,
)
from marigold_core.serving.api.files import USUAL
from marigold_core.serving.api.runs import (
    Run,
    effect,
    run_compare,
    run_depth,
    run_given,
    run_mesh,
    run_metres,
    run_panorama,
    run_video,
)
from marigold_core.serving.jobs import Service
from marigold_core.serving.video import MOST_FRAMES, run_defocus, run_parallax
from marigold_core.settings import (
    CameraSettings,
    ClippedSettings,
    ColourSettings,
    DepthReading,
    Format,
    FrameSettings,
    Frozen,
    GivenMeshSettings,
    MeshSettings,
    ReliefSettings,
    Settings,
)
from marigold_core.video.settings import DefocusSettings, ParallaxSettings, VideoSettings

PHOTO = "the photo, JPEG, PNG, WebP, TIFF, BMP, GIF, HEIC, AVIF or RAW with a full-size JPEG in it, up to 40 MB"
PANORAMA = f"the 360-degree panorama, equirectangular, twice as wide as high: {PHOTO.removeprefix('the photo, ')}"
CLIP = f"the video, one file such as MP4, MOV, WebM, MKV or AVI, up to {MOST_FRAMES} frames and 40 MB"
BESIDE = "a depth map of it from elsewhere: the others are measured against it; PNG, TIFF, EXR, NPY or PFM, up to 40 MB"
DEPTH = "its depth map, PNG, TIFF, EXR, NPY or PFM, up to 40 MB; null takes the one that the photo itself carries"


@dataclass(frozen=True)
class Endpoint:
    """One endpoint: its name, what it does, what it takes after the photo, what it answers, and what runs."""

    name: str
    description: str
    arguments: list[Parameter]
    output: type[Frozen]  # the model of those arguments that are of this endpoint alone
    result: type
    run: Run
    usual: tuple[Format, ...] = USUAL  # files where none are asked for
    # With descriptions; all but the first may be null.
    files: Mapping[str, str] = field(default_factory=lambda: {"photo": PHOTO})
    needs: tuple[str, ...] = ("photo",)  # the files without a default

    def answers(self, service: Service, given: Arguments) -> Iterator[Answer]:
        """Run a call -> its progress, and its result last; what holds much waits until there is room for it."""
        files = [given[name] for name in self.files if given[name] is not None]
        with closing(cast(Any, service.admit(files, self.run(service, given)))) as events:
            for event in events:
                yield {"progress": event.stage} if isinstance(event, Progress) else event

    def complete(self, values: Iterable[object]) -> Arguments:
        """Give the values of a call, the photo first, their names; null stands for the default."""
        defaults = {**dict.fromkeys(self.files), **{argument.name: argument.default for argument in self.arguments}}
        pairs = zip(defaults.items(), values, strict=True)
        return {name: default if value is None else value for (name, default), value in pairs}

    def read(self, given: Arguments) -> Arguments:
        """Complete the values of a call that are given by name. Raises: SettingsError for a name that is unknown."""
        names = [*self.files, *(argument.name for argument in self.arguments)]
        if unknown := sorted(given.keys() - {*names}):
            raise SettingsError(f"{self.name} has no argument {unknown[0]!r}; it takes {', '.join(names)}.")
        return self.complete(given.get(name) for name in names)

    def schemas(self) -> dict[str, dict[str, Any]]:
        """Describe the arguments beside the files as JSON schemas."""
        return {
            one.name: {"default": one.default, **one.schema, "description": one.description} for one in self.arguments
        }


ENDPOINTS = (
    Endpoint(
        "predict_depth",
        "Estimate the depth of a photo: relative depth, 0 = near, 1 = far, and its uncertainty, of some checkpoints"
        " from 3 members up.",
        [*fields(Settings), *fields(DepthOutput), *fields(ColourSettings), *fields(MeshSettings)],
        DepthOutput,
        DepthResult,
        run_depth,
    ),
    Endpoint(
        "build_mesh",
        "Estimate the depth of a photo and build geometry from it: by default a textured mesh as GLB.",
        [
            *fields(Settings),
            *fields(MeshOutput),
            *fields(FrameSettings),
            *fields(ReliefSettings),
            *fields(MeshSettings, "uncertainty_cut"),
        ],
        MeshOutput,
        DepthResult,
        run_mesh,
        usual=("glb",),
    ),
    Endpoint(
        "calibrate",
        "Estimate the depth of a photo in metres, from what is known of it: depths, lengths, flat patches."
        " Positions are pixels of the upright photo, from its top left corner."
        " Two hints at different depths are needed.",
        [
            *hint_arguments(example=[[600, 415, 6], [270, 150, 25]]),
            *fields(CalibrationMethod),
            *fields(Settings),
            *fields(DepthOutput),
            *fields(ColourSettings),
            *fields(MeshSettings),
        ],
        DepthOutput,
        MetresResult,
        run_metres,
    ),
    Endpoint(
        "import_depth",
        "Make files of a photo and a depth map from elsewhere, in metres where its file, the arguments or hints say so."
        " What the file says of its values is used; what was taken as usual stands in the manifest's note.",
        [
            *fields(DepthReading),
            *hint_arguments(),
            *fields(GivenOutput),
            *fields(ColourSettings),
            *fields(GivenMeshSettings),
        ],
        GivenOutput,
        MetresResult,
        run_given,
        files={"photo": PHOTO, "depth": DEPTH},
        needs=("photo", "depth"),
    ),
    Endpoint(
        "compare",
        "Compare denoising steps, numbers of members, seeds and checkpoints on one photo, side by side."
        " Members, first steps and the encoding are shared between cells."
        " A depth map from elsewhere may stand beside them. What is too much for one comparison is refused.",
        [
            *fields(Comparison, "steps", "sizes", "seeds", "processing_resolution", "views"),
            *fields(CompareOutput),
            *fields(DepthReading),
            *fields(MeshSettings, "fov_x_deg"),
        ],
        CompareOutput,
        CompareResult,
        run_compare,
        files={"photo": PHOTO, "depth": BESIDE},
    ),
    Endpoint(
        "panorama",
        "Turn a 360-degree panorama into distances from the camera, the farthest 1, and a textured mesh around it.",
        [*fields(Settings), *fields(EffectOutput), *fields(ClippedSettings), *fields(ColourSettings)],
        EffectOutput,
        PanoramaResult,
        run_panorama,
        files={"photo": PANORAMA},
    ),
    Endpoint(
        "video",
        "Turn a video into depth that is steady from frame to frame, over one range of depth, 0 = near, 1 = far."
        " Scenes are found by their cuts. A call that is stopped does not go on.",
        [
            *fields(Settings),
            *fields(EffectOutput),
            *fields(VideoSettings),
            *fields(FrameSettings),
            *fields(ColourSettings),
        ],
        EffectOutput,
        VideoResult,
        run_video,
        files={"video": CLIP},
        needs=("video",),
    ),
    Endpoint(
        "parallax",
        "Make a clip of one photo in which the camera moves a little and near things move more."
        " What the photo does not show is filled from the farther side, and marked in a second clip.",
        [*fields(Settings), *fields(EffectOutput), *fields(ParallaxSettings), *fields(CameraSettings)],
        EffectOutput,
        ParallaxResult,
        effect(run_parallax, ParallaxSettings),
    ),
    Endpoint(
        "defocus",
        "Blur a photo before and behind the pixel that is in focus, as a wide aperture does."
        " What shows through blurred edges and is not in the photo is filled, and marked in a second picture.",
        [*fields(Settings), *fields(EffectOutput), *fields(DefocusSettings), *fields(CameraSettings)],
        EffectOutput,
        DefocusResult,
        effect(run_defocus, DefocusSettings),
    ),
)
ENDPOINT_OF = {endpoint.name: endpoint for endpoint in ENDPOINTS}
