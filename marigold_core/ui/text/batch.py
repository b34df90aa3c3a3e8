"""The sentences of the screen for many photos."""

PHOTOS = "Photos"
FORMATS = "Files for each photo"
RUN = "Start"
READY = "Add photos; each becomes the files that you tick, and all of them go into one ZIP."
EMPTY = (
    "Drop many photos at once, or a few at a time. What is done stays when you stop or add more photos,"
    " and starting again goes on with the rest."
)
NO_PHOTOS = "Add some photos first."
NO_FORMATS = "Tick at least one file to make of each photo."
PLACE = "{done} of {count} done; {stage}"
LEFT = ", {time} left"
DONE = "{done} of {count} done in {time}."
BACK = "{done} of {count} done."
FAILED = " {failed} could not be done; the table says why."
GOES_ON = "{done} of {count} done, and another page of yours is at it. Start shows how it goes on."
STOPPED = "Stopped after {done} of {count}. Start goes on with the rest."
ZIP = "Download all as ZIP"
TABLE = "Photos and what became of each"
COLUMNS = ("Photo and depth", "Name", "State", "Seconds", "Remark")
STATES = {"waiting": "waiting", "running": "running", "done": "done", "failed": "failed"}
