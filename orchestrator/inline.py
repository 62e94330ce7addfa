"""Packs one after the other in this process, without Ray: for debugging and tests."""

from __future__ import annotations

from collections.abc import Callable

from cluster.base import Demand
from cluster.local import Local
from orchestrator.driver import Driver
from orchestrator.errors import OrchestratorError
from orchestrator.worker import Worker


class Inline:
    """The launching process alone, with the packs that a launch on this machine would make."""

    name = "inline"
    has_gpus = False

    def places(self, demand: Demand) -> int:
        return Local().places(demand)


def run_inline(driver: Driver, watch: Callable[[], None]) -> None:
    """Run until the driver is finished. `watch` is called about once a second."""
    while (pack_id := driver.next_pack()) is not None:
        _run_pack(driver, pack_id, watch)


def _run_pack(driver: Driver, pack_id: str, watch: Callable[[], None]) -> None:
    try:
        worker = Worker(driver.order, pack_id)
        while not driver.stop_requested:
            progress = worker.advance()
            driver.progressed(progress)
            watch()
            if progress.is_done:
                driver.ended(pack_id)
                return
        worker.leave()
        driver.left(pack_id)
    except OrchestratorError as failure:
        driver.left(pack_id)
        driver.abort(failure)
    except Exception:
        # A bug in a trainer: the attempt file has the traceback, and the driver closes in on the trial.
        driver.died(pack_id)
