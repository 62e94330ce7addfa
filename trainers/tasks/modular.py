"""Modular addition, where grokking was found (Power et al. 2022, arXiv 2201.02177; Nanda et al. 2023, arXiv
2301.05217)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from trainers.base import STRICT
from trainers.tasks.mixture import exact, round_half_up
from trainers.tasks.pooled import Kind, PooledTask, Sampling, held_out_size

if TYPE_CHECKING:
    from torch import Tensor

    from trainers.tasks.pools import Request


@dataclass(frozen=True, kw_only=True)
class Modular(PooledTask):
    """a + b mod p, trained on a share of all p^2 pairs.

    Tokens: a, b, then p, where the answer is read. With p=7:

        input    target
        3 5 7    1        3 + 5 = 8 = 7 + 1
        0 6 7    6
    """

    __pydantic_config__: ClassVar = STRICT
    VERSION: ClassVar[int] = 1
    SHORT_NAMES: ClassVar[Mapping[str, str]] = {"p": "p", "fraction": "fraction"}

    name: Literal["modular"] = "modular"
    """Which task this is."""
    p: int = 97
    """The modulus, 2 to 1000; a prime in the literature."""
    fraction: float
    """Share of all pairs in the pool, above 0 and below 1."""
    sampling: Sampling = "epochs"
    """Batches are shuffled passes over the pool, or independent draws from it."""
    eval_size: int = 512
    """Pairs in each evaluation set (half of all pairs, if that is fewer). They are the same for every fraction."""

    def checks(self) -> Sequence[tuple[bool, str]]:
        return [
            (2 <= self.p <= 1000, f"p must be from 2 to 1000, not {self.p}"),
            (0 < self.fraction < 1, f"fraction must be above 0 and below 1, not {self.fraction:g}"),
        ]

    @property
    def sequence_length(self) -> int:
        return 3

    @property
    def vocab_size(self) -> int:
        return self.p + 1

    @property
    def answers(self) -> range:
        return range(2, 3)

    def kinds(self) -> Sequence[Kind]:
        space = self.p**2
        pool = round_half_up(exact(self.fraction) * space)
        return [Kind(name="pairs", space=space, pool=pool, held_out=held_out_size(space, self.eval_size))]

    def examples(self, request: Request) -> tuple[Tensor, Tensor]:
        import torch

        pairs = request.digits([self.p, self.p])  # [M, 2]
        end = torch.full_like(pairs[:, :1], self.p)
        return torch.cat((pairs, end), 1), pairs.sum(1, keepdim=True) % self.p
