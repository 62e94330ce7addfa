"""Where along a curve to run the next trial.

Bisection of mass: pending trials cut the axis into pieces; the next one goes where it splits the largest
piece of the posterior of the threshold most evenly. So a batch spreads over the posterior. Where nothing is
pending, seven trials in a row go where a batch of seven would: to the median, the quartiles and the
octiles. (The median alone says least of the width, on which it depends how sure the threshold is.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from orchestrator.axis import Array

GOLDEN = 0.6180339887498949
STRETCH = 2.0
"""Units over which a curve that turns around does so for long enough to be looked for."""
TIE = 0.02
"""Trials by which places may differ and still be as good for an audit."""
NEAR = 0.25
"""Distance, in axis lengths, at which curves are neighbours."""
DRIFT = 1.0
"""Units by which thresholds of neighbours differ."""
ROUND = 7
"""Trials that are placed as if they were asked for together."""
AGAIN = 1e-3
"""Weight of candidates that are pending already. They are of use where all others are far from the threshold."""


def steps_of(t: Array, candidates: Array) -> Array:
    """`[T, X]`: masses `[.., T]` times this are P(t < candidate) `[.., X]`, smoothed over a quarter of the
    distance between candidates, so that the nearest one is found where all the mass lies between two.
    """
    smooth = float(np.median(np.diff(candidates))) / 4 if len(candidates) > 1 else 1.0
    return np.asarray(1 / (1 + np.exp(-np.clip((candidates - t[:, None]) / smooth, -500, 500))))


def split(below: Array, pending: Sequence[int], cost: Array) -> tuple[int, float]:
    """The candidate that splits most mass most evenly per cost, and how much it does: the entropy that its
    outcome removes if it falls on the threshold's side for sure. `below`: `[X]`, P(t < candidate).
    """
    counts = np.bincount(np.asarray(pending, np.int64), minlength=len(below))
    taken = counts > 0
    left = np.maximum.accumulate(np.where(taken, below, 0.0))
    right = np.minimum.accumulate(np.where(taken, below, 1.0)[::-1])[::-1]
    gain = _entropy(below - left, right - below) + AGAIN * _entropy(below, 1 - below) / (1 + counts)
    gain /= cost
    best = int(gain.argmax())
    return best, float(gain[best])


def next_split(below: Array, pending: Sequence[int], done: int, cost: Array) -> tuple[int, float]:
    """`split` for a curve of which `done` trials have ended."""
    together = list(pending)
    if not pending:
        for _ in range(done % ROUND):
            together.append(split(below, together, cost)[0])
    return split(below, together, cost)


def _entropy(a: Array, b: Array) -> Array:
    """Of a piece of mass a + b that is split in two, in bits."""
    a, b = np.maximum(a, 1e-300), np.maximum(b, 1e-300)
    return np.asarray((a + b) * np.log2(a + b) - a * np.log2(a) - b * np.log2(b))


def is_audit(number: int, share: float) -> bool:
    """Whether a curve's trial `number` (from 0) is one of the `share` of all that look at the whole axis."""
    before, after = (int(n * share + 0.5) for n in (number, number + 1))
    return after > before


def audit(candidates: Array, tried: Sequence[int], phase: float, *, at_end: int) -> int:
    """Where on the axis to look: first at the end where all should solve (`at_end`), then in stretches that nothing
    was `tried` in, the longest first, then where least was.

    `phase`, 0..1, differs between curves, so that they look at other places.
    """
    if at_end not in tried:
        return at_end
    places, spacing = _bounded(candidates, np.asarray(tried, np.int64), 1)
    longest = int(np.diff(places).argmax())
    gap = float(places[longest + 1] - places[longest])
    if gap > max(STRETCH, spacing) + 1e-9:
        pieces = math.ceil(gap / max(STRETCH - spacing, spacing))
        at = places[longest] + gap * (1 + int(phase * (pieces - 1))) / pieces
        return int(np.abs(candidates - at).argmin())
    away = (candidates[:, None] - candidates[np.asarray(tried, np.int64)]) / (STRETCH / 4)
    crowd = np.exp(-(away**2) / 2).sum(1)
    return int((crowd + TIE * ((phase + GOLDEN * np.arange(len(crowd))) % 1)).argmin())


def is_checked(candidates: Array, tried: NDArray[np.int64], least: int) -> bool:
    """Whether every stretch of the axis has at least so many trials, as far as candidates allow.

    `tried`: candidates, one for each trial.
    """
    places, spacing = _bounded(candidates, tried, least)
    return bool((places[least:] - places[:-least]).max() <= max(STRETCH, spacing) + 1e-9)


def _bounded(candidates: Array, tried: NDArray[np.int64], times: int) -> tuple[Array, float]:
    """Where was tried, increasing, between the ends of the axis so many times each; and candidates' spacing."""
    spacing = float(np.diff(candidates).max(initial=0.0))
    first, last = (np.full(times, end) for end in (candidates[0] - spacing, candidates[-1] + spacing))
    return np.concatenate([first, np.sort(candidates[tried]), last]), spacing


def neighbours(mass: Array, t: Array, place: Array) -> Array:
    """What the other curves' masses `[C, T]` suggest beforehand for each: `[C, T]`, mean about 1 along t.

    `place` `[C, D]`: coordinates, 0..1 each. Half of the suggestion is flat: neighbours choose where to look
    first, and a curve's own trials must be able to overrule them.
    """
    if len(mass) < 2:
        return np.ones_like(mass)
    away = np.square(place[:, None] - place).sum(-1)
    weight = np.exp(-away / (2 * NEAR**2))
    np.fill_diagonal(weight, 0.0)
    weight /= np.maximum(weight.sum(1, keepdims=True), 1e-300)
    blur = np.exp(-np.abs(t[:, None] - t) / DRIFT)
    return np.asarray(1 + len(t) * (weight @ mass @ (blur / blur.sum(1, keepdims=True))))
