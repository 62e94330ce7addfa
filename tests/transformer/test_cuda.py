"""The engine on a CUDA device against the engine on the CPU. Skipped without one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from configs import config, specs

from trainers.base import Resources
from trainers.transformer.engine import PackTraining

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
TRIALS = specs(*(config(seed=seed, task={"easy_fraction": seed / 8}) for seed in range(4)))


def start(device: str, checkpoint: Path | None = None) -> PackTraining:
    return PackTraining(TRIALS, Resources(device=device, slots=2), checkpoint, lambda ids: None)


def test_cuda_equals_cpu() -> None:
    """Same examples, same weights, and 50 steps later the same parameters to 1e-4."""
    cpu, cuda = start("cpu"), start("cuda")
    for mine, theirs in zip(cpu.data.evaluation(), cuda.data.evaluation(), strict=True):
        assert torch.equal(mine, theirs.cpu())
    assert torch.equal(cpu.params, cuda.params.cpu())
    for _ in range(5):
        cpu.advance()
        cuda.advance()
    torch.testing.assert_close(cuda.params.cpu(), cpu.params, rtol=0, atol=1e-4)


def test_a_fixed_pack_gives_the_same_bits() -> None:
    """Trained twice on one device, the parameters are equal."""
    runs = [start("cuda") for _ in range(2)]
    for training in runs:
        for _ in range(3):
            training.advance()
    assert torch.equal(runs[0].params, runs[1].params)


def test_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    """From a checkpoint on, the same bits."""
    training = start("cuda")
    training.advance()
    (tmp_path / "checkpoint").write_bytes(training.save())
    resumed = start("cuda", tmp_path / "checkpoint")
    training.advance()
    resumed.advance()
    assert torch.equal(training.params, resumed.params)


def test_nothing_waits_for_the_host_inside_a_block() -> None:
    """Gathering a batch, the gradient and the optimizer's step never synchronise."""
    training = start("cuda")
    step = torch.zeros(2, dtype=torch.int64, device="cuda")
    training.data.prepare(step, training.eval_every)
    done = torch.zeros(2, 1, device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        for j in range(training.eval_every):
            _, grads = training._gradients(*training.data.batch(j))
            training.optimizer.step(training.params, grads, done + j, training.settings)
    finally:
        torch.cuda.set_sync_debug_mode("default")
