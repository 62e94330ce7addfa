"""What a person watches while a launch runs: a bar on a terminal, plain lines anywhere else."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from orchestrator.driver import Tally

PLAIN_EVERY_S = 10.0
BAR_EVERY_S = 0.5


@dataclass
class Rates:
    """Speeds since the launch began."""

    began: float = field(default_factory=time.monotonic)

    def line(self, tally: Tally) -> str:
        """One line: trials done, solved and failed, speeds, time left."""
        elapsed_s = max(time.monotonic() - self.began, 1e-9)
        counts = Counter(tally.statuses.values())
        done = len(tally.statuses)
        trials_per_s = (done - tally.stored_before) / elapsed_s
        expected, note = tally.progress()
        parts = [
            f"{done}/{expected} trials",
            *([note] if note else []),
            *(
                f"{counts[status]} {status}"
                for status in ("solved", "unsolved", "diverged", "failed")
                if counts[status]
            ),
            f"{trials_per_s:.3g} trials/s",
        ]
        if tally.trial_steps:
            parts.append(f"{tally.trial_steps / elapsed_s:,.0f} steps/s")
        if trials_per_s > 0 and done < expected:
            parts.append(f"about {_duration((expected - done) / trials_per_s)} left")
        return ", ".join(parts)


@contextmanager
def watching(is_quiet: bool = False) -> Iterator[Callable[[Tally], None]]:
    """Yields a function to call with the tally as often as one likes; it shows it now and then."""
    rates = Rates()
    if is_quiet:
        yield lambda _tally: None
    elif sys.stdout.isatty():
        with _bar(rates) as show:
            yield show
    else:
        yield _plain(rates)


def _plain(rates: Rates) -> Callable[[Tally], None]:
    last = time.monotonic()

    def show(tally: Tally) -> None:
        nonlocal last
        if time.monotonic() - last >= PLAIN_EVERY_S:
            last = time.monotonic()
            print(rates.line(tally), flush=True)

    return show


@contextmanager
def _bar(rates: Rates) -> Iterator[Callable[[Tally], None]]:
    from rich.progress import BarColumn, Progress, TextColumn

    with Progress(BarColumn(bar_width=24), TextColumn("{task.description}"), transient=True) as progress:
        task = progress.add_task("starting", total=None)
        last = 0.0

        def show(tally: Tally) -> None:
            nonlocal last
            if time.monotonic() - last >= BAR_EVERY_S:
                last = time.monotonic()
                progress.update(
                    task,
                    total=tally.progress().expected,
                    completed=len(tally.statuses),
                    description=rates.line(tally),
                )

        yield show


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
