"""The code of a launch, copied into its run directory: jobs run it, whatever is edited meanwhile.

    RUN/cluster/code/<digest>/
        orchestrator/ trainers/ cluster/    as they are imported here
        CODE_VERSION
        modules/                            the user's modules, and sweep.yaml

Jobs import from `python_path` before anything else, and read their sweep with `load_snapshot`. What Python does
not import from the sweep file's folder is installed, and not copied.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path

from cluster.files import OTHERS_WRITE, deny
from orchestrator.errors import StoreError, SweepError
from orchestrator.provenance import CODE_VERSION, code_version
from orchestrator.publish import store_errors
from orchestrator.sweep import Sweep, load_sweep

MAX_FILES = 5_000
MAX_MB = 200
ABANDONED_S = 24 * 3600
_PACKAGES = ("orchestrator", "trainers", "cluster")
_SUFFIXES = (".py", ".so")
_MODULES, _BUILDING = "modules", ".building-"

Contents = Mapping[str, Path | bytes]
"""What a snapshot holds: relative names, and the file to copy or the content."""


def take_snapshot(sweep: Sweep, folder: Path) -> Path:
    """Copy the code of this launch to `folder/<digest>`, unless it is there, whole. Atomic. Whatever the umask,
    others may write neither in it nor in `folder` and the one around that, where they could put another in its
    place.

    Not synced to disk: that takes 200 times as long as writing it. What is lost with this machine, if it dies
    within seconds, is written again by the next launch.

    Raises StoreError if that can't be written, or not be imported from; SweepError if there is too much beside
    the sweep file, or something was edited since it was loaded.
    """
    folder = folder.absolute()
    if ":" in str(folder):
        raise StoreError(f"{folder}: Python imports from no path with a colon; launch with another --run-dir")
    contents = _contents(sweep)
    target = folder / _digest(contents)
    with store_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        deny(folder.parent, OTHERS_WRITE)
        deny(folder, OTHERS_WRITE)
        if _is_whole(target, contents):
            _deny_others(target)
        else:
            target = _write(contents, folder)
    if sweep.is_function and not _is_as_loaded(sweep):
        raise SweepError([sweep.document.mistake((), "its modules were edited meanwhile; launch again")])
    return target


def _is_as_loaded(sweep: Sweep) -> bool:
    """The copied modules have the version that the trials were made with (or say themselves which they have)."""
    try:
        return sweep.trainer.version({}) == sweep.trainer_version  # reads the files again
    except OSError:
        return False


def python_path(snapshot: Path) -> str:
    """PYTHONPATH of the jobs. What is in `modules` was imported from the sweep file's folder at launch, so it
    comes first, though the same may be installed (editable)."""
    return f"{snapshot}:{snapshot / _MODULES}"


def load_snapshot(snapshot: Path) -> Sweep:
    """The sweep of a snapshot, in a process that imports from it: an equal sweep, with equal trials."""
    sweep = load_sweep(snapshot / _MODULES / "sweep.yaml")
    # A function's version covers the modules in its folder; what was only linked there lies there now.
    return replace(sweep, trainer_version=sweep.document.data["trainer_version"])


# -- what belongs to it ---------------------------------------------------------------------------------------


def _contents(sweep: Sweep) -> Contents:
    contents: dict[str, Path | bytes] = {
        CODE_VERSION: code_version().encode(),
        f"{_MODULES}/sweep.yaml": sweep.to_yaml().encode(),
    }
    for package in _PACKAGES:
        spec = importlib.util.find_spec(package)
        assert spec is not None and spec.origin is not None, package
        root = Path(spec.origin).parent
        contents |= {f"{package}/{path.relative_to(root)}": path for path in _files(root)}
    if sweep.is_function:
        contents |= {f"{_MODULES}/{name}": path for name, path in _modules(sweep).items()}
    return contents


def _modules(sweep: Sweep) -> dict[str, Path]:
    """What Python imports from the sweep's folders: modules, and packages with their data files."""
    importlib.invalidate_caches()
    found: dict[str, Path] = {}
    n_bytes = 0
    for root in _roots(sweep.import_paths):
        for item in sorted(root.iterdir()):
            for path in _importable(item):
                found.setdefault(str(path.relative_to(root)), path)  # the first root counts, as in `sys.path`
                n_bytes += path.stat().st_size
            if len(found) > MAX_FILES or n_bytes > MAX_MB * 1e6:
                raise SweepError([sweep.document.mistake((), _too_much(item))])
    return found


def _too_much(item: Path) -> str:
    return (
        f"the modules and packages in its folder are copied for the jobs, and with {item.name!r} these are more "
        f"than {MAX_FILES:,} files or {MAX_MB} MB. Put the sweep file into a folder of its own, with the modules "
        "that it needs"
    )


def _roots(folders: Sequence[str]) -> list[Path]:
    """The folders, and others below them that Python imports from (a project's `src`), in Python's order."""
    paths = [Path(entry).absolute() for entry in (*sys.path, *folders)]
    below = [path for path in paths if any(_is_code_below(path.resolve(), Path(top)) for top in folders)]
    return [path for path in dict.fromkeys(below) if path.is_dir()]


def _is_code_below(path: Path, top: Path) -> bool:
    """Whether a walk through the folder `top` gets there."""
    is_below = path.is_relative_to(top) and path != top
    return path == top or (is_below and _has_code(path) and _is_code_below(path.parent, top))


def _importable(item: Path) -> list[Path]:
    """The files of a module or package; none if there is no module in it, or Python imports another one."""
    if item.is_file():
        return [item] if item.suffix in _SUFFIXES and _is_imported(item) else []
    if not (item.is_dir() and item.name.isidentifier() and _has_code(item) and _is_imported(item)):
        return []
    files = list(islice(_files(item), MAX_FILES + 1))  # a folder of data may hold millions
    return files if any(path.suffix in _SUFFIXES for path in files) else []


def _is_imported(item: Path) -> bool:
    """Whether it is this that Python imports under its name, and nothing that is installed: a `random.py` that
    nobody sees would break every library once it comes first."""
    name = item.name.partition(".")[0]
    if name in _PACKAGES:
        return False
    if not name.isidentifier():
        return not item.name.startswith(".")  # a script, which may be run by its path
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):  # `__main__` has none
        return False
    places = [] if spec is None else [spec.origin, *(spec.submodule_search_locations or ())]
    return any(Path(place).is_relative_to(item.parent) for place in places if place)


def _files(folder: Path) -> Iterator[Path]:
    """Everything in a package, links followed, but what is hidden, compiled, or no code."""
    yield from (path for path in _visible(folder) if path.is_file() and path.suffix != ".pyc")
    for path in _visible(folder):
        if path.is_dir() and _has_code(path):
            yield from _files(path)


def _visible(folder: Path) -> Iterator[Path]:
    return (path for path in folder.iterdir() if not path.name.startswith("."))


def _has_code(folder: Path) -> bool:
    """Not so: caches, environments, runs, snapshots, and links that lead back to a folder above."""
    names = {"__pycache__"} if (folder / "__init__.py").exists() else {"__pycache__", "runs"}
    is_environment = (folder / "pyvenv.cfg").exists() or (folder / "conda-meta").exists()
    is_run = (folder / "trials").is_dir() and (folder / "packs").is_dir()
    is_snapshot = (folder / CODE_VERSION).exists()
    is_loop = folder.parent.resolve().is_relative_to(folder.resolve())
    is_known = folder.name.startswith(".") or folder.name in names
    return not (is_known or is_environment or is_run or is_snapshot or is_loop)


# -- writing --------------------------------------------------------------------------------------------------


def _digest(contents: Contents) -> str:
    """16 hex digits: the hash of names and contents."""
    digest = hashlib.sha256()
    for name, content in sorted(contents.items()):
        digest.update(os.fsencode(name) + b"\0" + hashlib.sha256(_read(content)).digest())
    return digest.hexdigest()[:16]


def _read(content: Path | bytes) -> bytes:
    if isinstance(content, bytes):
        return content
    try:
        return content.read_bytes()
    except OSError as error:
        raise StoreError(
            f"{content}: cannot be read: {error.strerror}. The jobs of a launch run a copy of it"
        ) from error


def _is_whole(snapshot: Path, contents: Contents) -> bool:
    """It is there, and holds what it held when it got its name."""
    try:
        return _digest({name: snapshot / name for name in contents}) == snapshot.name
    except StoreError:
        return False


def _write(contents: Contents, folder: Path) -> Path:
    """Build it beside its place, which it then takes whole."""
    _remove_abandoned(folder)
    building = folder / f"{_BUILDING}{uuid.uuid4().hex}"
    building.mkdir(mode=0o700)  # until others are denied to write in what is built there
    try:
        built = building / "built"
        for name, content in contents.items():
            _copy(content, built / name)
        _deny_others(built)
        # Of the copies: a file may have been edited since it was hashed.
        target = folder / _digest({name: built / name for name in contents})
        if target.is_dir() and not _is_whole(target, contents):
            target.rename(building / "damaged")
        _rename_once(built, target)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return target


def _copy(content: Path | bytes, target: Path) -> None:
    data = _read(content)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data)
    if isinstance(content, Path):
        shutil.copymode(content, target)


def _deny_others(folder: Path) -> None:
    """To write anywhere in it."""
    for parent, _, names in os.walk(folder):
        for path in (Path(parent), *(Path(parent, name) for name in names)):
            with suppress(FileNotFoundError):  # jobs compile what they import, and rename that into its place
                deny(path, OTHERS_WRITE)


def _rename_once(source: Path, target: Path) -> None:
    try:
        source.rename(target)
    except OSError:
        if not target.is_dir():  # else another launch was first, with the same
            raise


def _remove_abandoned(folder: Path) -> None:
    """What launches left that were killed while they wrote it."""
    for path in folder.glob(f"{_BUILDING}*"):
        with suppress(FileNotFoundError):  # its launch is at work
            if time.time() - path.stat().st_mtime > ABANDONED_S:
                shutil.rmtree(path, ignore_errors=True)
