"""The training loop of a pack: a queue of trials flows through S slots.

Every block of `eval_every` steps ends with an evaluation. Between two blocks trials leave (solved, diverged,
out of steps) and the next of the queue move into the free slots; when the queue is empty the slots close up.
So all slots are between two evaluations at the same time, and nothing waits for the host inside a block.

A block happens whole or not at all: where memory runs out in it, half of the trials step aside and wait.
"""

from __future__ import annotations

import gc
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from trainers.base import Outcome, Resources, Status, TrialSpec
from trainers.plain import from_plain
from trainers.scoring import Record
from trainers.transformer import checkpoint as checkpoints
from trainers.transformer import model_of, task_of
from trainers.transformer.config import Train
from trainers.transformer.model import PackedTransformer
from trainers.transformer.probe import room_for
from trainers.transformer.program import Program, Rows
from trainers.transformer.room import Room, is_cuda


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

    Given a checkpoint it goes on from there with the same room, and ends with the same bits.
    """

    def __init__(
        self,
        trials: Sequence[TrialSpec],
        resources: Resources,
        checkpoint: Path | None,
        on_active: Callable[[Sequence[str]], None],
    ) -> None:
        saved = checkpoints.load(checkpoint, [trial.trial_id for trial in trials]) if checkpoint else None
        self.trials, self.device, self.on_active = trials, resources.device, on_active
        self.tasks = [task_of(trial.config) for trial in trials]
        self.shared = from_plain(Train, trials[0].config["train"])
        """What `shape` names of it is the same for all trials."""
        task = self.tasks[0]
        self.model = PackedTransformer(
            model_of(trials[0].config), task.vocab_size, task.sequence_length, task.n_answers
        )
        self.trial_steps = 0
        self.next_trial = 0
        self.slots: list[Slot | None] = []
        self.waiting: list[tuple[Slot, Rows]] = []
        """Trials that have begun and lack a slot, each with its row, on the host."""
        if resources.device_share < 1:
            torch.cuda.set_per_process_memory_fraction(resources.device_share)
        with self._arithmetic():
            if saved is None:
                steps = sum(trial.config["train"]["steps"] for trial in trials)
                self.room = room_for(self.model, self.shared, resources, len(trials), steps)
                n_slots = self.room.slots
            else:
                n_slots = self._restore(saved)
            torch.set_num_threads(self.room.threads)
            self._open_what_fits(n_slots)

    @property
    def is_finished(self) -> bool:
        return not self.slots

    @property
    def active(self) -> list[str]:
        return [self.trials[slot.trial].trial_id for slot in self._occupied().values()]

    def advance(self) -> list[Outcome]:
        """Train every slot to its next evaluation, evaluate, and replace the trials that ended."""
        with self._arithmetic():
            metrics, is_finite = self._block()
            outcomes = []
            for s, slot in self._occupied().items():
                slot.record.add(
                    self._config(slot)["solved"],
                    slot.step,
                    slot.step * self.shared.batch_size,
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
        """Everything that the streams of random numbers don't give back."""
        occupied = self._occupied()
        rows = [self.program.rows.take([s]).to("cpu") for s in occupied] + [row for _, row in self.waiting]
        state = {
            "room": asdict(self.room),
            "n_slots": len(self.slots),
            "next_trial": self.next_trial,
            "slots": [asdict(slot) for slot in [*occupied.values(), *(slot for slot, _ in self.waiting)]],
            "rows": [row.tensors for row in rows],
        }
        return checkpoints.to_bytes([trial.trial_id for trial in self.trials], state)

    def _restore(self, saved: Mapping[str, Any]) -> int:
        """Returns the number of slots."""
        self.room, self.next_trial = Room(**saved["room"]), saved["next_trial"]
        slots = [Slot(**{**slot, "record": Record(**slot["record"])}) for slot in saved["slots"]]
        self.waiting = [(slot, Rows(*row)) for slot, row in zip(slots, saved["rows"], strict=True)]
        return int(saved["n_slots"])

    # Slots

    def _open_what_fits(self, n_slots: int) -> None:
        """Slots for the trials that wait and for the queue, fewer where memory does not suffice."""
        while True:
            try:
                return self._open(n_slots)
            except torch.OutOfMemoryError:
                self._give_way(n_slots)
            n_slots = self.room.slots

    def _open(self, n_slots: int) -> None:
        train = self.shared
        self._free()
        self.slots = [None] * n_slots
        self.data = self.tasks[0].pack_data(
            self.tasks, n_slots, train.batch_size, train.eval_every, self.device
        )
        self._load_program(Rows.zeros(n_slots, self.model.n_params, self.device))
        self._refill()

    def _free(self) -> None:
        """Give back the memory of programs that are no longer used; graphs keep it until they are collected."""
        if is_cuda(self.device):
            gc.collect()
            torch.cuda.empty_cache()

    def _load_program(self, rows: Rows) -> None:
        self.program = Program(
            self.model, self.data, self.shared, rows, parts=self.room.parts, is_compiled=self.room.is_compiled
        )

    def _give_way(self, n_slots: int) -> None:
        """Park all trials and go on with half the room. Raises the error at hand if there is no half."""
        room = replace(self.room, slots=n_slots).halved(self.shared.batch_size)
        if room is None:
            raise
        self.room = room
        parked = [(slot, self.program.rows.take([s]).to("cpu")) for s, slot in self._occupied().items()]
        self.waiting = parked + self.waiting
        self.slots = []
        vars(self).pop("program", None)
        vars(self).pop("data", None)

    def _refill(self) -> None:
        """Move those that wait, then the queue, into the free slots; close up when there are none left."""
        for s, slot in enumerate(self.slots):
            if slot is None and self.waiting:
                self._put(s, *self.waiting[0])
                del self.waiting[0]
            elif slot is None and self.next_trial < len(self.trials):
                self._put(s, Slot(self.next_trial, time.time()), None)
                self.next_trial += 1
        self._close_up()
        if self.slots:
            trains = [None if slot is None else self._config(slot)["train"] for slot in self.slots]
            self.program.settings.fill(trains)
            self.on_active(self.active)

    def _put(self, s: int, slot: Slot, row: Rows | None) -> None:
        """`row`: None if the trial begins."""
        config = self._config(slot)
        self.data.put(s, self.tasks[slot.trial], config["seeds"], config["train"]["steps"])
        if row is None:
            row = Rows.zeros(1, self.model.n_params, self.device)
            row.params[0] = self.model.init(config["seeds"]["init"], self.device)
        self.program.rows.put(s, row)
        self.slots[s] = slot

    def _close_up(self) -> None:
        """Drop empty slots; on CUDA, where other slots are another graph, only when half are empty."""
        kept = list(self._occupied())
        if len(kept) == len(self.slots) or (is_cuda(self.device) and len(kept) > len(self.slots) // 2):
            return
        self.slots = [self.slots[s] for s in kept]
        if not kept:
            return
        self.data.keep(kept)
        rows = self.program.rows.take(kept)
        del self.program
        self._free()
        self._load_program(rows)

    # Training

    def _block(self) -> tuple[Mapping[str, list[float]], list[bool]]:
        """Train and evaluate. Metrics by name and whether every loss was finite, one value per slot."""
        began = time.perf_counter()
        while True:
            before = self.program.rows.clone()
            try:
                counts, metrics, is_finite = self._run_block()
                break
            except torch.OutOfMemoryError:
                self.program.rows.put(slice(None), before)
                self._give_way(len(self.slots))
            self._open_what_fits(self.room.slots)
        occupied = self._occupied()
        self.trial_steps += self.shared.eval_every * len(occupied)
        for s, slot in occupied.items():
            slot.step += self.shared.eval_every
            slot.train_s += (time.perf_counter() - began) / len(occupied)
            for name, values in counts.items():
                slot.counts[name] = slot.counts.get(name, 0) + values[s]
        return metrics, is_finite

    def _run_block(self) -> tuple[dict[str, list[int]], dict[str, list[float]], list[bool]]:
        program, n_steps = self.program, self.shared.eval_every
        counts = self.data.prepare(program.rows.step, n_steps)
        program.begin_block()
        for _ in range(n_steps):
            program.train()
        program.evaluate()
        metrics = self.data.metrics(program.correct, program.loss)
        is_finite = program.rows.is_finite & torch.isfinite(program.loss).all(2).all(1)
        return (
            {name: values.tolist() for name, values in counts.items()},
            {name: values.tolist() for name, values in metrics.items()},
            is_finite.tolist(),
        )

    @contextmanager
    def _arithmetic(self) -> Iterator[None]:
        """How CUDA is to compute: with the sweep's precision, and the same bits every time."""
        if not is_cuda(self.device):
            yield
            return
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        before = torch.get_float32_matmul_precision(), torch.are_deterministic_algorithms_enabled()
        torch.set_float32_matmul_precision("high" if self.shared.precision == "tf32" else "highest")
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(before[0])
            torch.use_deterministic_algorithms(before[1])

    # Endings

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
        examples_seen = slot.step * self.shared.batch_size
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

    def _occupied(self) -> dict[int, Slot]:
        """The slots that hold a trial, by their place."""
        return {s: slot for s, slot in enumerate(self.slots) if slot is not None}

    def _config(self, slot: Slot) -> Mapping[str, Any]:
        return self.trials[slot.trial].config
