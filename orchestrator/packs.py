"""Open packs on disk: what was begun, how often it was tried, and its checkpoints.

    packs/<pack_id>.json                 the intent: written before the pack starts, gone when it is stored
    packs/<pack_id>.attempt.<n>.json     a worker began; gone when it made progress or left in good order
    checkpoints/<pack_id>/<epoch>-<n>    the last two

So the attempt files of a pack count the workers that died in a row without getting anywhere.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cluster.files import temporary_name
from orchestrator.errors import StoreError
from orchestrator.pack import Pack
from orchestrator.publish import publish_once, replace, store_errors
from orchestrator.store import Store
from orchestrator.trial import Trial

KEPT_CHECKPOINTS = 2


@dataclass(frozen=True)
class Attempt:
    """A worker that took up a pack. `active`: the trials that it was training when last heard of."""

    epoch: int
    host: str
    pid: int
    active: tuple[str, ...] = ()
    error: str | None = None
    node: str | None = None
    """The cluster's name for the machine."""
    is_dead: bool = False
    """A driver saw it die. Otherwise the driver may have died first, or with it, and it may be nobody's fault."""


@dataclass(frozen=True)
class OpenPack:
    """The files of one open pack."""

    store: Store
    pack_id: str

    @property
    def intent_path(self) -> Path:
        return self.store.path / "packs" / f"{self.pack_id}.json"

    @property
    def checkpoint_dir(self) -> Path:
        return self.store.path / "checkpoints" / self.pack_id

    def write_intent(self, pack: Pack, parent: str | None = None) -> None:
        """`parent`: the pack that this one is split from, and replaces."""
        configs = [dict(trial.config) for trial in pack.trials]
        publish_once(self.intent_path, json.dumps({"configs": configs, "parent": parent}).encode())

    def load(self) -> Pack:
        """The trials, in the order in which they were queued."""
        return Pack(tuple(Trial(config) for config in self._intent()["configs"]))

    @property
    def parent(self) -> str | None:
        parent: str | None = self._intent()["parent"]
        return parent

    def _intent(self) -> dict[str, Any]:
        try:
            intent: dict[str, Any] = json.loads(self.intent_path.read_bytes())
            return {"configs": list(intent["configs"]), "parent": intent["parent"]}
        except (ValueError, LookupError, TypeError) as error:
            raise StoreError(
                f"{self.intent_path}: damaged ({error}). Delete it and launch again: what it held runs anew."
            ) from error

    def close(self) -> None:
        """Take away everything but the stored rows. The intent goes last, so that this can be repeated."""
        shutil.rmtree(self.checkpoint_dir, ignore_errors=True)
        self.forget_attempts()
        self.intent_path.unlink(missing_ok=True)

    # -- attempts -------------------------------------------------------------------------------------------

    def attempts(self) -> list[Attempt]:
        """Workers that took the pack up since it last made progress, oldest first."""
        return [attempt for path in self._attempt_paths() if (attempt := _read_attempt(path)) is not None]

    def mark_death(self) -> None:
        """The driver has seen the newest attempt's worker die, or its trainer raise."""
        paths = self._attempt_paths()
        attempt = _read_attempt(paths[-1]) if paths else None
        if attempt is not None:
            AttemptFile(paths[-1], attempt).update(is_dead=True)

    def begin_attempt(self, epoch: int, node: str | None = None) -> AttemptFile:
        paths = self._attempt_paths()
        n = int(paths[-1].name.split(".")[2]) + 1 if paths else 0
        path = self.intent_path.with_name(f"{self.pack_id}.attempt.{n:04d}.json")
        attempt = AttemptFile(path, Attempt(epoch, socket.gethostname(), os.getpid(), node=node))
        replace(path, attempt.content())
        return attempt

    def forget_attempts(self, but: Path | None = None) -> None:
        for path in self._attempt_paths():
            if path != but:
                path.unlink(missing_ok=True)

    def _attempt_paths(self) -> list[Path]:
        return sorted(self.intent_path.parent.glob(f"{self.pack_id}.attempt.*.json"))

    # -- checkpoints ----------------------------------------------------------------------------------------

    def checkpoints(self) -> list[Path]:
        """Whole checkpoints, newest first."""
        names = [path for path in self.checkpoint_dir.glob("*-*") if path.name.replace("-", "").isdigit()]
        return sorted(names, key=lambda path: tuple(int(part) for part in path.name.split("-")), reverse=True)

    def write_checkpoint(self, epoch: int, content: bytes) -> None:
        """Publish the newest checkpoint; the older ones but one are deleted. Raises StoreError."""
        with store_errors(self.checkpoint_dir):
            self.checkpoint_dir.mkdir(parents=True, exist_ok=True)
        existing = self.checkpoints()
        n = int(existing[0].name.split("-")[1]) + 1 if existing else 0
        replace(self.checkpoint_dir / f"{epoch}-{n}", content)
        for old in self.checkpoints()[KEPT_CHECKPOINTS:]:
            old.unlink(missing_ok=True)


@dataclass
class AttemptFile:
    """The worker's side of its attempt. Not synced to disk: it must outlive the process, not the machine."""

    path: Path
    attempt: Attempt

    def content(self) -> bytes:
        return json.dumps(asdict(self.attempt)).encode()

    def update(self, **changes: object) -> None:
        self.attempt = Attempt(**{**asdict(self.attempt), **changes})
        with store_errors(self.path):
            temporary = temporary_name(self.path)
            temporary.write_bytes(self.content())
            temporary.replace(self.path)

    def withdraw(self) -> None:
        """The worker leaves in good order."""
        self.path.unlink(missing_ok=True)


def _read_attempt(path: Path) -> Attempt | None:
    """None if the file has gone since it was listed, or holds no attempt (it is not synced to disk)."""
    try:
        values = json.loads(path.read_bytes())
        return Attempt(**{**values, "active": tuple(values["active"])})
    except (FileNotFoundError, ValueError, LookupError, TypeError):
        return None


def open_packs(store: Store) -> list[OpenPack]:
    """Packs that were begun and are not closed, oldest intent first."""
    return begun_packs(store)[0]


def begun_packs(store: Store) -> tuple[list[OpenPack], list[OpenPack]]:
    """The open packs, oldest intent first, and those that were being split when a driver died: their parts are
    open in their place."""
    begun: list[tuple[int, OpenPack]] = []
    split: set[str | None] = set()
    for path in (store.path / "packs").glob("*.json"):
        if path.name.count(".") > 1:  # an attempt
            continue
        pack = OpenPack(store, path.stem)
        with suppress(FileNotFoundError):  # a driver at work has closed it meanwhile
            parent, begun_at = pack.parent, path.stat().st_mtime_ns
            split.add(parent)
            begun.append((begun_at, pack))
    packs = [pack for _, pack in sorted(begun, key=lambda item: (item[0], item[1].pack_id))]
    return (
        [pack for pack in packs if pack.pack_id not in split],
        [pack for pack in packs if pack.pack_id in split],
    )


def suspects(trials: Sequence[Trial], attempts: Sequence[Attempt]) -> list[Trial]:
    """Of these trials, those that were training at every death; all of them, if no single one was."""
    ids = {trial.trial_id for trial in trials}
    common = ids.intersection(*(attempt.active for attempt in attempts)) or ids
    return [trial for trial in trials if trial.trial_id in common]


def describe_deaths(attempts: Sequence[Attempt]) -> str:
    """One line for the error column of a trial whose workers died."""
    errors = [attempt.error for attempt in attempts if attempt.error]
    last = errors[-1] if errors else "the process ended without a word (killed, crashed or out of memory)"
    seen = [attempt for attempt in attempts if attempt.is_dead and not attempt.error]
    log = f"; logs/{worker_log(seen[-1].host, seen[-1].pid)} may say more" if seen else ""
    return f"its worker died {len(attempts)} times; last: {last}{log}"


def worker_log(host: str, pid: int) -> str:
    """Name of the file that a worker of Ray's prints to."""
    return f"worker-{host}-{pid}.log"
