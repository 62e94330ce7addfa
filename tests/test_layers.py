"""Who may import whom, and what importing costs."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
STANDARD = set(sys.stdlib_module_names)
PACKAGES = ("orchestrator", "trainers", "cluster")
FOR_OPTUNA = ("optuna_sampler.py", "optuna_space.py")
"""What only users of Optuna import."""


def imports(path: Path, *, top_level_only: bool) -> set[str]:
    """Top names of the modules that a file imports, type-checking blocks left out."""
    tree = ast.parse(path.read_text())
    checked_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    found: set[str] = set()
    for node in nodes:
        if id(node) in checked_only:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def files(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def top(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize("path", files("trainers"), ids=str)
def test_trainers_need_torch_and_the_standard_library_only(path: Path) -> None:
    """`trainers` runs on a bare machine that has torch and nothing else."""
    assert top(imports(path, top_level_only=False)) <= STANDARD | {"torch", "trainers"}


@pytest.mark.parametrize("path", files("cluster"), ids=str)
def test_cluster_knows_nothing_of_sweeps_or_trainers(path: Path) -> None:
    """`cluster` imports nothing of ours outside itself."""
    assert not top(imports(path, top_level_only=False)) & {"orchestrator", "trainers"}


@pytest.mark.parametrize("path", files("orchestrator"), ids=str)
def test_orchestrator_is_free_of_torch(path: Path) -> None:
    """`orchestrator` never imports torch, and ray only inside functions of tune.py."""
    assert not top(imports(path, top_level_only=False)) & {"torch", "submitit"}
    if path.name != "tune.py":
        assert "ray" not in top(imports(path, top_level_only=False))
    late = {"ray", "altair", "vl_convert"} | ({"optuna"} if path.name not in FOR_OPTUNA else set())
    assert not top(imports(path, top_level_only=True)) & late


def test_search_policies_are_pure() -> None:
    """`search` does without files, clocks and clusters."""
    for path in files("orchestrator/search"):
        assert not top(imports(path, top_level_only=False)) & {
            "os",
            "pathlib",
            "time",
            "ray",
            "random",
            "cluster",
        }


@pytest.mark.parametrize(
    "module", ["orchestrator", "orchestrator.cli", "orchestrator.sweep", "trainers.transformer"]
)
def test_importing_loads_nothing_heavy(module: str) -> None:
    """Planning and reading stay fast: no torch, ray, altair, submitit or optuna is loaded on import."""
    heavy = ("torch", "ray", "altair", "submitit", "optuna")
    code = f"import sys, {module}; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_constraints_pin_everything_portably() -> None:
    """One exact version per line, no local versions such as +cpu, numpy 2 or newer."""
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split())
    assert all(re.fullmatch(r"[0-9A-Za-z.]+", version) for version in pins.values())
    assert pins["torch"] == "2.13.0"
    assert int(pins["numpy"].split(".")[0]) >= 2


def test_every_dependency_is_pinned() -> None:
    """What the project needs here, directly or not, has a line in constraints.txt."""
    pins = {canonicalize_name(line.split("==")[0]) for line in (ROOT / "constraints.txt").read_text().split()}
    needed: set[str] = set()
    waiting = [Requirement("transformer-orchestrator[dev]")]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name in needed and not requirement.extras:
            continue
        needed.add(name)
        for line in metadata.requires(requirement.name) or []:
            need = Requirement(line)
            marker = need.marker
            if marker is None or any(
                marker.evaluate({"extra": extra}) for extra in ("", *requirement.extras)
            ):
                waiting.append(need)
    assert needed - {"transformer-orchestrator"} <= pins
