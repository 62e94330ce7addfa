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
    assert torch.equal(cpu.program.rows.params, cuda.program.rows.params.cpu())
    for _ in range(5):
        cpu.advance()
        cuda.advance()
    torch.testing.assert_close(cuda.program.rows.params.cpu(), cpu.program.rows.params, rtol=0, atol=1e-4)


def test_a_fixed_pack_gives_the_same_bits() -> None:
    """Trained twice on one device, the parameters are equal."""
    runs = [start("cuda") for _ in range(2)]
    for training in runs:
        for _ in range(3):
            training.advance()
    assert torch.equal(runs[0].program.rows.params, runs[1].program.rows.params)


def test_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    """From a checkpoint on, the same bits."""
    training = start("cuda")
    training.advance()
    (tmp_path / "checkpoint").write_bytes(training.save())
    resumed = start("cuda", tmp_path / "checkpoint")
    training.advance()
    resumed.advance()
    assert torch.equal(training.program.rows.params, resumed.program.rows.params)


def test_a_graph_equals_the_steps_it_was_made_of() -> None:
    """Replayed or called, a block gives the same bits."""
    replayed, called = start("cuda"), start("cuda")
    replayed.advance()
    with called._arithmetic():
        called.data.prepare(called.program.rows.step, called.shared.eval_every)
        called.program.begin_block()
        for _ in range(called.shared.eval_every):
            called.program._train()
        called.program._evaluate()
    assert torch.equal(replayed.program.rows.params, called.program.rows.params)
    assert torch.equal(replayed.program.loss, called.program.loss)


def test_nothing_waits_for_the_host_inside_a_block() -> None:
    """Steps and evaluation never synchronise."""
    training = start("cuda")
    training.advance()  # captures
    training.data.prepare(training.program.rows.step, training.shared.eval_every)
    training.program.begin_block()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(training.shared.eval_every):
            training.program.train()
        training.program.evaluate()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_where_memory_runs_out_there_are_fewer_slots() -> None:
    """More slots than fit are asked for: the pack ends all the same."""
    trials = specs(
        *(
            config(seed=seed, train={"steps": 10, "batch_size": 2048}, model={"width": 512, "depth": 6})
            for seed in range(128)
        )
    )
    torch.cuda.set_per_process_memory_fraction(0.1)
    try:
        training = PackTraining(trials, Resources(device="cuda", slots=128), None, lambda ids: None)
        outcomes = []
        while not training.is_finished:
            outcomes += training.advance()
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert training.room.slots < 128
    assert len(outcomes) == 128
