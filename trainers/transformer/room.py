"""How a pack fills its device: how many slots, threads, pieces of a batch."""

from __future__ import annotations

from dataclasses import dataclass, replace

CPU_SLOTS = 8
CUDA_SLOTS = 32
"""Where nothing was measured (tests/benchmarks/engine.py prints what other numbers cost)."""
CUDA_GRID = 65_535


@dataclass(frozen=True)
class Room:
    """The bits of a result depend on it, so checkpoints hold it."""

    slots: int
    """Trials that train at once."""
    threads: int = 1
    parts: int = 1
    """Pieces into which a batch is cut, so that the activations of one piece only are in memory."""
    is_compiled: bool = False

    def halved(self, batch_size: int) -> Room | None:
        """With about half the memory, if that can be."""
        if self.slots > 1:
            return replace(self, slots=(self.slots + 1) // 2)
        return replace(self, parts=self.parts * 2) if self.parts < batch_size else None

    def at_most(self, slots: int) -> Room:
        return replace(self, slots=min(self.slots, slots))


def guess(device: str, threads: int, batch_size: int) -> Room:
    """Without measuring."""
    return Room(CUDA_SLOTS if is_cuda(device) else CPU_SLOTS, threads).at_most(most_slots(batch_size))


def most_slots(batch_size: int) -> int:
    """Attention folds slots into its batch, whose size CUDA bounds (pytorch/pytorch#142228)."""
    return max(1, CUDA_GRID // batch_size)


def is_cuda(device: str) -> bool:
    return device.startswith("cuda")
