"""The engine's transformer in plain PyTorch, one model at a time: what the benchmarks compare against.

Two variants: as one first writes it, and lean, the same tuned by hand. Lean computes the last block only at the
positions that are read, and updates with fused AdamW.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainers.transformer.config import Model

BETAS, WEIGHT_DECAY, CLIP = (0.9, 0.98), 0.1, 1.0


class Block(nn.Module):
    """A pre-norm block as anyone would write it, at its last `n_out` positions."""

    mask: Tensor | None

    def __init__(self, model: Model, length: int, n_out: int) -> None:
        super().__init__()
        width, hidden = model.width, model.width * model.mlp_ratio
        self.heads, self.n_out = model.heads, n_out
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)
        # torch aligns a causal mask with the first positions; here the last ones ask.
        needs_mask = 1 < n_out < length
        mask = torch.ones(n_out, length, dtype=torch.bool).tril(length - n_out) if needs_mask else None
        self.register_buffer("mask", mask, persistent=False)
        self.is_causal = n_out == length

    def forward(self, x: Tensor) -> Tensor:
        """`[B, T, D]` -> `[B, n_out, D]`."""
        batch, length, width = x.shape
        qkv = self.qkv(self.norm1(x)).view(batch, length, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # [B, H, T, d] each
        q = q[:, :, length - self.n_out :]
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=self.mask, is_causal=self.is_causal)
        mixed = mixed.transpose(1, 2).reshape(batch, self.n_out, width)
        x = x[:, length - self.n_out :] + self.out(mixed)
        wider: Tensor = self.down(F.gelu(self.up(self.norm2(x))))
        return x + wider


class Plain(nn.Module):
    """Learned positions and causal attention, as `Model` has them unless told otherwise."""

    def __init__(
        self, model: Model, vocab_size: int, length: int, n_answers: int, *, is_lean: bool = False
    ) -> None:
        super().__init__()
        self.n_answers = n_answers
        self.token, self.position = nn.Embedding(vocab_size, model.width), nn.Embedding(length, model.width)
        n_out = [length] * (model.depth - 1) + [n_answers if is_lean else length]
        self.blocks = nn.Sequential(*(Block(model, length, n) for n in n_out))
        self.norm, self.head = nn.LayerNorm(model.width), nn.Linear(model.width, vocab_size, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits `[B, Q, V]` at the last Q positions of tokens `[B, T]`."""
        x = self.blocks(self.token(tokens) + self.position.weight)
        logits: Tensor = self.head(self.norm(x))
        return logits[:, -self.n_answers :]


def mean_loss(model: Callable[[Tensor], Tensor], tokens: Tensor, targets: Tensor) -> Tensor:
    """Over the answers; targets `[B, Q]`."""
    return F.cross_entropy(model(tokens).flatten(0, 1).float(), targets.flatten())


class Runner:
    """Trains one model, as torch's documentation does it."""

    def __init__(
        self,
        model: nn.Module,
        *,
        lr: float,
        dtype: str = "float32",
        is_fused: bool = False,
        is_compiled: bool = False,
    ) -> None:
        """`dtype`: bf16 is autocast. `is_compiled`: model, loss, clipping and optimizer."""
        self.model = model
        self.device_type = next(model.parameters()).device.type
        self.is_bf16 = dtype == "bf16"
        self.optimizer = torch.optim.AdamW(
            model.parameters(),
            lr=lr,
            betas=BETAS,
            weight_decay=WEIGHT_DECAY,
            fused=True if is_fused else None,
        )
        self._loss: Any = mean_loss
        self._update: Any = self._clip_and_step
        if is_compiled:
            self._loss = torch.compile(mean_loss, dynamic=False)
            self._update = torch.compile(self._clip_and_step, dynamic=False)

    def step(self, tokens: Tensor, targets: Tensor) -> None:
        """tokens `[B, T]`, targets `[B, Q]`."""
        with torch.autocast(self.device_type, torch.bfloat16, enabled=self.is_bf16):
            loss = self._loss(self.model, tokens, targets)
        self.optimizer.zero_grad()
        loss.backward()
        self._update()

    def _clip_and_step(self) -> None:
        nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
        self.optimizer.step()
