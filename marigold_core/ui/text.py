"""Every English sentence of the page and of the HTTP answers, in one place."""

TITLE = "Marigold Depth Studio"
TAGLINE = "One photo becomes a depth map, a measure of its doubt, and a 3D scene you can turn."

PHOTO = "Your photo"
PHOTO_PLACEHOLDER = "Drop a photo here\n- or -\nClick to choose one"
EXAMPLES = "Or try one of these"
RUN = "Estimate depth"
STOP = "Stop"

PRESET = "Quality"
PRESETS = {"fast": "Fast", "balanced": "Balanced", "careful": "Careful"}
ADVANCED = "Settings"
STEPS = "Denoising steps"
MEMBERS = "Ensemble size"
RESOLUTION = "Resolution"
RESOLUTION_OWN = "Automatic"
RESOLUTION_NATIVE = "Photo's own size"
SEED = "Seed"
CHECKPOINT = "Checkpoint"
BUNDLED = "bundled"
ON_DISK = "on this machine"
DOWNLOAD = "downloads {size:.1f} GB"

DEPTH_TAB = "Depth"
DEPTH = "Photo and depth"
UNCERTAINTY_TAB = "Uncertainty"
UNCERTAINTY = "Photo and uncertainty"
UNCERTAINTY_NEEDS_MORE = (
    "Uncertainty is how much independent members disagree, so it needs at least 3 of them. "
    "Raise the ensemble size, or choose <b>Careful</b>, and run again."
)
UNCERTAINTY_ABOUT = (
    "Bright is where the {members} members disagree; on average by {mean:.3f} of the depth range. "
    "It shows doubt, not a calibrated error."
)
SCENE_TAB = "3D"
SCENE = "Textured mesh"
SCENE_HINT = "Drag to turn, scroll to zoom, hold Ctrl and drag to move."
SCENE_ONLY_DEPTH = "This checkpoint predicts surface normals; a mesh needs depth."
FIELD_OF_VIEW = "Field of view"
NEAR_RATIO = "Nearest / farthest"
EDGE_CUT = "Cut at depth jumps"

COLORMAP = "Colours"
COLORMAPS = {"Spectral": "Spectral", "cividis": "Cividis (colour-blind safe)"}
NEAR, FAR = "near", "far"
RELATIVE = "relative depth, not metres"

DOWNLOADS = "Download"
FORMATS = {
    "color": "Colour PNG",
    "png16": "16-bit PNG",
    "npy": "NumPy",
    "uncertainty": "Uncertainty",
    "normals": "Normals",
    "glb": "3D mesh GLB",
    "ply": "Points PLY",
    "stl": "Relief STL",
    "exr": "EXR",
}

READY = "Drop a photo, or pick an example."
EXAMPLE = "An example, computed beforehand with {name}. Drop your own photo on the left."
STARTING = "Starting"
DONE = "{members}, {steps}, {seconds:.1f} s &middot; {width} &times; {height} &middot; seed {seed} &middot; {name}"
STOPPED = "Stopped. Your settings are as you left them."

NO_PHOTO = "Add a photo first: drop one on the page, paste it, use the webcam or pick an example."
NO_RESULT = "Run a photo first."
UNKNOWN_CHECKPOINT = "There is no checkpoint {name!r} here; choose one of {names}."
UNKNOWN_VALUE = "{name} has no {value!r}; choose from {known}."
UNEXPECTED = "Something unexpected happened; the reference is {reference}. Please try again."
BUSY_CLIENT = "Too many requests in a short time; wait a few seconds and try again."
TOO_LARGE = "That is too large; a photo may have up to 40 MB."
INLINE_PHOTO = "Upload the photo as a file; pictures written into the request are not read."


def count(number: int, singular: str) -> str:
    """Say "1 member" or "4 members"."""
    return f"{number} {singular}" if number == 1 else f"{number} {singular}s"


def capital(sentence: str) -> str:
    """Begin with a capital and leave the rest as it is."""
    return sentence[:1].upper() + sentence[1:]
