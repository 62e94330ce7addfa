"""What a device does with the trials in its slots: a training step, and an evaluation.

All that they read and write are tensors that stay where they are, the number of the step included, so that on CUDA
each is one graph. S slots; a slot without a trial computes like the others, and nobody looks at it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from trainers.transformer.config import Train
from trainers.transformer.model import PackedTransformer
from trainers.transformer.optimizer import AdamW, Settings
from trainers.transformer.replay import Replayed

CPU_EVALUATION_TOKENS, CUDA_EVALUATION_TOKENS = 1 << 14, 1 << 18
"""Tokens (over all slots) of one chunk of an evaluation; bounds its memory. On a CPU larger chunks leave the
caches and are slower."""


@dataclass(frozen=True)
class Rows:
    """The state of S trials under training, one row each."""

    params: Tensor  # [S, P]
    first: Tensor  # [S, P]: Adam's moments
    second: Tensor  # [S, P]
    step: Tensor  # [S], int64: finished steps
    is_finite: Tensor  # [S], bool: every loss was, since the last evaluation

    @classmethod
    def zeros(cls, n_slots: int, n_params: int, device: str) -> Rows:
        params, first, second = (torch.zeros(n_slots, n_params, device=device) for _ in range(3))
        step = torch.zeros(n_slots, dtype=torch.int64, device=device)
        return cls(params, first, second, step, torch.ones(n_slots, dtype=torch.bool, device=device))

    @property
    def tensors(self) -> list[Tensor]:
        return [getattr(self, field.name) for field in fields(self)]

    def take(self, slots: Sequence[int]) -> Rows:
        """A copy of these rows, in this order."""
        at = torch.tensor(list(slots), dtype=torch.int64, device=self.params.device)
        return Rows(*(tensor[at] for tensor in self.tensors))

    def to(self, device: str) -> Rows:
        return Rows(*(tensor.to(device) for tensor in self.tensors))

    def clone(self) -> Rows:
        return Rows(*(tensor.clone() for tensor in self.tensors))

    def put(self, slots: int | slice, rows: Rows) -> None:
        """Overwrite some rows."""
        for mine, theirs in zip(self.tensors, rows.tensors, strict=True):
            mine[slots] = theirs if isinstance(slots, slice) else theirs[0]


class Examples(Protocol):
    """What a program needs of `trainers.tasks.base.PackData`."""

    def batch(self, at: Tensor) -> tuple[Tensor, Tensor]: ...

    def evaluation(self) -> tuple[Tensor, Tensor]: ...


class Program:
    """Training and evaluation of S slots of one shape."""

    def __init__(
        self,
        model: PackedTransformer,
        data: Examples,
        train: Train,
        rows: Rows,
        *,
        parts: int = 1,
        is_compiled: bool = False,
    ) -> None:
        """`rows`: the program's own from now on. `parts`: pieces into which a batch is cut, so that the activations
        of one piece only are in memory."""
        self.model, self.data, self.rows, self.parts = model, data, rows, parts
        self.dtype = torch.bfloat16 if train.precision == "bf16" else torch.float32
        n_slots, device = len(rows.params), str(rows.params.device)
        self.settings = Settings(n_slots, device)
        self.optimizer = AdamW(rows.first, rows.second, train.betas, train.eps, model.n_decayed)
        self.at = torch.zeros(1, dtype=torch.int64, device=device)
        """Which of the prepared batches is next."""
        shape = data.evaluation()[1].shape
        self.loss, self.correct = (torch.zeros(shape, device=device) for _ in range(2))  # [S, E, Q]
        self._loss = torch.compile(self._slot_loss, dynamic=False) if is_compiled else self._slot_loss
        self._update = (
            torch.compile(self.optimizer.step, dynamic=False) if is_compiled else self.optimizer.step
        )
        self.train = Replayed(self._train, [*rows.tensors, self.at])
        self.evaluate = Replayed(self._evaluate, [self.loss, self.correct])

    def begin_block(self) -> None:
        """From the first of the prepared batches on."""
        self.at.zero_()
        self.rows.is_finite.fill_(True)

    def _train(self) -> None:
        rows = self.rows
        loss, grads = self._gradients(*self.data.batch(self.at))
        rows.is_finite.logical_and_(torch.isfinite(loss))
        self._update(rows.params, grads, rows.step.float().unsqueeze(1), self.settings)
        rows.step.add_(1)
        self.at.add_(1)

    def _gradients(self, tokens: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Mean loss `[S]` over each slot's answers, and its gradient `[S, P]`."""
        leaf = self.rows.params.detach().requires_grad_()
        n_answers = (targets >= 0).sum((1, 2)).clamp(min=1)
        losses: list[Tensor] = []
        grads: Tensor | None = None
        for piece in zip(tokens.chunk(self.parts, 1), targets.chunk(self.parts, 1), strict=True):
            loss = self._loss(leaf, *piece) / n_answers
            # The sum keeps slots apart: the gradient of one slot's row knows that slot's loss only.
            (more,) = torch.autograd.grad(loss.sum(), leaf)
            grads = more if grads is None else grads.add_(more)
            losses.append(loss.detach())
        assert grads is not None
        return torch.stack(losses).sum(0), grads

    def _slot_loss(self, params: Tensor, tokens: Tensor, targets: Tensor) -> Tensor:
        """Summed over the answers of each slot: `[S]`."""
        return cross_entropy(self.model(params.to(self.dtype), tokens), targets).sum((1, 2))

    @torch.no_grad()
    def _evaluate(self) -> None:
        """Fills `loss` and `correct`."""
        params = self.rows.params.to(self.dtype)
        tokens, targets = self.data.evaluation()  # [S, E, T], [S, E, Q]
        limit = CUDA_EVALUATION_TOKENS if params.is_cuda else CPU_EVALUATION_TOKENS
        width = max(1, limit // (tokens.shape[0] * tokens.shape[2]))
        for begin in range(0, tokens.shape[1], width):
            at = slice(begin, begin + width)
            logits = self.model(params, tokens[:, at])
            self.loss[:, at] = cross_entropy(logits, targets[:, at])
            self.correct[:, at] = (logits.argmax(-1) == targets[:, at]).float()


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Loss `[S, B, Q]` of logits `[S, B, Q, V]` against targets `[S, B, Q]`; 0 where the target is -100."""
    losses = F.cross_entropy(logits.flatten(0, 2).float(), targets.flatten().long(), reduction="none")
    return losses.view(targets.shape)
