"""The sentences of the screen for videos."""

TAB = "Video"
CLIP = "Video"
RUN = "Start"
READY = "Add a video; its depth becomes a clip that is steady from frame to frame."
EMPTY = (
    "A short clip of up to {most} frames and 40 MB. Scale and shift are kept from frame to frame along the motion, cuts"
    " are found, and one range of depth holds for all. Stopped, it goes on where it was."
)
NO_CLIP = "Add a video first."
LEFT = "{stage}, {time} left"
TIME = "in {time}"
STOPPED = "Stopped. Start goes on where it was, with the same video."
GOES_ON = "Another page of yours is at this video."
CLIPS = {"side_by_side": "The video and its depth", "color": "Depth in colour", "grey": "Depth in grey, near is white"}
