"""A trainer of nothing, with the kinds of fields that real ones have."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from trainers.base import Config, Overlay, Problem


@dataclass(frozen=True)
class Mixture:
    hops: Literal["all", "powers_of_two"] | tuple[int, ...] = "all"
    count: Literal["total", "hard"] = "total"


@dataclass(frozen=True, kw_only=True)
class Toy:
    name: Literal["toy"] = "toy"
    n: int
    k: int = 2
    data_size: float = math.inf
    easy_fraction: float | Literal["uniform"] = 0.0
    batch_easy_fraction: float | None = None
    cyclic: bool = False
    mixture: Mixture = field(default_factory=Mixture)

    def __post_init__(self) -> None:
        faults = [f"k must be 1 or more, not {self.k}"] * (self.k < 1) + ["n must not be 13"] * (self.n == 13)
        if faults:
            raise ValueError("; ".join(faults))


@dataclass(frozen=True)
class Model:
    width: int = 64
    heads: int = 4
    attention: Literal["causal", "full"] = "causal"

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"heads must divide width: {self.heads} does not divide {self.width}")


@dataclass(frozen=True)
class Train:
    steps: int
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.98)


class ToyTrainer:
    """Cells of k = 1 with easy examples cannot exist; full attention goes with k = 2 only."""

    name = "transformer"
    short_names: Mapping[str, str] = {
        "k": "task.k",
        "depth": "model.depth",
        "data_size": "task.data_size",
        "easy_fraction": "task.easy_fraction",
        "width": "model.width",
    }

    def sections(self, raw: Mapping[str, Any]) -> Mapping[str, type]:
        name = raw.get("task", {}).get("name", "toy")
        if name != "toy":
            raise ValueError(f"no task is called {name!r}; allowed: toy")
        return {"task": Toy, "model": Model, "train": Train}

    def version(self, raw: Mapping[str, Any]) -> str:
        return "toy 1"

    def problems(self, config: Config) -> list[Problem]:
        wrong = config["model"]["attention"] == "full" and config["task"]["k"] != 2
        return [Problem(("model", "attention"), "full attention needs k: 2")] if wrong else []

    def impossible(self, config: Config) -> str | None:
        task = config["task"]
        return "k = 1 has nothing easier" if task["k"] == 1 and task["easy_fraction"] else None

    def overlays(self, config: Config) -> Sequence[Overlay]:
        return (Overlay("width", "8 * k", is_reference=config["task"]["cyclic"]),)

    def metrics(self, config: Config) -> Sequence[str]:
        return ("test_accuracy", "test_loss")
