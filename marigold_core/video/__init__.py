"""Depth of moving pictures: read frame by frame, predicted alike, aligned in time, written as clips or frames.

Needs the extra ``video`` (PyAV and OpenCV). Memory does not grow with the length of a clip.
"""
