"""How a pool is divided among kinds of examples, so that a larger pool has no fewer of any kind."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar, Literal

from trainers.base import STRICT

MAX_ZIPF = 20.0


def exact(value: float) -> Fraction:
    """The decimal number that was written: 0.3 is 3/10, so that 0.3 of 5 is 1.5, not a little less."""
    return Fraction(repr(value))


def round_half_up(value: Fraction) -> int:
    """The nearest whole number, halves upwards."""
    return math.floor(value + Fraction(1, 2))


@dataclass(frozen=True)
class Zipf:
    """Weights that fall with the number of hops r like r ** -zipf."""

    __pydantic_config__: ClassVar = STRICT

    zipf: float
    """The exponent, 0 (uniform) to 20."""

    def __post_init__(self) -> None:
        if not 0 <= self.zipf <= MAX_ZIPF:
            raise ValueError(f"zipf must be from 0 to {MAX_ZIPF:g}, not {self.zipf:g}")


@dataclass(frozen=True)
class Mixture:
    """Which easy examples there are, in which proportion, and how the pool is counted."""

    __pydantic_config__: ClassVar = STRICT

    hops: Literal["all", "powers_of_two"] | tuple[int, ...] = "all"
    """Numbers of hops of easy examples: every one below k, the powers of two below k, or a list."""
    weights: Literal["uniform"] | Zipf | tuple[float, ...] = "uniform"
    """Proportions of the easy hop lengths: equal, `{zipf: exponent}`, or one number for each of `hops`."""
    count: Literal["total", "hard"] = "total"
    """What `data_size` counts: all examples, or the hard ones, to which the easy ones are added."""

    def __post_init__(self) -> None:
        problems = [*self._hops_problems(), *self._weights_problems()]
        if problems:
            raise ValueError("; ".join(problems))

    def _hops_problems(self) -> list[str]:
        if isinstance(self.hops, str):
            return []
        if not self.hops or min(self.hops) < 1 or len(set(self.hops)) < len(self.hops):
            return [f"hops must be different whole numbers from 1 up, at least one, not {list(self.hops)}"]
        return []

    def _weights_problems(self) -> list[str]:
        if not isinstance(self.weights, tuple):
            return []
        if isinstance(self.hops, str):
            return [f"weights can only be a list where hops is a list too, not {self.hops!r}"]
        problems = []
        if len(self.weights) != len(self.hops):
            problems.append(f"weights has {len(self.weights)} numbers for {len(self.hops)} hop lengths")
        if not all(0 <= w < math.inf for w in self.weights) or not any(self.weights):
            problems.append(f"weights must be finite, not negative and not all 0, not {list(self.weights)}")
        return problems

    def easy_hops(self, k: int) -> tuple[int, ...]:
        """The hop lengths of easy examples; a list is returned as it is, even where it reaches k."""
        if self.hops == "all":
            return tuple(range(1, k))
        if self.hops == "powers_of_two":
            return tuple(2**i for i in range((k - 1).bit_length()))
        return tuple(r for r in self.hops if isinstance(r, int))

    def easy_weights(self, k: int) -> tuple[Fraction, ...]:
        """One weight for each of `easy_hops(k)`, summing to 1 (empty where there are none)."""
        hops = self.easy_hops(k)
        if isinstance(self.weights, tuple):
            raw = [exact(w) for w in self.weights]
        elif isinstance(self.weights, Zipf):
            raw = [Fraction((r / min(hops)) ** -self.weights.zipf) for r in hops]
        else:
            raw = [Fraction(1)] * len(hops)
        return tuple(w / sum(raw) for w in raw)


def apportion(total: int, weights: Sequence[Fraction]) -> list[int]:
    """Whole numbers that add up to `total`, in proportion to weights that sum to 1: Webster's method.

    No share ever shrinks as the total grows. Ties go to the earlier one.
    """
    # Each share gets its m-th unit when a growing scale passes (m - 1/2) / weight. At the scale total - J at
    # most total units are given out, so that only the few that are left need to be given one by one.
    scale = max(0, total - len(weights))
    shares = [round_half_up(w * scale) for w in weights]
    for _ in range(total - sum(shares)):
        i = max(range(len(weights)), key=lambda i: weights[i] / (2 * shares[i] + 1))
        shares[i] += 1
    return shares
