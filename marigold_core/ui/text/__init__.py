"""Every English sentence of the page and of the HTTP answers, in one place; long screens have a file of their own here.

A translation is another package with these names. Gradio's own ``I18n`` is not used: it translates what widgets are
labelled with when the page is drawn, but none of the sentences that a handler makes, so a page would be half done.

Sentences are plain text and are escaped where they go into markup. One that carries markup is a ``Markup``, whose
``format`` escapes what it puts in.
"""

from markupsafe import Markup

from marigold_core.prediction import UncertaintyMeasure

TITLE = "Marigold Depth Studio"
TAGLINE = "One photo becomes a depth map, a measure of its doubt, and a 3D scene you can turn."

STUDIO_TAB = "Studio"
LAB_TAB = "Compare"
BATCH_TAB = "Many photos"
PHOTO = "Your photo"
PHOTO_PLACEHOLDER = "Drop a photo here\n- or -\nClick to choose one"
EXAMPLES = "Or try one of these"
RUN = "Estimate depth"
STOP = "Stop"

GIVEN = "Use a depth map from elsewhere"
GIVEN_ABOUT = (
    "PNG, TIFF, EXR, NPY or PFM; without a file, the depth that the photo itself carries, as phones write it."
    " Everything here then works on that map, and Compare measures its cells of the same photo against it."
)
GIVEN_FILE = "Depth map"
GIVEN_USE = "Use this depth"
GIVEN_DONE = "{name}, {kind}"
GIVEN_KINDS = {"affine": "relative depth", "scale": "relative depth from the camera on", "metric": "depth in metres"}
AS_STATED = "As the file says"
READING: dict[str, tuple[str, dict[str, str]]] = {  # label, and the words for its choices
    "greater": ("Greater values are", {"farther": "Farther", "nearer": "Nearer"}),
    "quantity": (
        "The values are",
        {"depth": "Depth", "disparity": "Disparity, 1 / depth", "log": "The logarithm of depth"},
    ),
    "kind": ("They are", {"affine": "Relative (affine)", "scale": "Relative, 0 is the camera", "metric": "In metres"}),
    "unit_m": ("Unit in metres", {"1": "Metres", "0.01": "Centimetres", "0.001": "Millimetres"}),
    "measured": ("Measured", {"axis": "Along the view's axis", "ray": "Straight from the camera"}),
}

PRESET = "Quality"
PRESETS = {"fast": "Fast", "balanced": "Balanced", "careful": "Careful", "detailed": "Detailed"}
ADVANCED = "More settings"
STEPS = "Denoising steps"
MEMBERS = "Ensemble size"
ONE_STEP = "This checkpoint predicts in one step"
SAME_MEMBERS = "This checkpoint is deterministic: members differ by their view alone, see Views under More settings"
RESOLUTION = "Resolution"
RESOLUTION_INFO = "Longest edge that the network sees; more shows finer things and takes longer"
RESOLUTION_OWN = "Automatic"
RESOLUTION_NATIVE = "Photo's own size"
SEED = "Seed"
VIEWS_LABEL = "Views"
VIEWS = {
    "photo": "The photo",
    "mirrored": "Photo and mirror image",
    "mirrored-rescaled": "Photo and mirror image, in three sizes",
}
TILES = "Tiles per side"
OUTLINES = "Follow the photo's outlines"
DECODER = "Decoder"
DECODERS = {
    "own": "The checkpoint's own",
    "preview": "A tiny one for previews, then its own",
    "tiny": "A tiny one alone",
}
CHECKPOINT = "Checkpoint"
BUNDLED = "bundled"
ON_DISK = "on this machine"
DOWNLOAD = "downloads {size:.1f} GB"

DEPTH_TAB = "Depth"
DEPTH = "Photo and depth"
UNCERTAINTY_TAB = "Uncertainty"
UNCERTAINTY = "Photo and uncertainty"
UNCERTAINTY_NEEDS_VIEWS = Markup(
    "This checkpoint is deterministic: run again, it gives the same map, and no ensemble tells where it may be wrong. "
    "For an uncertainty let it see the photo in other <b>views</b>, under More settings, with 3 members or more."
)
UNCERTAINTY_NEEDS_MORE = Markup(
    "Uncertainty is here how much independent members disagree, so it needs at least 3 of them, "
    "and this result has {members}. "
    "Run again with an ensemble size of 3 or more, or <b>Careful</b>, and let 3 members finish."
)

COLORMAP = "Colours"
COLORMAPS = {"Spectral": "Spectral", "cividis": "Cividis (colour-blind safe)"}
NEAR, FAR = "near", "far"

READY = "Drop a photo, or pick an example."
EXAMPLE = "An example, computed beforehand with {name}. Now try a photo of your own."
STARTING = "Starting"
DONE = "{members}, {steps}{tiles}, {seconds:.1f} s · {width} × {height} · seed {seed} · {name}"
STOPPED = "Stopped. Your settings are as you left them."
STOPPED_WITH = "Stopped. On show is a result of {members}."

NO_PHOTO = "Add a photo first: drop one on the page, paste it, use the webcam or pick an example."
NO_RESULT = "Run a photo first."
UNKNOWN_VALUE = "{name} has no {value!r}; choose from {known}."
UNEXPECTED = "Something unexpected happened; the reference is {reference}. Please try again."
UNREADABLE = (
    "This request could not be read; send a JSON object whose list called data has the arguments that /gradio_api/info"
    " lists."
)
UNREADABLE_UPLOAD = "This upload could not be read; send a file as multipart/form-data, in a field called files."
UNREADABLE_FIELDS = "This request could not be read; what it needs is missing or of another type: {names}."
NOT_JSON = "This request could not be read; send a JSON object."
NO_ENDPOINT = "There is no endpoint {name!r}; choose one of {known}."
NO_ARGUMENT = "{endpoint} has no argument {name!r}; /gradio_api/info lists those that it has."
NO_EVENT_NUMBER = "fn_index must be the number of an event, which /config lists, but got {number!r}."
NO_SESSION = "session_hash must be a text of your own choice, by which /gradio_api/queue/data finds the answers."
NO_EVENT = "Nothing waits or runs under this id; it has been answered already, or was never asked for."
TOO_MANY = "data has {given} values, but {name} takes at most {most}; /gradio_api/info lists them."
NOT_UPLOADED = '{name} must be {{"path": ...}} with the path that POST to /gradio_api/upload has answered.'
FOREIGN_PAGE = "A page of another server may not use these tools."
FILE_ADDRESS = "{name} must be {address} by POST to /gradio_api/upload."
DISK_FULL = "The disk of this server is full; try again later."
BUSY_CLIENT = "Too many requests in a short time; wait a few seconds and try again."
CALL_WAITS = "waiting for a place in the line"
CALLS_FULL = "Too many jobs are waiting already; try again in half a minute."
QUEUE_FULL = "Too many jobs are waiting already; your photo and settings stay here, so try again in half a minute."
TOO_LARGE = "That is too large; a photo may have up to 40 MB."
INLINE_PHOTO = "Upload the photo as a file; pictures and other addresses in the request are not read."

# Files
METRES_TAB = "Metres"
FILES_TAB = "Files"
EVERYTHING = "Everything ZIP"
EVERYTHING_USE = "Every format below in one, with the manifest."
STEREO = {
    "stereo_layout": "Stereo pair",
    "stereo_eye_distance": "Eye distance",
    "stereo_convergence": "Convergence",
}
STEREO_LAYOUTS = {
    "parallel": "Left eye left, full width",
    "cross-eyed": "Crossed eyes, full width",
    "parallel-half": "Left eye left, half width",
    "cross-eyed-half": "Crossed eyes, half width",
    "anaglyph": "Anaglyph for red and cyan glasses",
}
SAVE_FOR = "**Save for ...** one file, or several in a ZIP, as a program wants them."
MANIFEST = "Manifest"
MANIFEST_USE = "The record of the run: settings, checkpoint, versions, and a hash of every file."
FORMATS = {  # name, what the file is good for
    "npy": ("NumPy", "The depth values themselves, 32-bit, for your own programs."),
    "png16": (
        "16-bit PNG",
        "Depth in 65,536 greys for image and 3D software: near is dark, or white where near and far are swapped.",
    ),
    "color": ("Colour PNG", "Depth in the colours and the range of the Depth screen, to look at and to show."),
    "uncertainty": ("Uncertainty", "Where the map may be wrong, as numbers and as a picture."),
    "normals": (
        "Normals",
        "The direction that each surface faces on the 3D screen, as a picture for relighting.",
    ),
    "glb": ("3D mesh GLB", "The photo as the 3D screen's textured mesh, for Blender, game engines and web pages."),
    "ply": ("Points PLY", "The 3D screen's coloured points with normals and uncertainty, for point cloud software."),
    "stl": ("Relief STL", "The 3D screen's solid relief, for a 3D printer."),
    "exr": ("EXR", "The depth values as floats, for compositing and 3D: as grey, and as a Z channel."),
}
FORMATS_OF_LAYERS = {
    "npy": "The numbers of every layer, 32-bit, as one NPZ for your own programs.",
    "png16": "Every layer in 65,536 levels a channel, as it looks, in a ZIP.",
    "color": "Every layer as a picture to look at and for renderers, in a ZIP.",
    "exr": "All layers in one file as floats, colours as linear light, for compositing and rendering.",
}
WRITTEN = "written, {size}"
NEEDS_DEPTH = "Only a depth checkpoint has it."
NEEDS_MEMBERS = "It needs 3 members or more."

# Link and manifest
LINK = "Copy link"
LINK_USE = "The settings, and the example if it is one, as a web address. A photo of your own is never part of it."
LINK_COPIED = "Copied. It brings back the settings, and the example if it is one; your own photo stays here."
LINK_SHOWN = "Your browser does not let pages copy; take the address from the field."
LINK_NEW = "Photo or settings have changed since the link was copied: this is the new one."
LINK_ADDRESS = "Address"
LINK_RESTORED = "The settings are those of the link. "
LINK_REFUSED = "The link could not be used: {reason} "
REPLAY = "Run a manifest again"
REPLAY_USE = "Choose a manifest.json, or drop it anywhere on the page, with its photo unless that is here already."
REPLAYED = "Made again. {outcome}"
ONE_MANIFEST = "Give one manifest.json, alone or with the photo that it belongs to."
NO_MANIFEST = "This file is larger than any manifest."
THE_MANIFEST = "The file"
OTHER_DEPTH = "The depth map of this manifest, {name}, is not here; drop it together with the manifest and the photo."
OTHER_PHOTO = "The photo of this manifest, {width} x {height} pixels, is not here; drop it together with the manifest."
CHECKPOINT_ELSEWHERE = "The manifest was made with the checkpoint {name!r}, which is not on this machine."

# Examples, in words for those who cannot see them
EXAMPLE_PHOTOS = {
    "street": "A cobbled street between brick houses",
    "stream": "A stream that falls over rocks in a forest",
    "temple": "A pagoda above trees and a lake",
    "lounge": "A drum on a beanbag before a low table",
    "mountains": "A path up a meadow to rocky mountains",
    "coffee": "A cup of coffee on a wooden table",
    "cat": "The face of a tabby cat",
    "astronaut": "An astronaut in an orange suit with her helmet",
}

# Uncertainty
UNCERTAINTY_ABOUT: dict[UncertaintyMeasure, str] = {
    "spread": "Bright is where the {members} members disagree, by {mean} on average. It shows doubt, not a calibrated"
    " error.",
    "expected error": "Bright is where the depth is probably wrong, expected by {mean} on average. The checkpoint has a"
    " network for this, which learned its errors on rendered scenes; from 3 members on their spread counts too. It"
    " ranks places; its numbers are rough.",
}
OF_RANGE = " of the depth range"
UNCERTAINTY_WAITS = "Uncertainty shows where the map may be wrong; it comes with the members of the run."
CURVE_MOVED = "Change with each new member"
CURVE_DISAGREE = "Mean spread of the members"
CURVE_MEMBERS = "number of members"
CURVE_NONE = "This result kept no members. Run the photo to watch its map settle."
CURVE_ONE = "The curve begins with the second member: it shows how much each one changes the map."
CURVE_LAST = "Member {number} moved the map by {moved}"
CURVE_SPREAD = "; the members disagree by {uncertainty} on average"
CURVE_SETTLED = "The map settled at {number} members: the last two had moved it by less than {below} each."
MEMBER_VALUES = "The depth of one pixel in each member"
PIXEL, PIXEL_FORM = "Pixel: from the left, from the top", "312, 200"
MEMBER_VALUES_NONE = "Click a pixel of the picture, or type where it is, to see its depth in each member."
MEMBER_VALUES_FEW = "With 3 members or more, a click on the picture shows the depth of that pixel in each of them."
MEMBER_VALUES_NOT_KEPT = "This result kept no members. Run the photo, then click a pixel to see its depth in each."
MEMBER_VALUES_ONLY_DEPTH = {
    "normals": "This checkpoint predicts surface normals; only depths can be compared at one pixel.",
    "intrinsics": "This checkpoint predicts intrinsic images; only depths can be compared at one pixel.",
    "segmentation": "This checkpoint predicts classes; only depths can be compared at one pixel.",
}
MEMBER_VALUES_OUTSIDE = "There is no such pixel: the photo has {width} × {height}."
MEMBER_VALUES_FLAT = "The members found no depth in this photo."
MEMBER_VALUES_ONE_MODE = "{count} between {low} and {high}"
MEMBER_VALUES_TWO_MODES = (
    "Two groups: {nearer} of {members} members give about {near} (nearer), {farther} give about {far} (farther)"
)
MEMBER_VALUES_MOVED = "; their median is {median}"
MEMBER_VALUES_SHOWN = "; the map takes {shown}."
MEMBER_VALUES_LEFT_OUT = " Left out of the median: {count}, at odds with all others."
STOPS = "Stop when the map has settled"
STOPS_INFO = "Spares members that would change little; the ensemble size is then the most it may use."
BELOW = "Settled: two members in a row move it by less than (% of the depth range)"
SETTLED = "Stopped after {used} of {asked} members: the map had settled. About {seconds:.1f} s saved."
MORE = "Add {number} more members"
MORE_NONE = "This result kept no members to add to; run the photo first."
COMPLETE_GIVEN = "A depth map from elsewhere is not denoised, so it cannot be guided; run the photo first."
MORE_GIVEN = "A depth map from elsewhere has no members, which uncertainty needs; run the photo to have some."
MORE_SAME = "This checkpoint is deterministic: more members would be the same as these, other views would not."
MORE_FULL = "{most} members are the most that one result may have."

# Depth
LEFT, RIGHT = "Left", "Right"
LAYERS = {
    "photo": "Photo",
    "depth": "Depth in colour",
    "grey": "Depth in grey",
    "uncertainty": "Uncertainty",
    "normals": "Surface normals",
    "albedo": "Albedo",
    "roughness": "Roughness",
    "metallicity": "Metallicity",
    "shading": "Shading",
    "residual": "Residual",
    "classes": "Classes",
    "boxes": "Objects",
    "centre": "Centres of objects",
    "widths": "Widths of objects",
    "heights": "Heights of objects",
}
LAYER_MEMBER = "Member {number}"
ADJUST = "Adjust"
NEAR_END, FAR_END, INVERT = "Range from", "Range to", "Swap near and far"
HANDLE, HANDLE_INFO = "Handle", "Where the two sides meet, in per cent of the width."
SIZES = "Photo {width}×{height} → processed at {network_width}×{network_height}{tiles} → output {width}×{height}"
SIZES_TILES = ", and so is each of {per_side}×{per_side} tiles"
SIZES_GIVEN = "Photo {width}×{height} · {name}"
KEY_KINDS = {
    "affine": "Depth, relative: 0 is the nearest and 1 the farthest, not metres",
    "scale": "Depth, relative: the farthest is 1, not metres",
    "metric": "Depth in metres",
}
KEY_UNCERTAINTY: dict[UncertaintyMeasure, str] = {
    "spread": "Uncertainty: how far the members lie apart",
    "expected error": "Uncertainty: how far off the depth probably is",
}
KEY_MORE = "{tick} or more"
KEY_NORMALS = "Surface normals: the more red the more it faces right, green up, blue toward you"
KEY_LAYERS = {
    "albedo": "Albedo: the colour of the surfaces without light and shadow",
    "roughness": "Roughness: black is as smooth as a mirror, white is matt",
    "metallicity": "Metallicity: white is metal, black is not",
    "shading": "Shading: the light that falls on the surfaces",
    "residual": "Residual: what is neither, such as highlights and lamps",
    "classes": "Classes",
    "centre": "Centres: the lighter the surer that an object's middle is there",
    "widths": "Widths: white is an object as wide as the photo",
    "heights": "Heights: white is an object as high as the photo",
}
KEY_UP_TO_SCALE = "; the brightest is white, its scale is not known"
READOUT = "Values of the map; move with the arrow keys, in larger steps with Shift"
READOUT_HINT = "Point at the picture to read its values, or come here with Tab and use the arrow keys."
READ_DEPTH, READ_NORMAL, READ_UNCERTAINTY, READ_AT = "Depth", "Turned away from you by", "uncertainty", "at pixel"

# Cost, and the runs of this visit
COST = "{steps}, {members}{tiles}: about {time}{photo}."
COST_GUESS = "{steps}, {members}{tiles}: roughly {time}{photo}, a first guess."
COST_USUAL = " for 12 megapixels"
COST_DOWNLOAD = " Before that, {size:.1f} GB are downloaded, once."
GPU_TIME = (
    " It asks for {time} of your GPU time; a day has 2 minutes of it without an account at the Hub, 5 with one, 40 with"
    " PRO."
)
GPU_TOO_LONG = " One run may have the GPU for {limit}: "
GPU_FITS = "at most {members} with these steps."
GPU_FITS_NONE = "choose fewer steps or a lower resolution."
RUNS = "Runs of this visit"
NO_RUNS = "The runs of this visit line up here."
RUN_SEED, RUN_TILES, RUN_METRES = "seed {seed}", "{per_side}×{per_side} tiles", "in metres"
RUN_BACK = "An earlier run: {made}."
RUN_GONE = "The result of this run had to make room for later ones; run the photo again."
NOT_PERSISTED = "It is gone when the server restarts: {reason}"
RUN_GONE_SHORT = "made room"

# 3D
SCENE_TAB = "3D"
SCENE_HINT = "Drag to turn, scroll to zoom, hold Ctrl and drag to move."
SCENE_ONLY_DEPTH = {
    "normals": "This checkpoint predicts surface normals; shapes need depth.",
    "intrinsics": "This checkpoint predicts intrinsic images; shapes and normals need depth.",
    "segmentation": "This checkpoint predicts classes; shapes and normals need depth.",
}
SHAPE = "Shape"
SHAPES = {"mesh": "Textured mesh", "relief": "Relief to print", "points": "Points", "normals": "Surface normals"}
SHAPE_MORE = "More about the shape"
MESH_LABELS = {
    "fov_x_deg": "Field of view",
    "near_ratio": "Nearest / farthest",
    "edge_cut": "Cut at depth jumps",
    "near_clip": "Leave out nearer than",
    "far_clip": "Leave out farther than",
    "smoothing": "Smoothing",
    "uncertainty_cut": "Cut at doubt",
    "max_triangles": "Triangles at most",
    "relief_mm": "Longest edge",
    "relief_height_mm": "Height of the relief",
    "relief_base_mm": "Thickness of the plate",
}
FOV_EXIF = "from the photo's EXIF data"
FOV_MEASURED = "as the measurement had it"
FOV_KNOWN = "Horizontal, degrees; {origin}"
FOV_ASSUMED = "Horizontal, degrees; the photo does not say, 55 along its longer edge is usual"
FOV_GIVEN = "Horizontal, degrees; as you set it, the photo does not say"
FOV_CHANGED = "Horizontal, degrees; as you set it, {known:.1f} {origin}"
MESH_FACTS = "{triangles:,} triangles · {file}"
POINTS_FACTS = "{points:,} points · {file}"
RELIEF_FACTS = (
    "{closed} · {width:.0f} × {height:.0f} × {thickness:.1f} mm · {volume:.0f} cm³, {weight:.0f} g of PLA if printed "
    "full · {triangles:,} triangles · {file}"
)
WATERTIGHT, NOT_WATERTIGHT = "Watertight", Markup("<b>Not watertight</b>")
NORMALS_ABOUT = (
    "Which way each surface faces: red to the right, green up, blue toward you. Tilt depends on the field of view."
)


def count(number: int, singular: str) -> str:
    """Write "1 member" or "4 members"."""
    return f"{number} {singular}" if number == 1 else f"{number} {singular}s"


def tiles(per_side: int) -> str:
    """Write ", 2×2 tiles" after what else a run is made of; nothing where the photo is not cut."""
    return f", {RUN_TILES.format(per_side=per_side)}" if per_side > 1 else ""


def capital(sentence: str) -> str:
    """Begin with a capital and leave the rest as it is."""
    return sentence[:1].upper() + sentence[1:]


def size(size_bytes: int) -> str:
    """Write "412 kB" or "3.1 MB"."""
    return f"{size_bytes / 1e6:.1f} MB" if size_bytes >= 1e6 else f"{max(size_bytes / 1e3, 1):.0f} kB"
