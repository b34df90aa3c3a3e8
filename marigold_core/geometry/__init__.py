"""Depth to shapes: camera rays, points, normals, meshes, printable reliefs."""
