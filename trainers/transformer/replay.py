"""A function on tensors that stay where they are, called again and again; on CUDA captured as one graph.

A training step of small models is hundreds of kernels of a few microseconds each, most of which is the host's time
to launch them. A graph (Nguyen et al., "Accelerating PyTorch with CUDA Graphs", 2021) launches all of them at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

WARM_UP = 3
"""Calls before the capture, in which libraries choose their kernels and make their workspaces."""


class Replayed:
    """Calls `step`, which takes nothing, returns nothing, and changes nothing but `state`, in place. It must not
    wait for the device, nor do anything else on the host: the host's part happens once."""

    def __init__(self, step: Callable[[], None], state: Sequence[Tensor]) -> None:
        self._step, self._state = step, state
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self) -> None:
        if not self._state[0].is_cuda:
            self._step()
            return
        if self._graph is None:
            self._graph = self._captured()
        self._graph.replay()

    def _captured(self) -> torch.cuda.CUDAGraph:
        kept = [tensor.clone() for tensor in self._state]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                self._step()
                self._restore(kept)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._step()
        return graph

    def _restore(self, kept: Sequence[Tensor]) -> None:
        for tensor, value in zip(self._state, kept, strict=True):
            tensor.copy_(value)
