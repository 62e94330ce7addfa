"""k-hop induction heads (Sanford, Hsu, Telgarsky, ICML 2024, arXiv 2402.09268)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from trainers.base import STRICT, Overlay
from trainers.tasks.pooled import (
    TRAIN,
    Kind,
    Measure,
    PooledTask,
    Sampling,
    held_out_size,
    whole_or_inf,
)

if TYPE_CHECKING:
    from torch import Tensor

    from trainers.tasks.pools import Request


@dataclass(frozen=True, kw_only=True)
class KHop(PooledTask):
    """At every position i, the symbol that k jumps lead to: from i to the place after the last earlier x_i.

    x is a random sequence without equal neighbours. A jump from i goes to j + 1, for the largest j < i with
    x_j = x_i; where a symbol is new there is none, and the answer is "none". Tokens: symbols 0 .. alphabet - 1,
    then "none" (a target only), then one for each number of hops. With alphabet=3 (none: 3) and k=2:

        hops, x     5   0 1 2 0 2 1 0        token 5: two hops; 4 would be one
        position        0 1 2 3 4 5 6
        jump to         - - - 1 3 2 4        from 6: the last earlier 0 is at 3, so to 4
        two jumps       - - - - 1 - 3        from 6 to 4 to 3
        target          3 3 3 3 1 3 0

    The score is the share of right answers where there is one; "none" is trained, and does not count.
    """

    __pydantic_config__: ClassVar = STRICT
    VERSION: ClassVar[int] = 1
    SHORT_NAMES: ClassVar[Mapping[str, str]] = {"k": "k", "length": "length", "data_size": "data_size"}

    name: Literal["khop"] = "khop"
    """Which task this is."""
    length: int = 100
    """Symbols of one sequence, 2 or more."""
    alphabet: int = 4
    """Different symbols, 3 to 64."""
    k: int
    """Number of hops, 1 or more."""
    mixed: bool = True
    """Train on 1 .. k hops, equally often, as the paper does; otherwise on k hops alone."""
    data_size: float
    """Sequences in the pool: a whole number, or inf for fresh ones in every batch. With `mixed`, divided equally
    among the numbers of hops (k gets what is left over)."""
    sampling: Sampling = "replacement"
    """Batches are independent draws from the pool, or shuffled passes over it."""
    eval_size: int = 128
    """Sequences in each evaluation set (half of all there are, if that is fewer)."""

    def checks(self) -> Sequence[tuple[bool, str]]:
        return [
            (self.length >= 2, f"length must be 2 or more, not {self.length}"),
            (3 <= self.alphabet <= 64, f"alphabet must be from 3 to 64, not {self.alphabet}"),
            (self.k >= 1, f"k must be 1 or more, not {self.k}"),
            whole_or_inf("data_size", self.data_size),
        ]

    @property
    def sequence_length(self) -> int:
        return self.length + 1

    @property
    def vocab_size(self) -> int:
        return self.alphabet + 1 + self.k

    @property
    def answers(self) -> range:
        return range(1, self.length + 1)

    @property
    def bases(self) -> list[int]:
        """A sequence as digits: its first symbol, then how far each is from the one before."""
        return [self.alphabet, *[self.alphabet - 1] * (self.length - 1)]

    @property
    def hops(self) -> range:
        """The numbers of hops that are trained on."""
        return range(1 if self.mixed else self.k, self.k + 1)

    def kinds(self) -> Sequence[Kind]:
        space = self.alphabet * (self.alphabet - 1) ** (self.length - 1)
        share = self.data_size // len(self.hops)  # inf // n is nan
        share = self.data_size if share != share else share
        kept = held_out_size(space, self.eval_size)
        easy = [Kind(name=f"r{r}", space=space, pool=share, held_out=kept) for r in self.hops[:-1]]
        rest = self.data_size - share * len(easy) if easy and share < self.data_size else self.data_size
        return [*easy, Kind(name=f"r{self.k}", space=space, pool=rest, held_out=kept)]

    def overlays(self) -> Sequence[Overlay]:
        """The depth of the construction in the paper, whose trained models of 4 heads need as much."""
        return (Overlay("depth", "floor(log2(k)) + 2"),)

    def measures(self) -> Mapping[str, Measure]:
        """On the pool, on held-out sequences of k hops, and held out for each trained number of hops r."""
        hardest = f"r{self.k}"
        per_r = {f"test_accuracy_r{r}": self._accuracy(f"r{r}") for r in self.hops}
        return {
            "train_accuracy": self._accuracy(TRAIN),
            "train_loss": Measure(TRAIN, "loss"),
            "test_accuracy": self._accuracy(hardest),
            "test_loss": Measure(hardest, "loss"),
            **(per_r if self.mixed else {}),
        }

    def _accuracy(self, of: str) -> Measure:
        return Measure(of, "answer_accuracy", but=self.alphabet)

    def examples(self, request: Request) -> tuple[Tensor, Tensor]:
        import torch

        symbols = symbols_of(request.digits(self.bases), self.alphabet)  # [M, N]
        hops = self.hops[request.kind]
        code = torch.full_like(symbols[:, :1], self.alphabet + hops)
        return torch.cat((code, symbols), 1), answers_of(symbols, hops, self.alphabet)


def symbols_of(digits: Tensor, alphabet: int) -> Tensor:
    """Sequences `[M, N]` without equal neighbours, from digits `[M, N]` (`KHop.bases`)."""
    import torch

    steps = torch.cat((digits[:, :1], digits[:, 1:] + 1), 1)
    return steps.cumsum(1) % alphabet


def answers_of(symbols: Tensor, hops: int, alphabet: int) -> Tensor:
    """The symbols `[M, N]` that so many jumps lead to; `alphabet` where there is none."""
    import torch

    n_sequences, length = symbols.shape
    place = torch.arange(length, device=symbols.device)
    jump = torch.full_like(symbols, length)  # a place beyond the last stands for none
    for symbol in range(alphabet):
        is_here = symbols == symbol
        last = torch.where(is_here, place, -1).cummax(1)[0].roll(1, 1)  # before each position
        last[:, 0] = -1
        jump = torch.where(is_here & (last >= 0), last + 1, jump)
    nowhere = symbols.new_full((n_sequences, 1), length)
    jump, values = torch.cat((jump, nowhere), 1), torch.cat((symbols, nowhere * 0 + alphabet), 1)
    at = place.expand(n_sequences, -1)
    for _ in range(hops):
        at = jump.gather(1, at)
    return values.gather(1, at)
