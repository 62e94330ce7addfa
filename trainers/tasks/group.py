"""Word problems of finite groups (Liu et al. 2023, arXiv 2210.10749; Merrill et al. 2024, arXiv 2404.08819)."""

from __future__ import annotations

import functools
import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from trainers.base import STRICT
from trainers.tasks.pooled import Kind, Measure, PooledTask, Sampling, held_out_size, whole_or_inf

if TYPE_CHECKING:
    from torch import Tensor

    from trainers.tasks.pools import Request

MAX_ORDER = 512
GROUPS = re.compile(r"S[2-5]|A[3-6]|Z\d{1,4}|Z2\^\d{1,2}")


def order_of(group: str) -> int:
    """Number of elements of `S5`, `A5`, `Z60`, `Z2^6`."""
    if group.startswith("Z2^"):
        return 2 ** int(group[3:])
    number = int(group[1:])
    if group.startswith("Z"):
        return number
    return math.factorial(number) // (2 if group.startswith("A") else 1)


@dataclass(frozen=True, kw_only=True)
class Group(PooledTask):
    """Multiply elements of a group, g_1 g_2 ... g_L: every prefix product, or the last one.

    Tokens: elements by number. Permutations (S5: all of 5 things; A5: the even ones) are numbered in
    lexicographic order, and pq is first q, then p. Z60: the numbers mod 60, added; Z2^6: six bits, added without
    carry. With S3, whose elements are 0: 012, 1: 021, 2: 102, 3: 120, 4: 201, 5: 210:

        input            1 2 3       021, 102, 120
        readout all      1 4 0       021; 021 102 = 201 (0 to 1 to 2, 1 to 0 to 0, 2 to 2 to 1); 201 120 = 012
        readout last         0
    """

    __pydantic_config__: ClassVar = STRICT
    VERSION: ClassVar[int] = 1
    SHORT_NAMES: ClassVar[Mapping[str, str]] = {
        "group": "group",
        "length": "length",
        "data_size": "data_size",
    }

    name: Literal["group"] = "group"
    """Which task this is."""
    group: str = "S5"
    """S2 .. S5, A3 .. A6, Zn, or Z2^m, of at most 512 elements."""
    length: int
    """Elements of one word, 1 or more."""
    readout: Literal["all", "last"] = "all"
    """Every prefix product is an answer, or the product of the whole word alone."""
    data_size: float
    """Words in the pool: a whole number, or inf for fresh ones in every batch."""
    sampling: Sampling = "replacement"
    """Batches are independent draws from the pool, or shuffled passes over it."""
    eval_size: int = 512
    """Words in each evaluation set (half of all there are, if that is fewer)."""

    def checks(self) -> Sequence[tuple[bool, str]]:
        is_group = bool(GROUPS.fullmatch(self.group)) and 2 <= order_of(self.group) <= MAX_ORDER
        known = f"S2 .. S5, A3 .. A6, Zn or Z2^m, of 2 to {MAX_ORDER} elements"
        return [
            (is_group, f"group must be one of {known}, not {self.group!r}"),
            (self.length >= 1, f"length must be 1 or more, not {self.length}"),
            whole_or_inf("data_size", self.data_size),
        ]

    @property
    def sequence_length(self) -> int:
        return self.length

    @property
    def vocab_size(self) -> int:
        return order_of(self.group)

    @property
    def answers(self) -> range:
        return range(0 if self.readout == "all" else self.length - 1, self.length)

    def kinds(self) -> Sequence[Kind]:
        space = self.vocab_size**self.length
        kept = held_out_size(space, self.eval_size)
        return [Kind(name="words", space=space, pool=self.data_size, held_out=kept)]

    def shape(self) -> tuple[object, ...]:
        return (self.group, *super().shape())

    def measures(self) -> Mapping[str, Measure]:
        """The usual ones, and of the last product alone where there are others."""
        n_answers = len(self.answers)
        last = Measure("words", "accuracy", range(n_answers - 1, n_answers))
        return {**super().measures(), **({"test_last_accuracy": last} if n_answers > 1 else {})}

    def examples(self, request: Request) -> tuple[Tensor, Tensor]:
        import torch

        words = request.digits([self.vocab_size] * self.length)  # [M, L]
        table = product_table(self.group).to(words.device).flatten()
        products = [words[:, 0]]
        for element in words[:, 1:].unbind(1):
            products.append(table[products[-1] * self.vocab_size + element])
        return words, torch.stack(products, 1)[:, self.answers.start :]


@functools.cache
def product_table(group: str) -> Tensor:
    """The number of the product of every two elements: `[order, order]`."""
    import torch

    order = order_of(group)
    number = torch.arange(order)
    if group.startswith("Z2^"):
        return number[:, None] ^ number
    if group.startswith("Z"):
        return (number[:, None] + number) % order
    elements = permutations_of(group)
    numbers = {element: i for i, element in enumerate(elements)}
    products = [[numbers[tuple(p[i] for i in q)] for q in elements] for p in elements]
    return torch.tensor(products)


def permutations_of(group: str) -> list[tuple[int, ...]]:
    """The elements of a symmetric or alternating group, in lexicographic order."""
    everything = itertools.permutations(range(int(group[1:])))
    return [p for p in everything if group.startswith("S") or is_even(p)]


def is_even(permutation: tuple[int, ...]) -> bool:
    """Whether it takes an even number of exchanges."""
    return sum(a > b for a, b in itertools.combinations(permutation, 2)) % 2 == 0
