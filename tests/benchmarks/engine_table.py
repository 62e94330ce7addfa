"""The rows of engine.py, and how they are printed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from roofline import Peak, Shape


@dataclass(frozen=True)
class Row:
    """What one contestant did on one shape."""

    name: str
    slots: int
    steps_per_s: float | None = None
    """Trial-steps."""
    start_s: float | None = None
    moved: float | None = None
    """Bytes per trial-step."""
    allocated: float | None = None
    """Megabytes per trial; `reserved` likewise."""
    reserved: float | None = None
    error: str | None = None


WIDTHS = {
    "": 23, "S": 4, "steps/s": 8, "/ plain": 7, "/ lean": 7, "/ (b)": 7, "flops": 5, "sheet": 5, "moved": 5,
    "least": 5, "bound": 5, "start s": 7, "MB used": 7, "reserved": 8,
}  # fmt: skip


@dataclass(frozen=True)
class Table:
    """Of one shape, on a device that can do so much."""

    shape: Shape
    rows: Sequence[Row]
    dtype: str
    peak: Peak
    sheet: Peak | None

    def __str__(self) -> str:
        s = self.shape
        title = f"width {s.width}, depth {s.depth}, {s.length} tokens, batch {s.batch_size}, {s.n_answers} answers"
        size = f"{s.packed.n_params:,} parameters, {s.flops / 1e9:.2f} GFLOP a trial-step"
        return "\n".join([f"{title}: {size}", _line(list(WIDTHS)), *map(self._row, self.rows)])

    def _row(self, row: Row) -> str:
        begin = [row.name, str(row.slots or "")]
        if row.steps_per_s is None:
            return f"{_line(begin)}  {row.error}"
        ratios = [row.steps_per_s / peer if peer else None for peer in self._peers()]
        memory = [_shown(row.start_s, ".1f"), _shown(row.allocated, ".1f"), _shown(row.reserved, ".1f")]
        ratio_cells = [_shown(ratio, ".2f") for ratio in ratios]
        return _line([*begin, f"{row.steps_per_s:.1f}", *ratio_cells, *self._shares(row), *memory])

    def _peers(self) -> list[float | None]:
        """Rates of what all are compared with."""
        return [
            next((row.steps_per_s for row in self.rows if row.name.startswith(name)), None)
            for name in ("(a) plain", "(a) lean", "(b)")
        ]

    def _shares(self, row: Row) -> list[str]:
        """Of arithmetic and bandwidth, and which is larger."""
        if row.steps_per_s is None or row.name.startswith("(e)"):  # (e) evaluates, too
            return [""] * 5
        rate, shape = row.steps_per_s, self.shape
        flops = rate * shape.flops / self.peak.flops
        sheet = None if self.sheet is None else rate * shape.flops / self.sheet.flops
        moved = None if row.moved is None else rate * row.moved / self.peak.bandwidth
        least = rate * shape.least_bytes(self.dtype) / self.peak.bandwidth
        bound = "flops" if flops > max(moved or 0.0, least) else "bytes"
        return [*(_shown(share, ".0%") for share in (flops, sheet, moved, least)), bound]


def _line(cells: Sequence[str]) -> str:
    return " ".join(f"{cell:>{width}}" for cell, width in zip(cells, WIDTHS.values(), strict=False)).rstrip()


def _shown(value: float | None, how: str) -> str:
    return "" if value is None else f"{value:{how}}"
