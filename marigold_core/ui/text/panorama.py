"""The sentences of the screen for 360-degree panoramas."""

TAB = "360°"
ABOUT = (
    "This photo is twice as wide as high. If it shows the full circle and sphere (equirectangular), six overlapping"
    " views of it are predicted, aligned and blended, and the mesh stands all around you."
)
MAKE = "Predict all around"
MADE = "Distances all around; views differ by {seam:.1%} where they overlap. Drag to look around."
MADE_EMPTY = "Distances all around; views differ by {seam:.1%} where they overlap. {lacks}"
PICTURE = "Distances, from near to far in the colours of depth"
FILES = {
    "glb": "Mesh (GLB)",
    "npy": "Distances (NPY)",
    "png16": "Distances, 16 bits (PNG)",
    "color": "Distances in colour (PNG)",
    "record": "Record (JSON)",
}
