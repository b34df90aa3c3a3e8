"""Drawings of an ensemble as markup: how its map settles, and what its members say about one pixel.

Lines are stretched with the page and all else is placed in per cent, so that a phone gets the same size of type. Every
drawing has its sentence: it is written below and is what a screen reader says in its place.
"""

from collections import Counter
from collections.abc import Sequence
from math import floor, log10

import numpy as np

from marigold_core.pipeline.convergence import Point, settled_at
from marigold_core.pipeline.member_values import Votes, votes_at
from marigold_core.prediction import Prediction
from marigold_core.ui import text

SHORT, LONG = 10, 20  # members on the axis; it changes once at most while a run goes on
TICKS = {SHORT: range(1, 11), LONG: (1, 5, 10, 15, 20)}
NICE = (1, 2, 4, 6, 10)  # ends of an axis, times a power of ten: half of them is as easy to read
COLUMN = 2.5  # per cent of the strip's width; dots closer than that are stacked


def amount(share: float, modality: str) -> str:
    """Say a share of the depth range as "3.1 %" or "0.25 %", of normals half turns as "12°"."""
    if modality == "normals":
        return f"{share * 180:.1f}°"
    return f"{share * 100:.{1 if share >= 0.01 else 2}f} %"


def draw_curve(points: Sequence[Point], below: float, modality: str) -> str:
    """Draw change and uncertainty over members, and the rule's threshold ``below`` as a dotted line -> HTML."""
    sentence = say_curve(points, below, modality)
    span = SHORT if len(points) <= SHORT else LONG
    moved = [(point.members, point.moved) for point in points if point.moved is not None]
    doubt = [(point.members, point.uncertainty) for point in points if point.uncertainty is not None]
    top = _nice(max([2 * below, *(share for _, share in moved + doubt)]))
    lines, dots = "", ""
    for name, series in (("doubt", doubt), ("moved", moved)):
        places = [(100 * (members - 1) / (span - 1), 100 * share / top) for members, share in series]
        lines += f"<polyline class='{name}' points='{' '.join(f'{x:.2f},{100 - y:.2f}' for x, y in places)}'/>"
        dots += "".join(f"<i class='{name}' style='left:{x:.2f}%;bottom:{y:.2f}%'></i>" for x, y in places)
    height = 100 - 100 * below / top
    lines += f"<line class='rule' x1='0' x2='100' y1='{height:.2f}' y2='{height:.2f}'/>"
    for half in (0, 1, 2):
        dots += f"<span class='y' style='bottom:{50 * half}%'>{amount(top * half / 2, modality) if half else 0}</span>"
    for members in TICKS[span]:
        dots += f"<span class='x' style='left:{100 * (members - 1) / (span - 1):.2f}%'>{members}</span>"
    return (
        f"<figure class='curve'><figcaption><b class='moved'>{text.CURVE_MOVED}</b>"
        f"<b class='doubt'>{text.CURVE_DOUBT}</b></figcaption>"
        f"<div class='plot' role='img' aria-label='{sentence}'><svg viewBox='0 0 100 100' preserveAspectRatio='none'"
        f" aria-hidden='true'>{lines}</svg>{dots}</div><small>{text.CURVE_MEMBERS}</small><p>{sentence}</p></figure>"
    )


def say_curve(points: Sequence[Point], below: float, modality: str) -> str:
    """Say what the curve shows: the last change, the mean spread, and where the rule would have ended the run."""
    if not points:
        return text.CURVE_NONE
    last = points[-1]
    if last.moved is None:
        return text.CURVE_ONE
    of_range = text.OF_RANGE if modality == "depth" else ""
    said = text.CURVE_LAST.format(number=last.members, moved=amount(last.moved, modality) + of_range)
    if last.uncertainty is not None:
        said += text.CURVE_SPREAD.format(doubt=amount(last.uncertainty, modality))
    settled = settled_at(points, below)
    if settled is None:
        return said + "."
    return f"{said}. " + text.CURVE_SETTLED.format(number=settled, below=amount(below, modality))


def draw_votes(prediction: Prediction, pixel: tuple[int, int] | None) -> str:
    """Draw the depth of a photo's pixel (x, y) in every member, from near to far, or say why that cannot be -> HTML."""
    height, width = prediction.photo.shape[:2]
    if prediction.modality != "depth":
        return draw_hint(text.VOTES_ONLY_DEPTH)
    if prediction.members is None:
        return draw_hint(text.VOTES_NOT_KEPT)
    if prediction.uncertainty is None:
        return draw_hint(text.VOTES_FEW)
    if pixel is None:
        return draw_hint(text.VOTES_NONE)
    x, y = pixel
    if not (0 <= x < width and 0 <= y < height):
        return draw_hint(text.VOTES_OUTSIDE.format(width=width, height=height))
    votes, unit = votes_at(prediction, x, y), " m" if prediction.kind == "metric" else ""
    sentence = say_votes(votes, unit)
    extent = (votes.high - votes.low) or 1.0
    places = 100 * (np.sort(votes.depths[~np.isnan(votes.depths)]) - votes.low) / extent
    dots, stacked = "", Counter[int]()
    for place in places.clip(0, 100):
        column = round(place / COLUMN)
        dots += f"<i style='left:{place:.2f}%;--row:{stacked[column]}'></i>"
        stacked[column] += 1
    fused = 100 * (votes.fused - votes.low) / extent
    return (
        f"<figure class='votes' data-u='{(x + 0.5) / width:.5f}' data-v='{(y + 0.5) / height:.5f}'>"
        f"<figcaption>{text.VOTES}</figcaption>"
        f"<div class='strip' role='img' aria-label='{sentence}'><b style='left:{fused:.2f}%'></b>{dots}</div>"
        f"<div class='ends'><span>{text.NEAR} {_number(votes.low, unit)}</span>"
        f"<span>{_number(votes.high, unit)} {text.FAR}</span></div><p>{sentence}</p></figure>"
    )


def draw_hint(sentence: str) -> str:
    """Draw a sentence in the place of the votes."""
    return (
        f"<figure class='votes'><figcaption>{text.VOTES}</figcaption><div class='strip'></div>"
        f"<div class='ends'><span>{text.NEAR}</span><span>{text.FAR}</span></div><p>{sentence}</p></figure>"
    )


def say_votes(votes: Votes, unit: str) -> str:
    """Say how many members are of which opinion, and what became of it."""
    nearer, *farther = votes.camps()
    members, voting = len(votes.depths), nearer.size + sum(camp.size for camp in farther)
    if not voting:
        return text.VOTES_FLAT
    fused = _number(votes.fused, unit)
    if farther:
        near, far = (_number(float(np.median(camp)), unit) for camp in (nearer, farther[0]))
        said = text.VOTES_CAMPS.format(
            nearer=nearer.size, farther=farther[0].size, members=members, near=near, far=far, fused=fused
        )
    else:
        ends = _number(float(nearer[0]), unit), _number(float(nearer[-1]), unit)
        said = text.VOTES_ONE.format(count=text.count(voting, "member"), low=ends[0], high=ends[1], fused=fused)
    if voting < members:
        said += text.VOTES_LEFT_OUT.format(count=text.count(members - voting, "member"))
    return said


def _number(depth: float, unit: str) -> str:
    return f"{depth:.2f}{unit}"


def _nice(top: float) -> float:
    """Find the next end of an axis that is easy to read."""
    power = 10.0 ** floor(log10(top))
    return next(nice * power for nice in NICE if nice * power >= top * (1 - 1e-9))
