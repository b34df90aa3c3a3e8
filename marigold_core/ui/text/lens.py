"""The sentences of the lens screen."""

TAB = "Lens"
ABOUT = "Click what shall be sharp; what is nearer or farther is blurred, as by a wide aperture."
PICTURE = "Photo with depth of field"
PICTURE_ALT = "The photo; click what shall be sharp"
APERTURE = "Blur"
MARKED = "Mark invented pixels"
MARKED_INFO = "Behind a blurred edge shows what no photo tells; it is filled with what is beside it."
MAKE = "Make a clip"
MAKE_ABOUT = "A short clip in which the camera moves a little and near things move more."
MADE = "Made. In the second clip, white is what the photo does not show and was filled in."
CLIPS = {"clip": "The photo with a moving camera", "invented": "Invented pixels are white"}
