"""The training loop of a pack: a queue of trials flows through S slots.

Every block of `eval_every` steps ends with an evaluation. Between two blocks trials leave (solved, diverged,
out of steps) and the next of the queue move into the free slots; when the queue is empty the slots close up.
So all slots are between two evaluations at the same time, and nothing waits for the host inside a block.
"""

from __future__ import annotations

import io
import math
import pickle
import time
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from trainers.base import Outcome, Resources, Status, TrialSpec, UnusableCheckpoint
from trainers.scoring import Record
from trainers.transformer import model_of, task_of
from trainers.transformer.model import PackedTransformer
from trainers.transformer.optimizer import AdamW, Settings

CPU_SLOTS = 8
"""More slots gain nothing on a CPU (tests/benchmarks/step.py)."""
CUDA_SLOTS = 256
CUDA_GRID = 65_535
CPU_EVALUATION_TOKENS, CUDA_EVALUATION_TOKENS = 1 << 14, 1 << 18
"""Tokens (over all slots) of one chunk of an evaluation; bounds its memory. On a CPU larger chunks leave the
caches and are slower."""


_UNREADABLE = (zipfile.BadZipFile, pickle.UnpicklingError, zlib.error, NotImplementedError)
"""What a damaged archive raises, beside what any file does."""


@dataclass
class Slot:
    """What the host knows of the trial in one row."""

    trial: int
    """Its place in the queue."""
    started_at: float
    step: int = 0
    train_s: float = 0.0
    """Wall time, shared equally among the trials that trained at the time."""
    counts: dict[str, int] = field(default_factory=dict)
    record: Record = field(default_factory=Record)


class PackTraining:
    """A pack of transformers under training (`trainers.base.Training`).

    Given a checkpoint it goes on from there with the same slots and threads, and ends with the same bits.
    """

    def __init__(
        self,
        trials: Sequence[TrialSpec],
        resources: Resources,
        checkpoint: Path | None,
        on_active: Callable[[Sequence[str]], None],
    ) -> None:
        saved = _load(checkpoint, trials) if checkpoint else None
        self.trials, self.device, self.on_active = trials, resources.device, on_active
        self.threads: int = saved["threads"] if saved else resources.threads
        torch.set_num_threads(self.threads)
        train = trials[0].config["train"]
        self.batch_size: int = train["batch_size"]
        n_slots = saved["n_slots"] if saved else min(resources.slots or self._default_slots(), len(trials))
        self.n_slots: int = n_slots
        self.tasks = [task_of(trial.config) for trial in trials]
        self.eval_every: int = train["eval_every"]
        task = self.tasks[0]
        self.model = PackedTransformer(
            model_of(trials[0].config), task.vocab_size, task.sequence_length, task.n_answers
        )
        self.data = task.pack_data(self.tasks, n_slots, self.batch_size, self.eval_every, self.device)
        self.slots: list[Slot | None] = [None] * n_slots
        self.next_trial = 0
        self.trial_steps = 0
        self.params, first, second = (
            torch.zeros(n_slots, self.model.n_params, device=self.device) for _ in range(3)
        )
        self.optimizer = AdamW(first, second, tuple(train["betas"]), train["eps"], self.model.n_decayed)
        if saved:
            self._restore(saved)
        else:
            self._refill()

    @property
    def is_finished(self) -> bool:
        return not self.slots

    @property
    def is_cuda(self) -> bool:
        return self.device.startswith("cuda")

    @property
    def active(self) -> list[str]:
        return [self.trials[slot.trial].trial_id for slot in self._occupied()]

    def advance(self) -> list[Outcome]:
        """Train every slot to its next evaluation, evaluate, and replace the trials that ended."""
        began = time.perf_counter()
        slots = self._occupied()
        finite = self._train_block(slots)
        metrics, evaluation_finite = self._evaluate()
        is_finite: list[bool] = (finite & evaluation_finite).tolist()
        share = (time.perf_counter() - began) / len(slots)
        outcomes = []
        for s, slot in enumerate(slots):
            slot.train_s += share
            slot.record.add(
                self._config(slot)["solved"],
                slot.step,
                slot.step * self.batch_size,
                {name: values[s] for name, values in metrics.items()},
            )
            ending = self._ending(slot, is_finite[s])
            if ending is not None:
                outcomes.append(self._outcome(slot, *ending))
                self.slots[s] = None
        if outcomes:
            self._refill()
        return outcomes

    def save(self) -> bytes:
        """Everything that the streams of random numbers don't give back; readable with `weights_only=True`."""
        state = {
            "trial_ids": [trial.trial_id for trial in self.trials],
            "n_slots": self.n_slots,
            "threads": self.threads,
            "next_trial": self.next_trial,
            "slots": [asdict(slot) for slot in self._occupied()],
            "params": self.params.detach(),
            "first": self.optimizer.first,
            "second": self.optimizer.second,
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)
        return buffer.getvalue()

    def _default_slots(self) -> int:
        if not self.is_cuda:
            return CPU_SLOTS
        # Attention folds slots into its batch, which CUDA's grid bounds (pytorch/pytorch#142228).
        return max(1, min(CUDA_SLOTS, CUDA_GRID // self.batch_size))

    def _restore(self, saved: Mapping[str, Any]) -> None:
        self.next_trial = saved["next_trial"]
        self.slots = [Slot(**{**slot, "record": Record(**slot["record"])}) for slot in saved["slots"]]
        self.data.keep(range(len(self.slots)))
        for s, slot in enumerate(self._occupied()):
            self._put_data(s, slot)
        self.params = saved["params"].to(self.device)
        self.optimizer.first = saved["first"].to(self.device)
        self.optimizer.second = saved["second"].to(self.device)
        self._settle()

    def _refill(self) -> None:
        """Move the next trials of the queue into the free slots; close up when there are none left."""
        for s, slot in enumerate(self.slots):
            if slot is None and self.next_trial < len(self.trials):
                self.slots[s] = slot = Slot(self.next_trial, time.time())
                self.next_trial += 1
                self._put_data(s, slot)
                self.params[s] = self.model.init(self._config(slot)["seeds"]["init"], self.device)
                self.optimizer.first[s] = 0
                self.optimizer.second[s] = 0
        kept = [s for s, slot in enumerate(self.slots) if slot is not None]
        if len(kept) < len(self.slots):
            rows = torch.tensor(kept, dtype=torch.int64, device=self.device)
            self.slots = [self.slots[s] for s in kept]
            self.params = self.params[rows]
            self.optimizer.first, self.optimizer.second = (
                self.optimizer.first[rows],
                self.optimizer.second[rows],
            )
            self.data.keep(kept)
        self._settle()

    def _settle(self) -> None:
        """What follows from the slots' occupants."""
        self.settings = Settings.of([self._config(slot)["train"] for slot in self._occupied()], self.device)
        if self.slots:
            self.on_active(self.active)

    def _put_data(self, s: int, slot: Slot) -> None:
        config = self._config(slot)
        self.data.put(s, self.tasks[slot.trial], config["seeds"], config["train"]["steps"])

    def _train_block(self, slots: Sequence[Slot]) -> Tensor:
        """`eval_every` steps of every slot. True `[S]` where every loss was finite."""
        step = torch.tensor([slot.step for slot in slots], dtype=torch.int64, device=self.device)
        counts = self.data.prepare(step, self.eval_every)
        done = step.float().unsqueeze(1)  # [S, 1]
        finite = torch.ones(len(slots), dtype=torch.bool, device=self.device)
        for j in range(self.eval_every):
            loss, grads = self._gradients(*self.data.batch(j))
            finite &= torch.isfinite(loss)
            self.optimizer.step(self.params, grads, done + j, self.settings)
        for name, values in counts.items():
            for slot, value in zip(slots, values.tolist(), strict=True):
                slot.counts[name] = slot.counts.get(name, 0) + value
        for slot in slots:
            slot.step += self.eval_every
        self.trial_steps += self.eval_every * len(slots)
        return finite

    def _gradients(self, tokens: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Mean loss `[S]` over each slot's answers, and its gradient `[S, P]`."""
        leaf = self.params.detach().requires_grad_()
        loss = cross_entropy(self.model(leaf, tokens), targets)  # [S, B, Q]
        loss = loss.sum((1, 2)) / (targets >= 0).sum((1, 2)).clamp(min=1)
        # The sum keeps slots apart: the gradient of one slot's row knows that slot's loss only.
        (grads,) = torch.autograd.grad(loss.sum(), leaf)
        return loss.detach(), grads

    @torch.no_grad()
    def _evaluate(self) -> tuple[dict[str, list[float]], Tensor]:
        """Metrics by name, one value per slot, and where `[S]` every loss was finite."""
        tokens, targets = self.data.evaluation()  # [S, E, T], [S, E, Q]
        limit = CUDA_EVALUATION_TOKENS if self.is_cuda else CPU_EVALUATION_TOKENS
        chunk = max(1, limit // (tokens.shape[0] * tokens.shape[2]))
        losses, corrects = [], []
        for tokens_part, targets_part in zip(tokens.split(chunk, 1), targets.split(chunk, 1), strict=True):
            logits = self.model(self.params, tokens_part.long())
            losses.append(cross_entropy(logits, targets_part.long()))
            corrects.append((logits.argmax(-1) == targets_part).float())
        loss, correct = torch.cat(losses, 1), torch.cat(corrects, 1)
        metrics = self.data.metrics(correct, loss)
        return {name: values.tolist() for name, values in metrics.items()}, torch.isfinite(loss).all(2).all(1)

    def _ending(self, slot: Slot, finite: bool) -> tuple[Status, str] | None:
        """Status and reason, if the trial ends here."""
        if not finite:
            return "diverged", "diverged"
        if slot.record.should_stop(self._config(slot)):
            return "solved", "solved"
        if slot.step >= self._config(slot)["train"]["steps"]:
            return slot.record.status, "steps"
        return None

    def _outcome(self, slot: Slot, status: Status, stopped_by: str) -> Outcome:
        trial, task = self.trials[slot.trial], self.tasks[slot.trial]
        sizes = dict(task.describe())
        examples_seen = slot.step * self.batch_size
        values = {
            **slot.record.values(),
            **sizes,
            **slot.counts,
            "stopped_by": stopped_by,
            "steps": slot.step,
            "budget": trial.config["train"]["steps"],
            "examples_seen": examples_seen,
            "epochs": examples_seen / sizes["n_total"] if math.isfinite(sizes["n_total"]) else None,
            "n_params": self.model.n_params,
            "train_s": slot.train_s,
        }
        return Outcome(
            trial.trial_id,
            status,
            values,
            slot.record.curve,
            started_at=slot.started_at,
            ended_at=time.time(),
        )

    def _occupied(self) -> list[Slot]:
        """The slots; between two calls none is empty."""
        return [slot for slot in self.slots if slot is not None]

    def _config(self, slot: Slot) -> Mapping[str, Any]:
        return self.trials[slot.trial].config


def _load(checkpoint: Path, trials: Sequence[TrialSpec]) -> dict[str, Any]:
    """What `PackTraining.save` gave for these trials. Raises UnusableCheckpoint."""
    try:
        with zipfile.ZipFile(checkpoint) as archive:  # torch writes checksums, but does not read them
            damaged = archive.testzip()
        saved = torch.load(checkpoint, weights_only=True, map_location="cpu") if damaged is None else {}
        trial_ids = saved.get("trial_ids")
    except (OSError, RuntimeError, EOFError, LookupError, ValueError, AttributeError, *_UNREADABLE) as error:
        raise UnusableCheckpoint(f"{checkpoint}: {error}") from error
    if trial_ids != [trial.trial_id for trial in trials]:
        raise UnusableCheckpoint(f"{checkpoint}: {'damaged' if damaged else 'belongs to another pack'}")
    return dict(saved)


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Loss `[S, B, Q]` of logits `[S, B, Q, V]` against targets `[S, B, Q]`; 0 where the target is -100."""
    return F.cross_entropy(logits.flatten(0, 2), targets.flatten(), reduction="none").view(targets.shape)
