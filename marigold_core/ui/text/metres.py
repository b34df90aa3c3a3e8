"""The sentences of the metres screen."""

from markupsafe import Markup

PICTURE = "Photo with marks"
PICTURE_ALT = "The photo with what you have marked on it. Points can also be typed as x and y."
KNOW = "What do you know?"
MODES = {"depth": "A distance from me", "length": "A length", "patch": "A flat surface", "distance": "Measure"}
MODE_HELP = {
    "depth": "Click a point and type how far it is from the camera. Two points, one near and one far, give metres.",
    "length": (
        "Click both ends of something and type how long it is. This needs the camera's field of view, below."
        " Two lengths, or one and a distance, give metres."
    ),
    "patch": (
        "Click two opposite corners of a piece of floor, wall or road that leads away from you, or three and more"
        " corners of another shape. It straightens the map; one distance or length more gives metres."
    ),
    "distance": "Click two points, and the distance between them appears. This needs metres and the field of view.",
}
POINT_X, POINT_Y = "x, pixels", "y, pixels"
MARK_POINT = "Mark this point"
METRES_VALUE = "Metres"
ADD_HINT = "Add"
BY_TAPE = "Measured straight from the camera to the point, by tape or laser"
BY_TAPE_INFO = "Otherwise straight ahead, as a floor plan says it. Needs the field of view."
CAMERA_VIEW = "Field of view, degrees across"
CAMERA_VIEW_INFO = "From the photo where it says so. A phone's main camera sees about 67 held sideways, 53 upright."
COMPLETE = "Follow every distance"
COMPLETE_HELP = (
    "Given distances alone, two or more, the photo is denoised again in 50 steps that they guide, so that the map goes"
    " through each of them. It takes a quarter of a minute with the small model, and minutes with a large one without a"
    " GPU. From some dozens of distances on it is nearer to the truth between them as well; with a few it may not be."
)
CLEAR_HINTS = "Clear all, back to relative"
POINTS_LACKING = {
    "depth": "Mark the point first: click it on the photo, or type its x and y.",
    "length": "Mark both ends first: click them on the photo, or type x and y of each.",
    "patch": "Mark two opposite corners, or three and more, first: click them on the photo, or type x and y of each.",
    "distance": "There is nothing to add here: the second point completes a distance.",
}
METRES_LACKING = "Type the number of metres first."
POINT_LACKING = "Type both x and y of the point, in pixels from the photo's top left corner."
POINT_OUTSIDE = "There is no such point: the photo has {width} x {height} pixels."
METRES_NONE = Markup("<b>Relative.</b> The map tells near from far, but not metres. Mark two things that you know.")
METRES_WAITS = "What you know of the photo is marked here once its map is there; two things give metres."
METRES_NOT_YET = Markup("<b>Not yet in metres.</b> {reason}")
METRES_FOUND = Markup("<b>In metres.</b> The picture spans {nearest} to {farthest} m; its middle depth is {middle} m.")
METRES_COMPLETED = Markup(
    "<b>In metres, following every distance.</b> The picture spans {nearest} to {farthest} m. What is known is between"
    " your points; far from them it is the model's guess."
)
METRES_EXACT = " As many hints as unknowns always fit; one more would check them."
METRES_FIT = " The hints fit to within {worst}."
METRES_STRAIGHT = Markup(
    "<b>Straightened, not metres.</b> The nearest part lies at {nearest} of the farthest distance, so sizes hold among"
    " one another. One known distance or length gives metres."
)
METRES_OWN = Markup("<b>In metres.</b> It says metres itself; choose Measure and click two points.")
HINT_COLUMNS = ("", "", "you said", "map says", "off by")
HINT_NAMES = {"depth": "distance", "length": "length", "patch": "flat surface", "near": "near plane"}
HINT_FLAT = "flat"
MEASURED_NAME = "measured"
REMOVE_ROW = "Remove row {number}"
SCALE_BAR = "{length} m, at {depth} m"
METRES_STATUS = "In metres, from {hints}. Files, legend and 3D say so and how."
STRAIGHT_STATUS = "Straightened by {hints}; still without metres."
RELATIVE_STATUS = "Relative depth again, as it was."
METRES_KNOWN = "What can I know about a photo?"
METRES_KNOWN_LIST = """
<ul>
<li>A door is about 2 m high and 0.85 m wide; a stair 0.17 m; a table 0.75 m, a worktop 0.9 m, a seat 0.45 m.</li>
<li>A sheet of A4 is 0.297 m long, a bank card 0.086 m; a person about 1.7 m, a car 4.5 m long and 1.8 m wide.</li>
<li>Your own distance: one long stride is about 0.8 m, and a map or a floor plan gives the larger ones.</li>
<li>Floors, walls, roads and table tops are flat, also where nothing about their size is known.</li>
</ul>
<p>A relative map lacks two numbers, how large and how far away everything is, so it takes two hints that differ in
depth. A length runs straight between its ends. The ± is one standard error: it holds what the hints and the
map leave uncertain, not every mistake that a model can make.</p>
"""
