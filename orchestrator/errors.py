"""What can go wrong outside the science. A diverged or failed trial is a row, never one of these.

    OrchestratorError    printed as it is, exit code 2
    |- SweepError        the sweep file: every mistake in it at once
    |- StoreError        a run directory: unknown, damaged, locked, not writable
    `- QueryError        a question that the stored rows cannot answer

`cluster.errors.ClusterError`, the machines' own, is printed likewise; `cluster` imports nothing from here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class OrchestratorError(Exception):
    """Something that the user can put right; the message says what and how."""


class StoreError(OrchestratorError):
    """A run directory that is unknown, damaged, locked or not writable."""


class QueryError(OrchestratorError):
    """A question (SQL, an axis, a metric) that the stored rows cannot answer."""


KeyPath = tuple[str | int, ...]
"""Where a value stands in a YAML file: keys, and positions in lists."""


@dataclass(frozen=True)
class Mistake:
    """One mistake in a sweep file. `file` is `--set` for values from the command line, which have no line."""

    file: str
    line: int | None
    path: KeyPath
    message: str
    allowed: str | None = None
    nearest: str | None = None

    def __str__(self) -> str:
        file = printable(self.file)
        place = file if self.line is None else f"{file}:{self.line}"
        first = ": ".join(part for part in (place, key_path_text(self.path), self.message) if part)
        hints = [("allowed", self.allowed), ("nearest", self.nearest)]
        return "\n".join([first, *(f"    {name}: {hint}" for name, hint in hints if hint)])


class SweepError(OrchestratorError):
    """The mistakes of a sweep file, in the order of its lines."""

    def __init__(self, mistakes: Sequence[Mistake]) -> None:
        super().__init__(mistakes)
        self.mistakes = sorted(dict.fromkeys(mistakes), key=lambda m: (m.file == "--set", m.line or 0))

    def __str__(self) -> str:
        return "\n".join(str(mistake) for mistake in self.mistakes)


def key_path_text(path: KeyPath) -> str:
    """`("axes", "k", 1)` -> `axes.k[1]`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{printable(part)}" for part in path)
    return text.removeprefix(".")


def printable(text: str) -> str:
    """The text itself, quoted if it is empty or a terminal would act on it (line breaks, escapes)."""
    return text if text and text.isprintable() else repr(text)
