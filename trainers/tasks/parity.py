"""Sparse parity: which k of n bits decide? (Barak et al. 2022, arXiv 2207.08799)"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from trainers.base import STRICT
from trainers.tasks.pooled import Kind, PooledTask, Sampling, held_out_size, whole_or_inf

if TYPE_CHECKING:
    from torch import Tensor

    from trainers.tasks.base import Seeds
    from trainers.tasks.pools import Request

MAX_N = 60
"""All inputs of so many bits can be numbered."""


@dataclass(frozen=True, kw_only=True)
class Parity(PooledTask):
    """The parity of k hidden bits among n; which ones is fixed for a trial.

    Tokens: the bits, then 2, where the answer is read. With n=5, k=2 and bits 1 and 4 (from 0) hidden:

        input          target
        0 1 1 0 0 2    1        1 + 0
        1 1 0 0 1 2    0        1 + 1
    """

    __pydantic_config__: ClassVar = STRICT
    VERSION: ClassVar[int] = 1
    SHORT_NAMES: ClassVar[Mapping[str, str]] = {"n": "n", "k": "k", "data_size": "data_size"}

    name: Literal["parity"] = "parity"
    """Which task this is."""
    n: int
    """Number of bits, 1 to 60."""
    k: int
    """Number of bits that count, 1 or more."""
    data_size: float
    """Examples in the pool: a whole number, or inf for fresh ones in every batch."""
    sampling: Sampling = "replacement"
    """Batches are independent draws from the pool, or shuffled passes over it."""
    eval_size: int = 512
    """Examples in each evaluation set (half the inputs there are, if that is fewer)."""

    def checks(self) -> Sequence[tuple[bool, str]]:
        return [
            (1 <= self.n <= MAX_N, f"n must be from 1 to {MAX_N}, not {self.n}"),
            (self.k >= 1, f"k must be 1 or more, not {self.k}"),
            whole_or_inf("data_size", self.data_size),
        ]

    @property
    def sequence_length(self) -> int:
        return self.n + 1

    @property
    def vocab_size(self) -> int:
        return 3

    @property
    def answers(self) -> range:
        return range(self.n, self.n + 1)

    def kinds(self) -> Sequence[Kind]:
        space = 2**self.n
        return [
            Kind(
                name="parity", space=space, pool=self.data_size, held_out=held_out_size(space, self.eval_size)
            )
        ]

    def impossible(self, batch_size: int) -> str | None:
        too_few = f"there are only n = {self.n} bits, and k is {self.k}"
        return too_few if self.k > self.n else super().impossible(batch_size)

    def hidden(self, seeds: Seeds) -> Tensor:
        """Which k bits count: `[n]`, 1 for those."""
        import torch

        from trainers import random

        order = random.shuffle(random.key(seeds["task"], "parity bits"), self.n, torch.arange(self.n))
        return (order < self.k).long()

    def examples(self, request: Request) -> tuple[Tensor, Tensor]:
        bits = request.digits([2] * self.n)  # [M, n]
        parity = (bits * request.hidden[request.row]).sum(1, keepdim=True) % 2
        return _append(bits, 2), parity


def _append(tokens: Tensor, token: int) -> Tensor:
    import torch

    return torch.cat((tokens, torch.full_like(tokens[:, :1], token)), 1)
