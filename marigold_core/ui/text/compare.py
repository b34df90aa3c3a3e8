"""The sentences of the compare screen."""

STEPS, SIZES = "Denoising steps: the rows", "Ensemble sizes: the columns"
SEEDS, CHECKPOINTS = "Seeds: a grid for each", "Checkpoints: a grid for each"
RUN = "Compare"
READY = "Choose what to compare; every combination becomes a picture."
EMPTY = (
    "Is one step enough? Do ten members change anything? Run every combination on one photo, look at the same spot "
    "in all of them, and see what each one costs and where they differ."
)
COST = "{cells}, about {time}; shared members make it {share:.2f} of separate runs."
COST_GUESS = "{cells}, roughly {time}, a first guess; shared members make it {share:.2f} of separate runs."
DONE = "{cells} in {time}. Click one to measure the others against it."
BACK = "{cells}. Click one to measure the others against it."
STOPPED = "Stopped after {done} of {cells}."
GOES_ON = "{done} of {cells} done, and another page of yours is at it. Load this page again to see how it goes on."
SHOWS = {"maps": "Maps", "differences": "Differences to the reference"}
SHOWN = "Pictures"
BLOCK = "{checkpoint}, seed {seed}"
CELL = "{made}: {figures}. Measure the others against it."
CELL_MADE = "{checkpoint}, seed {seed}, {steps}, {members}"
GRID = "Compared pictures"
TABLE = "Figures of the compared pictures"
HINT = (
    "Scroll, pinch or press + and - to zoom, drag or use the arrow keys to move, 0 for all of it: every picture "
    "follows. Click a picture to measure the others against it."
)
ZOOM = "Zoom of all pictures"
ZOOMS = {"out": ("−", "Zoom out"), "in": ("+", "Zoom in"), "reset": ("1:1", "Show all of it")}
NORMALS = "red: right, green: up, blue: toward the viewer"
COLUMNS = {
    "checkpoint": "Checkpoint",
    "seed": "Seed",
    "steps": "Steps",
    "members": "Members",
    "seconds": "Seconds",
    "uncertainty": "Mean uncertainty",
    "difference": "Mean difference",
    "difference_p95": "95 % of pixels below",
}
REFERENCE = "reference"
UNKNOWN = "needs 3 members"
FILES = {"sheet": "Sheet PNG", "differences": "Differences PNG", "table": "Table CSV"}
