"""What a training step takes of a device, arithmetic and traffic, and what the device has to give."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from trainers.transformer.config import Model
from trainers.transformer.model import PackedTransformer


@dataclass(frozen=True)
class Shape:
    """What is trained."""

    width: int
    depth: int
    heads: int
    length: int
    """T, tokens of one example."""
    batch_size: int
    n_answers: int
    """Q, the last positions, which are read."""
    vocab_size: int = 32

    @property
    def model(self) -> Model:
        return Model(width=self.width, depth=self.depth, heads=self.heads)

    @property
    def packed(self) -> PackedTransformer:
        return PackedTransformer(self.model, self.vocab_size, self.length, self.n_answers)

    @property
    def flops(self) -> float:
        """Of a trial-step at least: two for each multiplication of a product, three products for each of the
        forward pass. The last block counts at the answers, keys and values everywhere; a causal mask saves
        nothing; embeddings are look-ups."""
        width, n_unread = self.width, self.length - self.n_answers
        n_tokens = self.depth * self.length - n_unread
        block = 24 * width**2 + 4 * self.length * width
        keys_and_values = 4 * width**2
        head = 2 * width * self.vocab_size
        forward = n_tokens * block + n_unread * keys_and_values + self.n_answers * head
        return 3.0 * self.batch_size * forward

    def least_bytes(self, dtype: str) -> float:
        """Moved by a trial-step if everything were fused perfectly: gradient, moments and weights, read and written
        once in float32; the inputs of each product, norm and nonlinearity, written once, read once forward and
        twice backward."""
        n_unread = self.length - self.n_answers
        # Per token: both norms, q k v and attention, its output, the MLP's input and its hidden layer twice.
        block, keys_and_values = 16 * self.width, 4 * self.width
        n_tokens = self.depth * self.length - n_unread
        activations = self.batch_size * (n_tokens * block + n_unread * keys_and_values)
        return 4.0 * 8 * self.packed.n_params + (2 if dtype == "bf16" else 4) * 4.0 * activations


class Traffic(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes that operations read and write: each tensor that goes in, each that comes out, every time.

    What stays in a cache between two operations counts all the same; what is a view of its input does not.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = 0
        self.operations = 0
        """That move any: about one kernel each on CUDA."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if not func._schema.name.startswith(EMPTY):
            n_bytes = _moved(func, args, kwargs or {}, out)
            self.bytes += n_bytes
            self.operations += n_bytes > 0
        return out


EMPTY = ("aten::empty", "aten::new_empty")
OVERWRITES = ("aten::copy_", "aten::fill_", "aten::zero_")
"""They write their first argument without reading it."""


def _moved(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> int:
    inputs = _tensors((args, kwargs))
    written = _tensors(list(_written(func, args, kwargs)))
    known = {_place(tensor) for tensor in inputs}
    fresh = [tensor for tensor in _tensors(out) if _place(tensor) not in known]
    if not written and not fresh:
        return 0
    read = inputs[1:] if func._schema.name in OVERWRITES else inputs
    return sum(map(_bytes, [*read, *written, *fresh]))


def _tensors(values: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def _written(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Any]:
    """The arguments that it changes in place."""
    for i, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            yield args[i] if i < len(args) else kwargs.get(argument.name)


def _place(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _bytes(tensor: Tensor) -> int:
    """Of the numbers that are there; an expanded one is there once."""
    n = 1
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        n *= size if stride else 1
    return n * tensor.element_size() if tensor.numel() else 0


@dataclass(frozen=True)
class Peak:
    """Floating-point operations and bytes per second."""

    flops: float
    bandwidth: float

    def __str__(self) -> str:
        return f"{self.flops / 1e12:.3g} TFLOP/s, {self.bandwidth / 1e12:.3g} TB/s"


HOPPER = {"bf16": 989e12, "tf32": 494e12, "float32": 67e12}
BANDWIDTHS = {"NVIDIA H100 80GB HBM3": 3.35e12, "NVIDIA H200": 4.8e12}
"""By what the driver calls the SXM modules (NVIDIA's data sheets, without sparsity)."""


def data_sheet(device_name: str, dtype: str) -> Peak | None:
    """None: of another device."""
    bandwidth = BANDWIDTHS.get(device_name)
    return None if bandwidth is None else Peak(HOPPER[dtype], bandwidth)
