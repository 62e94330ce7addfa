"""The room of a pack, measured on its device, once for each shape.

More slots cost nothing while the device idles between kernels, and gain nothing once it is busy. Where that is
depends on the shape and on the device: from a first guess on, slots are doubled, or halved, as long as a trial-step
becomes clearly cheaper.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor

from trainers.base import Resources
from trainers.transformer.config import Train
from trainers.transformer.model import PackedTransformer
from trainers.transformer.program import Program, Rows
from trainers.transformer.room import Room, guess, is_cuda, most_slots

GAIN = 0.9
"""A trial-step must cost so much less for a change to be worth it; smaller differences are noise."""
STEPS = 5
"""Of one measurement, after one that does not count."""
WORTH = 10_000
"""Trial-steps of a pack from which on it is measured for; that takes about 200 of them on a CPU."""
COMPILE_S, COMPILE_WORTH = 60.0, 10
"""About what compiling takes; it is tried where a pack takes so many times as long."""

Measure = Callable[[Room], float | None]
"""Seconds per trial-step; None: there is not enough memory."""


def room_for(
    model: PackedTransformer, train: Train, resources: Resources, n_trials: int, trial_steps: int
) -> Room:
    """For a pack of so many trials and steps in all: what was asked for; or what was found for its shape on such a
    device before, by whichever process; or what is found now."""
    device, batch_size = resources.device, train.batch_size
    first = guess(device, resources.threads, batch_size)
    if resources.slots is not None:
        return replace(first, slots=min(resources.slots, n_trials, most_slots(batch_size)))
    if trial_steps < WORTH:
        return first.at_most(n_trials)
    path = _path(model, train, resources)
    room = _load(path)
    if room is None:
        measure = measured(model, train, device)
        room, cost = best(measure, first, most_slots(batch_size), batch_size)
        if is_cuda(device) and cost is not None:
            room = _compiled_if_worth(measure, room, cost, trial_steps)
        room = _keep(path, room)
    return room.at_most(n_trials)


def best(measure: Measure, first: Room, most: int, batch_size: int) -> tuple[Room, float | None]:
    """The room in which trial-steps are cheapest, as far as doubling and halving find it, and what one costs there;
    None: nothing fits, and whoever trains will say what is wrong."""
    room, cost = first, measure(first)
    while cost is None:
        less = room.halved(batch_size)
        if less is None:
            return first, None
        room, cost = less, measure(less)
    if room == first:
        doubled = (min(room.slots << i, most) for i in range(1, 16))
        room, cost = _climb(measure, room, cost, (replace(room, slots=n) for n in doubled))
    if room == first:
        halved = (room.slots >> i for i in range(1, room.slots.bit_length()))
        room, cost = _climb(measure, room, cost, (replace(room, slots=n) for n in halved))
    threads = (room.threads >> i for i in range(1, room.threads.bit_length()))
    return _climb(measure, room, cost, (replace(room, threads=n) for n in threads))


def _climb(measure: Measure, room: Room, cost: float, others: Iterable[Room]) -> tuple[Room, float]:
    """As far along the others as each is clearly cheaper than the one before."""
    for other in others:
        other_cost = None if other == room else measure(other)
        if other_cost is None or other_cost > GAIN * cost:
            break
        room, cost = other, other_cost
    return room, cost


def _compiled_if_worth(measure: Measure, room: Room, cost: float, trial_steps: int) -> Room:
    if trial_steps * cost < COMPILE_WORTH * COMPILE_S:
        return room
    compiled = replace(room, is_compiled=True)
    compiled_cost = measure(compiled)
    return compiled if compiled_cost is not None and compiled_cost < GAIN * cost else room


def measured(model: PackedTransformer, train: Train, device: str) -> Measure:
    """By training for a moment."""

    def measure(room: Room) -> float | None:
        try:
            return _seconds(model, train, device, room)
        except torch.OutOfMemoryError:
            return None
        finally:
            if is_cuda(device):
                torch.cuda.empty_cache()

    return measure


def _seconds(model: PackedTransformer, train: Train, device: str, room: Room) -> float:
    torch.set_num_threads(room.threads)
    rows = Rows.zeros(room.slots, model.n_params, device)
    rows.params.normal_(0, 0.02)
    examples = RandomTokens(model, room.slots, train.batch_size, device)
    program = Program(model, examples, train, rows, parts=room.parts, is_compiled=room.is_compiled)
    program.train()
    times = []
    for _ in range(STEPS):
        synchronize(device)
        began = time.perf_counter()
        program.train()
        synchronize(device)
        times.append(time.perf_counter() - began)
    return statistics.median(times) / room.slots


def synchronize(device: str) -> None:
    """Wait until the device has done what it was told."""
    if is_cuda(device):
        torch.cuda.synchronize()


class RandomTokens:
    """Implements `program.Examples`: what a step costs does not depend on what they say."""

    def __init__(self, model: PackedTransformer, n_slots: int, batch_size: int, device: str) -> None:
        shape = (n_slots, batch_size, model.sequence_length)
        self.tokens = torch.randint(model.vocab_size, shape, device=device)
        self.targets = self.tokens[:, :, -model.n_answers :].contiguous()

    def batch(self, at: Tensor) -> tuple[Tensor, Tensor]:
        return self.tokens, self.targets

    def evaluation(self) -> tuple[Tensor, Tensor]:
        return self.tokens[:, :1], self.targets[:, :1]


def device_name(device: str) -> str:
    """What decides how fast it is."""
    if is_cuda(device):
        return torch.cuda.get_device_name(device)
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _path(model: PackedTransformer, train: Train, resources: Resources) -> Path:
    """Of the file that remembers what was measured, in the user's cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    sizes = [model.vocab_size, model.sequence_length, model.n_answers, train.batch_size, train.precision]
    device = [device_name(resources.device), resources.threads, resources.device_share, torch.__version__]
    key = json.dumps([asdict(model.model), sizes, device])
    return (
        cache / "transformer-orchestrator" / "room" / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"
    )


def _load(path: Path) -> Room | None:
    try:
        return Room(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _keep(path: Path, room: Room) -> Room:
    """Remember it, unless another process was faster: then what that one found. Where nothing can be written, the
    next pack measures again."""
    temporary = path.with_suffix(f".{platform.node()}.{os.getpid()}")
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(asdict(room)))
        if _load(path) is None:  # damaged
            path.unlink(missing_ok=True)
        with suppress(FileExistsError):
            os.link(temporary, path)
        temporary.unlink()
    return _load(path) or room
