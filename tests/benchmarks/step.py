"""Cost of a training step per trial: packs of S against the same model in torch.nn, alone.

    python tests/benchmarks/step.py [--rounds 7] [--steps 40]

All train the quickstart's model on the same batches, on one thread (as two one-threaded workers share two cores).
`plain` is what one writes first; `lean` is tuned by hand: fused AdamW, and the last block computed at the position
that is read. `engine` is the whole engine, drawing batches and evaluating included. Rounds alternate, so a drift of
the machine's speed meets all; medians, and medians of the ratios within a round, are printed.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainers.base import STREAMS, Resources, TrialSpec
from trainers.tasks.composition import Composition
from trainers.transformer.config import Model, Train
from trainers.transformer.engine import PackTraining, cross_entropy
from trainers.transformer.model import PackedTransformer
from trainers.transformer.optimizer import AdamW, Settings

TASK = Composition(n=4, k=2, data_size=1024.0)
MODEL = Model(width=32, depth=2, heads=4)
TRAIN = {"lr": 3e-3, "warmup": 50, "steps": 1500, "schedule": "constant", "weight_decay": 0.1, "clip": 1.0}
BETAS, EPS, BATCH = (0.9, 0.98), 1e-8, 64
SLOTS = (1, 2, 4, 8, 16, 32)


class Block(nn.Module):
    """A pre-norm block as anyone would write it."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        width, hidden = model.width, model.width * model.mlp_ratio
        self.heads = model.heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor, n_out: int) -> Tensor:
        """The last n_out positions: all, or 1."""
        batch, length, width = x.shape
        qkv = self.qkv(self.norm1(x)).view(batch, length, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q[:, :, -n_out:], k, v, is_causal=n_out > 1)
        x = x[:, -n_out:] + self.out(mixed.transpose(1, 2).reshape(batch, n_out, width))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Plain(nn.Module):
    """The same transformer in torch.nn."""

    def __init__(self, model: Model, vocab_size: int, length: int, *, is_lean: bool) -> None:
        super().__init__()
        self.is_lean = is_lean
        self.token, self.position = nn.Embedding(vocab_size, model.width), nn.Embedding(length, model.width)
        self.blocks = nn.ModuleList(Block(model) for _ in range(model.depth))
        self.norm, self.head = nn.LayerNorm(model.width), nn.Linear(model.width, vocab_size, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.token(tokens) + self.position.weight
        for i, block in enumerate(self.blocks):
            x = block(x, 1 if self.is_lean and i == len(self.blocks) - 1 else tokens.shape[1])
        return self.head(self.norm(x))


class PlainRunner:
    """One trial, torch.optim.AdamW, gradient clipping, the loss at the last position."""

    def __init__(self, *, is_lean: bool) -> None:
        self.model = Plain(MODEL, TASK.vocab_size, TASK.sequence_length, is_lean=is_lean)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=TRAIN["lr"], betas=BETAS, weight_decay=0.1, fused=is_lean
        )

    def step(self, tokens: Tensor, targets: Tensor) -> None:
        loss = F.cross_entropy(self.model(tokens[0])[:, -1], targets[0, :, 0])
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()


class PackedRunner:
    """S trials in the engine's own parts."""

    def __init__(self, slots: int) -> None:
        self.model = PackedTransformer(MODEL, TASK.vocab_size, TASK.sequence_length, 1)
        self.params = torch.stack([self.model.init(seed, "cpu") for seed in range(slots)])
        zeros = [torch.zeros_like(self.params) for _ in range(2)]
        self.optimizer = AdamW(*zeros, BETAS, EPS, self.model.n_decayed)
        self.settings = Settings.of([TRAIN] * slots, "cpu")
        self.done = torch.zeros(slots, 1)

    def step(self, tokens: Tensor, targets: Tensor) -> None:
        leaf = self.params.detach().requires_grad_()
        loss = cross_entropy(self.model(leaf, tokens), targets).mean((1, 2))
        (grads,) = torch.autograd.grad(loss.sum(), leaf)
        self.optimizer.step(self.params, grads, self.done, self.settings)
        self.done += 1


def batches(slots: int) -> tuple[Tensor, Tensor]:
    """Random tokens `[S, B, T]` and targets `[S, B, 1]`: the cost does not depend on what they say."""
    shape = (slots, BATCH, TASK.sequence_length)
    return torch.randint(TASK.vocab_size, shape), torch.randint(TASK.n, (slots, BATCH, 1))


def timed(runner: PlainRunner | PackedRunner, slots: int, steps: int) -> float:
    """Milliseconds per trial-step."""
    tokens, targets = batches(slots)
    began = time.perf_counter()
    for _ in range(steps):
        runner.step(tokens, targets)
    return (time.perf_counter() - began) / steps / slots * 1e3


def engine(slots: int) -> PackTraining:
    """The engine with as many trials as slots, none of which ever ends."""
    train = asdict(Train(batch_size=BATCH, eval_every=50, **{**TRAIN, "steps": 1_000_000}))
    config = {"task": asdict(TASK), "model": asdict(MODEL), "train": train, "stop": "never"}
    config["solved"] = {"metric": "test_accuracy", "at_least": 0.95, "consecutive": 2}
    trials = [
        TrialSpec(str(seed), {**config, "seeds": dict.fromkeys(STREAMS, seed)}) for seed in range(slots)
    ]
    return PackTraining(trials, Resources(slots=slots), None, lambda ids: None)


def timed_engine(training: PackTraining) -> float:
    """Milliseconds per trial-step over one block and its evaluation."""
    began, before = time.perf_counter(), training.trial_steps
    training.advance()
    return (time.perf_counter() - began) / (training.trial_steps - before) * 1e3


def contestants(steps: int) -> dict[str, Callable[[], float]]:
    """What is timed, by name: functions that run a moment and say milliseconds per trial-step."""
    plain, lean, whole = PlainRunner(is_lean=False), PlainRunner(is_lean=True), engine(8)
    packed = {slots: PackedRunner(slots) for slots in SLOTS}
    return {
        "plain": lambda: timed(plain, 1, steps),
        "lean": lambda: timed(lean, 1, steps),
        **{f"S = {s}": partial(timed, packed[s], s, max(5, steps // s)) for s in SLOTS},
        "engine, S = 8": lambda: timed_engine(whole),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=40)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    running = contestants(arguments.steps)
    times: dict[str, list[float]] = {name: [] for name in running}
    for round_ in range(arguments.rounds + 1):
        for name, run in running.items():
            ms = run()
            if round_:  # the first warms up
                times[name].append(ms)
    print(f"torch {torch.__version__}, 1 thread, width {MODEL.width}, depth {MODEL.depth}, ", end="")
    print(f"{TASK.sequence_length} tokens, batch {BATCH}; medians of {arguments.rounds} rounds")
    print(f"{'':>14}  ms per trial-step  plain / this  lean / this")
    for name, mine in times.items():
        ratios = [
            statistics.median(p / t for p, t in zip(times[peer], mine, strict=True))
            for peer in ("plain", "lean")
        ]
        print(f"{name:>14}  {statistics.median(mine):17.2f}  {ratios[0]:12.2f}  {ratios[1]:11.2f}")


if __name__ == "__main__":
    main()
