"""Trial-steps per second of one device, four ways of using it, in one run.

    python tests/benchmarks/engine.py [--device cuda] [--precision bf16] [--shapes 0 1 2 3] [--slots 1 4 16 64]

The same model, batch and number of steps for all: (a) plain PyTorch, one process, one trial at a time; (a+) the
same through torch.compile; (b) several such processes on the device together; (c) `torch.func.vmap` over stacked
modules; (d) this engine with S slots, and (d+) with torch.compile; last the whole engine as `launch` runs it,
examples drawn and evaluations included, at the slots that it finds by itself. Needs torch alone.

`bound` is the larger of two shares of what the device does in this run: of its arithmetic (a large matrix product
in the same precision; counted are the products of the forward and backward pass) and of its memory's bandwidth (a
large copy; counted are weights, moments and activations as often as a perfect fusion would move them).
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainers.base import STREAMS, Resources, TrialSpec
from trainers.tasks.composition import Composition
from trainers.transformer.config import Model, Train
from trainers.transformer.engine import PackTraining
from trainers.transformer.model import PackedTransformer
from trainers.transformer.probe import RandomTokens, device_name, synchronize
from trainers.transformer.program import Program, Rows


@dataclass(frozen=True)
class Shape:
    """What is trained."""

    width: int
    depth: int
    length: int
    batch_size: int
    n_answers: int
    vocab_size: int = 32

    @property
    def model(self) -> Model:
        return Model(
            width=self.width,
            depth=self.depth,
            heads=max(1, self.width // 64) * (4 if self.width < 128 else 1),
        )

    @property
    def packed(self) -> PackedTransformer:
        return PackedTransformer(self.model, self.vocab_size, self.length, self.n_answers)

    @property
    def flops(self) -> float:
        """Of a trial-step: two for each multiplication of a product, three products for each of the forward pass;
        the last block counts where it is read only."""
        per_block = 24 * self.width**2 + 4 * self.length * self.width
        rest = 4 * self.width**2 * (self.length - self.n_answers)  # keys and values everywhere
        n_tokens = (self.depth - 1) * self.length + self.n_answers
        head = 2 * self.width * self.vocab_size * (self.n_answers + self.length)
        return 3.0 * self.batch_size * (n_tokens * per_block + rest + head)

    def bytes(self, precision: str) -> float:
        """Moved by a trial-step at least: weights, gradient and moments (read and written by the optimizer), and
        the inputs of each product and norm, written once and read once forward and twice backward."""
        size = 2 if precision == "bf16" else 4
        n_tokens = self.batch_size * ((self.depth - 1) * self.length + self.n_answers)
        return 4.0 * 8 * self.packed.n_params + size * 4 * n_tokens * self.width * 18


SHAPES = (
    Shape(64, 2, 17, 128, 1),
    Shape(128, 4, 64, 128, 64),
    Shape(384, 6, 256, 64, 256),
    Shape(512, 4, 96, 128, 32),
)
LR, BETAS, WEIGHT_DECAY = 1e-3, (0.9, 0.98), 0.1


@dataclass(frozen=True)
class Setting:
    """Where and how."""

    device: str
    precision: str
    seconds: float
    """Of one measurement."""

    @property
    def is_cuda(self) -> bool:
        return self.device.startswith("cuda")


@dataclass(frozen=True)
class Result:
    """What one contestant did on one shape."""

    name: str
    slots: int
    steps_per_s: float
    """Trial-steps."""
    megabytes: float | None
    """Of the device's memory, per trial."""


class Block(nn.Module):
    """A pre-norm block as anyone would write it."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        width, hidden = model.width, model.width * model.mlp_ratio
        self.heads = model.heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        qkv = self.qkv(self.norm1(x)).view(batch, length, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, length, width))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Plain(nn.Module):
    """The same transformer in torch.nn; loss at the last `n_answers` positions."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.n_answers = shape.n_answers
        self.token, self.position = (
            nn.Embedding(shape.vocab_size, shape.width),
            nn.Embedding(shape.length, shape.width),
        )
        self.blocks = nn.Sequential(*(Block(shape.model) for _ in range(shape.depth)))
        self.norm, self.head = nn.LayerNorm(shape.width), nn.Linear(shape.width, shape.vocab_size, bias=False)

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        x = self.blocks(self.token(tokens) + self.position.weight)
        logits = self.head(self.norm(x[:, -self.n_answers :]))
        return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())


def batch(shape: Shape, slots: int, device: str) -> tuple[Tensor, Tensor]:
    """Random tokens `[S, B, T]` and targets `[S, B, Q]`."""
    tokens = torch.randint(shape.vocab_size, (slots, shape.batch_size, shape.length), device=device)
    return tokens, tokens[:, :, -shape.n_answers :].contiguous()


def timed(step: Callable[[], Any], setting: Setting) -> float:
    """Seconds of a step: the median over rounds, each of as many steps as take a fifth of the time."""
    for _ in range(3):
        step()
    synchronize(setting.device)
    began = time.perf_counter()
    step()
    synchronize(setting.device)
    n = max(1, round(setting.seconds / 5 / (time.perf_counter() - began)))
    rounds = []
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(n):
            step()
        synchronize(setting.device)
        rounds.append((time.perf_counter() - began) / n)
    return statistics.median(rounds)


def plain_step(shape: Shape, setting: Setting, *, is_compiled: bool = False) -> Callable[[], None]:
    """(a): AdamW and gradient clipping as in torch's documentation."""
    model: Any = Plain(shape).to(setting.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, betas=BETAS, weight_decay=WEIGHT_DECAY)
    tokens, targets = (t[0] for t in batch(shape, 1, setting.device))
    forward = torch.compile(model) if is_compiled else model
    is_bf16 = setting.precision == "bf16"

    def step() -> None:
        with torch.autocast(setting.device.partition(":")[0], torch.bfloat16, enabled=is_bf16):
            loss = forward(tokens, targets)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step


def vmap_step(shape: Shape, slots: int, setting: Setting) -> Callable[[], None]:
    """(c): as in torch's tutorial on model ensembling, with gradients per model and one optimizer for all. Clipping
    is per model."""
    models = [Plain(shape).to(setting.device) for _ in range(slots)]
    params, buffers = torch.func.stack_module_state(models)
    skeleton = Plain(shape).to("meta")
    optimizer = torch.optim.AdamW(params.values(), lr=LR, betas=BETAS, weight_decay=WEIGHT_DECAY)
    tokens, targets = batch(shape, slots, setting.device)
    is_bf16 = setting.precision == "bf16"

    def loss_of(one: dict[str, Tensor], others: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        with torch.autocast(setting.device.partition(":")[0], torch.bfloat16, enabled=is_bf16):
            return torch.func.functional_call(skeleton, (one, others), (x, y))

    gradient = torch.func.vmap(torch.func.grad(loss_of))

    def step() -> None:
        grads = gradient(params, buffers, tokens, targets)
        squares = torch.stack([grad.flatten(1).square().sum(1) for grad in grads.values()])
        scale = (1 / (squares.sum(0).sqrt() + 1e-6)).clamp(max=1)
        for name, param in params.items():
            param.grad = grads[name] * scale.view(-1, *[1] * (param.dim() - 1))
        optimizer.step()

    return step


def packed_step(
    shape: Shape, slots: int, setting: Setting, *, is_compiled: bool = False
) -> Callable[[], None]:
    """(d): the engine's own program."""
    train = Train(steps=1000, batch_size=shape.batch_size, lr=LR, precision=setting.precision)  # type: ignore[arg-type]
    model = shape.packed
    rows = Rows.zeros(slots, model.n_params, setting.device)
    for s in range(slots):
        rows.params[s] = model.init(0, "cpu") if s == 0 else rows.params[0]
    examples = RandomTokens(model, slots, shape.batch_size, setting.device)
    program = Program(model, examples, train, rows, is_compiled=is_compiled)
    program.settings.fill([asdict(train)] * slots)
    return program.train


def whole_engine(shape: Shape, setting: Setting) -> Result:
    """A pack of composition trials, as `launch` runs them: examples drawn on the device, evaluations included."""
    task = Composition(n=4, k=3, data_size=4096.0)
    train = Train(steps=1_000_000, batch_size=shape.batch_size, lr=LR, precision=setting.precision)  # type: ignore[arg-type]
    config = {"task": asdict(task), "model": asdict(shape.model), "train": asdict(train), "stop": "never"}
    config["solved"] = {"metric": "test_accuracy", "at_least": 0.95, "consecutive": 2}
    n_trials = 1024 if setting.is_cuda else 32
    trials = [
        TrialSpec(str(seed), {**config, "seeds": dict.fromkeys(STREAMS, seed)}) for seed in range(n_trials)
    ]
    training = PackTraining(trials, Resources(device=setting.device), None, lambda ids: None)
    slots = len(training.slots)
    seconds = timed(training.advance, replace(setting, seconds=2 * setting.seconds))
    return Result(
        f"engine, {task.sequence_length} tokens",
        slots,
        slots * train.eval_every / seconds,
        memory(setting, slots),
    )


def memory(setting: Setting, slots: int) -> float | None:
    """Megabytes per trial at the highest, since `fresh`."""
    return torch.cuda.max_memory_allocated() / slots / 1e6 if setting.is_cuda else None


def fresh(setting: Setting) -> None:
    gc.collect()
    torch.compiler.reset()
    if setting.is_cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def run(name: str, slots: int, setting: Setting, make: Callable[[], Callable[[], Any]]) -> Result | None:
    """None where memory does not suffice."""
    fresh(setting)
    try:
        seconds = timed(make(), setting)
    except torch.OutOfMemoryError:
        return None
    return Result(name, slots, slots / seconds, memory(setting, slots))


def work(shape: Shape, setting: Setting, barrier: Any, answers: Any, seconds: float) -> None:
    """One of the processes of (b): trial-steps in the time that all of them run together."""
    arithmetic(setting)
    torch.set_num_threads(1)
    step = plain_step(shape, setting)
    for _ in range(3):
        step()
    synchronize(setting.device)
    barrier.wait()
    began, n = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        step()
        synchronize(setting.device)
        n += 1
    answers.put(n / (time.perf_counter() - began))


def processes(shape: Shape, setting: Setting, n: int) -> Result:
    """(b): as many trials at once as processes."""
    context = multiprocessing.get_context("spawn")
    barrier, answers = context.Barrier(n), context.Queue()
    seconds = setting.seconds * (1 if setting.is_cuda else max(1, n / (os.cpu_count() or 1)))
    workers = [
        context.Process(target=work, args=(shape, setting, barrier, answers, seconds)) for _ in range(n)
    ]
    for worker in workers:
        worker.start()
    rates = [answers.get(timeout=600) for _ in workers]
    for worker in workers:
        worker.join()
    return Result(f"(b) {n} processes", n, sum(rates), None)


def arithmetic(setting: Setting) -> None:
    torch.set_float32_matmul_precision("high" if setting.precision == "tf32" else "highest")


def peaks(setting: Setting) -> tuple[float, float]:
    """Floating-point operations and bytes per second of this device, now."""
    size, dtype = (
        (8192 if setting.is_cuda else 2048),
        torch.bfloat16 if setting.precision == "bf16" else torch.float32,
    )
    a, b = (torch.randn(size, size, device=setting.device, dtype=dtype) for _ in range(2))
    flops = 2 * size**3 / timed(lambda: a @ b, setting)
    source = torch.zeros(1 << (28 if setting.is_cuda else 25), device=setting.device)
    target = torch.empty_like(source)
    return flops, 8 * source.numel() / timed(lambda: target.copy_(source), setting)


def contest(shape: Shape, setting: Setting, arguments: argparse.Namespace) -> list[Result]:
    """All contestants on one shape; more slots as long as memory suffices."""
    results = [run("(a) plain", 1, setting, lambda: plain_step(shape, setting))]
    if arguments.compile:
        results.append(run("(a+) compiled", 1, setting, lambda: plain_step(shape, setting, is_compiled=True)))
    if arguments.processes:
        fresh(setting)
        results.append(processes(shape, setting, arguments.processes))
    for name, make in (("(c) vmap", vmap_step), ("(d) engine", packed_step)):
        for slots in arguments.slots:
            result = run(name, slots, setting, lambda make=make, slots=slots: make(shape, slots, setting))  # type: ignore[misc]
            if result is None:
                break
            results.append(result)
    done = [result for result in results if result is not None]
    if arguments.compile:
        best = max((r for r in done if r.name == "(d) engine"), key=lambda r: r.steps_per_s)
        compiled = run(
            "(d+) compiled",
            best.slots,
            setting,
            lambda: packed_step(shape, best.slots, setting, is_compiled=True),
        )
        done += [] if compiled is None else [compiled]
    if shape is SHAPES[0]:
        fresh(setting)
        done.append(whole_engine(shape, setting))
    return done


def table(shape: Shape, results: list[Result], setting: Setting, peak: tuple[float, float]) -> list[str]:
    """Lines of one shape."""
    plain = results[0].steps_per_s
    together = next((r.steps_per_s for r in results if r.name.startswith("(b)")), math.nan)
    title = f"width {shape.width}, depth {shape.depth}, {shape.length} tokens, batch {shape.batch_size}"
    size = f"{shape.packed.n_params:,} parameters, {shape.flops / 1e9:.2f} GFLOP a trial-step"
    head = f"{'':>24} {'S':>5} {'steps/s':>9} {'/ (a)':>7} {'/ (b)':>7}  {'bound':<16} {'MB/trial':>8}"
    lines = [f"{title}, {shape.n_answers} answers: {size}", head]
    for r in results:
        shares = {
            "arithmetic": r.steps_per_s * shape.flops / peak[0],
            "bandwidth": r.steps_per_s * shape.bytes(setting.precision) / peak[1],
        }
        name = max(shares, key=lambda key: shares[key])
        bound = "" if r.name.startswith("engine") else f"{shares[name]:4.0%} {name}"
        megabytes = "" if r.megabytes is None else f"{r.megabytes:.1f}"
        lines.append(
            f"{r.name:>24} {r.slots:>5} {r.steps_per_s:>9.1f} {r.steps_per_s / plain:>7.2f} "
            f"{r.steps_per_s / together:>7.2f}  {bound:<16} {megabytes:>8}"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", default="float32", choices=("float32", "tf32", "bf16"))
    parser.add_argument("--shapes", type=int, nargs="*", default=range(len(SHAPES)))
    parser.add_argument("--slots", type=int, nargs="*", default=[4**i for i in range(6)])
    parser.add_argument("--batch-size", type=int, help="instead of each shape's own")
    parser.add_argument("--processes", type=int, default=16, help="0: leave (b) out")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=2.0, help="of one measurement")
    parser.add_argument("--json", help="a file for the results")
    arguments = parser.parse_args()
    setting = Setting(arguments.device, arguments.precision, arguments.seconds)
    torch.set_num_threads(arguments.threads)
    arithmetic(setting)
    peak = peaks(setting)
    machine = f"torch {torch.__version__}, {device_name(setting.device)}, {setting.precision}"
    peak_text = f"{peak[0] / 1e12:.3g} TFLOP/s, {peak[1] / 1e9:.3g} GB/s"
    lines = [f"{machine}, {arguments.threads} threads; peak {peak_text}"]
    found: dict[str, list[dict[str, Any]]] = {}
    for i in arguments.shapes:
        shape = (
            SHAPES[i] if arguments.batch_size is None else replace(SHAPES[i], batch_size=arguments.batch_size)
        )
        results = contest(shape, setting, arguments)
        found[str(i)] = [asdict(result) for result in results]
        part = ["", *table(shape, results, setting, peak)]
        print("\n".join(part), flush=True)
        lines += part
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(found, file)
    print("\n" + "=" * 80 + "\n" + "\n".join(lines))


if __name__ == "__main__":
    main()
