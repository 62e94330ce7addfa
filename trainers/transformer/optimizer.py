"""AdamW, warm-up and clipping for S models at once: a handful of operations on `[S, P]`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass
class Settings:
    """What may differ between slots, float32 `[S, 1]` each; `train` is the config's section."""

    lr: Tensor
    warmup: Tensor
    steps: Tensor
    cosine: Tensor
    """1 where the learning rate falls along a cosine, else 0."""
    weight_decay: Tensor
    clip: Tensor
    """inf where there is no clipping."""

    @classmethod
    def of(cls, trains: Sequence[Mapping[str, Any]], device: str) -> Settings:
        def column(values: Sequence[float]) -> Tensor:
            return torch.tensor(values, dtype=torch.float32, device=device).unsqueeze(1)

        return cls(
            lr=column([t["lr"] for t in trains]),
            warmup=column([t["warmup"] for t in trains]),
            steps=column([t["steps"] for t in trains]),
            cosine=column([t["schedule"] == "cosine" for t in trains]),
            weight_decay=column([t["weight_decay"] for t in trains]),
            clip=column([math.inf if t["clip"] is None else t["clip"] for t in trains]),
        )

    def lr_at(self, step: Tensor) -> Tensor:
        """Learning rate `[S, 1]` of the step that follows `step` `[S, 1]` finished ones."""
        warm = torch.clamp((step + 1) / self.warmup.clamp(min=1), max=1.0)
        progress = ((step - self.warmup) / (self.steps - self.warmup).clamp(min=1)).clamp(0, 1)
        cosine = 0.1 + 0.45 * (1 + torch.cos(math.pi * progress))
        return self.lr * warm * torch.where(self.cosine > 0, cosine, 1.0)


@dataclass
class AdamW:
    """Decoupled weight decay (Loshchilov and Hutter 2019, algorithm 2) on rows; a row is one model."""

    first: Tensor
    """Running mean of the gradient, `[S, P]`."""
    second: Tensor
    """Running mean of its square, `[S, P]`."""
    betas: tuple[float, float]
    eps: float
    n_decayed: int
    """The first so many columns decay."""

    def step(self, params: Tensor, grads: Tensor, step: Tensor, settings: Settings) -> None:
        """Update params `[S, P]` in place; `grads` is overwritten. step float32 `[S, 1]`: finished steps."""
        norm = torch.linalg.vector_norm(grads, dim=1, keepdim=True)
        grads.mul_(torch.clamp(settings.clip / (norm + 1e-6), max=1.0))
        lr = settings.lr_at(step)
        params[:, : self.n_decayed].mul_(1 - lr * settings.weight_decay)
        beta1, beta2 = self.betas
        self.first.lerp_(grads, 1 - beta1)
        self.second.mul_(beta2).addcmul_(grads, grads, value=1 - beta2)
        # In float64, as torch.optim does it in Python: 1 - 0.98**t has few digits left in float32.
        count = step.double() + 1
        correction1 = (1 - beta1**count).float()
        correction2 = (1 - beta2**count).sqrt().float()
        denominator = (self.second.sqrt() / correction2).add_(self.eps)
        params.sub_(self.first / denominator * (lr / correction1))
