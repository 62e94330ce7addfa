"""Code at run time is the code at launch, whatever is edited meanwhile."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import orchestrator
from orchestrator import snapshot as module
from orchestrator.errors import StoreError, SweepError
from orchestrator.provenance import code_version
from orchestrator.snapshot import load_snapshot, python_path, take_snapshot
from orchestrator.sweep import Sweep, load_sweep

COMPOSITION: dict[str, Any] = {
    "name": "built_in",
    "task": {"name": "composition", "n": 4, "k": 2},
    "model": {"width": 8, "heads": 2},
    "train": {"steps": 50, "batch_size": 4},
    "axes": {"data_size": [8, 16], "depth": [1, 2], "seed": 2},
}
JOB = """
import json, sys
import cluster, orchestrator, trainers
from pathlib import Path
from orchestrator.provenance import code_version
from orchestrator.snapshot import load_snapshot
from orchestrator.sweep import load_sweep
snapshot = Path(sys.argv[1])
if sys.argv[2] == "load_snapshot":
    sweep = load_snapshot(snapshot)
else:
    sweep = load_sweep(snapshot / "modules" / "sweep.yaml")
reports = []
if sweep.is_function:
    sweep.trainer.function({}, lambda step, **metrics: reports.append(metrics))
print(json.dumps({
    "trials": [trial.trial_id for trial in sweep.plan().trials],
    "trainer_version": sweep.trainer_version,
    "code_version": code_version(),
    "imported_from": [str(Path(package.__file__).parents[1]) for package in (orchestrator, trainers, cluster)],
    "reports": reports,
}))
"""


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def in_job(snapshot: Path, how: str = "load_snapshot", path: str | None = None) -> dict[str, Any]:
    """What a process sees that runs the snapshot."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", JOB, snapshot, how],
        env={**os.environ, "PYTHONPATH": path or python_path(snapshot)},
        capture_output=True,
        text=True,
        check=False,
        cwd=snapshot.anchor,
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def expected(sweep: Sweep, snapshot: Path, reports: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    return {
        "trials": [trial.trial_id for trial in sweep.plan().trials],
        "trainer_version": sweep.trainer_version,
        "code_version": code_version(),
        "imported_from": [str(snapshot)] * 3,
        "reports": list(reports),
    }


def listing(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


class Home:
    """A user's folder. Its modules have names of their own, since Python imports a name once."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.code = folder, folder / "elsewhere" / "code"
        self.id = uuid.uuid4().hex[:8]
        self.main, self.helper, self.package = (f"{kind}_{self.id}" for kind in ("main", "helper", "package"))

    def write(self, value: int = 1, below: str = "") -> None:
        """`below`: where the modules lie that the main one imports."""
        imports = f"from {self.helper} import a\nfrom {self.package}.deep.part import B, data\n"
        function = "def train(config, report):\n    report(1, a=a(), b=B, c={}, data=data())\n"
        part = (
            "from pathlib import Path\n"
            f"B = {value}\n"
            "def data(): return float(Path(__file__).with_name('data.txt').read_text())\n"
        )
        write(self.folder, {f"{self.main}.py": imports + function.format(value)})
        write(
            self.folder / below,
            {
                f"{self.helper}.py": f"def a(): return {value}\n",
                f"{self.package}/__init__.py": "",
                f"{self.package}/deep/part.py": part,
                f"{self.package}/deep/data.txt": f"{value}",
            },
        )

    def sweep(self, **changes: Any) -> Sweep:
        data = {"name": "mine", "trainer": f"{self.main}:train", "axes": {"x": [1, 2], "seed": 2}, **changes}
        write(self.folder, {"sweep.yaml": json.dumps(data)})
        return load_sweep(self.folder / "sweep.yaml")

    def take(self) -> Path:
        return take_snapshot(self.sweep(), self.code)

    def modules(self) -> set[str]:
        """What a snapshot holds of this folder."""
        return listing(self.take() / "modules") - {"sweep.yaml"}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setattr(sys, "path", list(sys.path))
    folder = tmp_path / 'it\'s a "folder" – ü $HOME'
    folder.mkdir()
    return Home(folder)


OLD = {"a": 1, "b": 1, "c": 1, "data": 1.0}


@pytest.mark.parametrize("how", ["load_snapshot", "load_sweep"])
def test_jobs_run_what_was_launched(home: Home, how: str) -> None:
    """The function, the modules and packages beside it and their data are those of the launch, as are the trials
    and the project itself, though all of it was edited since (and the project is installed elsewhere)."""
    home.write(value=1)
    sweep = home.sweep()
    snapshot = take_snapshot(sweep, home.code)
    home.write(value=2)
    (home.folder / "sweep.yaml").unlink()
    path = python_path(snapshot) if how == "load_snapshot" else str(snapshot)
    assert in_job(snapshot, how, path) == expected(sweep, snapshot, [OLD])
    assert Path(str(orchestrator.__file__)).parents[1] != snapshot


def test_a_built_in_trainer(tmp_path: Path) -> None:
    """The sweep as it was launched, `--set` included; no modules."""
    write(tmp_path, {"sweep.yaml": json.dumps(COMPOSITION), "beside.py": "", "package/__init__.py": ""})
    sweep = load_sweep(tmp_path / "sweep.yaml", ["model.width=32", "axes.seed=3"])
    snapshot = take_snapshot(sweep, tmp_path / "code")
    assert in_job(snapshot) == in_job(snapshot, "load_sweep", str(snapshot)) == expected(sweep, snapshot)
    assert listing(snapshot / "modules") == {"sweep.yaml"}
    assert sweep.plan().trials[0].config["model"]["width"] == 32


def test_the_whole_project_is_in_it(tmp_path: Path) -> None:
    """Every file of the three packages as they are imported here, and nothing compiled."""
    write(tmp_path, {"sweep.yaml": json.dumps(COMPOSITION)})
    snapshot = take_snapshot(load_sweep(tmp_path / "sweep.yaml"), tmp_path / "code")
    root = Path(str(orchestrator.__file__)).parents[1]
    files = {
        f"{name}/{file}" for name in ("orchestrator", "trainers", "cluster") for file in listing(root / name)
    }
    project = {name for name in files if "__pycache__" not in name}
    assert listing(snapshot) == {*project, "CODE_VERSION", "modules/sweep.yaml"}
    assert {name: (snapshot / name).read_bytes() for name in project} == {
        name: (root / name).read_bytes() for name in project
    }


def test_taking_twice_equals_taking_once(home: Home) -> None:
    """The same code has one snapshot, which is not written again; other code has another."""
    home.write(value=1)
    first = home.take()
    inodes = {path: path.stat().st_ino for path in home.code.rglob("*")}
    assert home.take() == first
    assert {path: path.stat().st_ino for path in home.code.rglob("*")} == inodes
    (home.folder / home.package / "deep" / "data.txt").write_text("2")
    second = home.take()
    assert {first, second} == set(home.code.iterdir())


@pytest.mark.parametrize("below", ["", "src"])
def test_what_is_installed_editable_as_well(home: Home, below: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's project that Python imports from where it is edited (`pip install -e`) is in the snapshot, and
    comes before the installation."""
    home.write(value=1, below=below)
    monkeypatch.syspath_prepend(home.folder / below)
    sweep = home.sweep()
    snapshot = take_snapshot(sweep, home.code)
    home.write(value=2, below=below)
    path = f"{python_path(snapshot)}:{home.folder / below}"
    assert in_job(snapshot, path=path) == expected(sweep, snapshot, [OLD])


def test_links_are_followed(home: Home, tmp_path: Path) -> None:
    """Modules and packages that are only linked beside the sweep file are copied. They have no part in the
    function's version, neither at launch nor in the job, so the trials are the same."""
    home.write(value=1)
    for name in (f"{home.helper}.py", home.package):
        (home.folder / name).rename(tmp_path / name)
        (home.folder / name).symlink_to(tmp_path / name)
    sweep = home.sweep()
    snapshot = take_snapshot(sweep, home.code)
    for name in (f"{home.helper}.py", home.package):
        (tmp_path / name).rename(tmp_path / f"gone_{name}")
    assert in_job(snapshot) == expected(sweep, snapshot, [OLD])
    assert in_job(snapshot, "load_sweep")["trials"] != in_job(snapshot)["trials"]


def test_what_belongs_to_it(home: Home) -> None:
    """Modules, and packages whole; nothing hidden or compiled, no environments, run directories and data."""
    home.write()
    id_, package = home.id, home.package
    mine = {f"{home.main}.py", f"{home.helper}.py", f"{package}/__init__.py", f"{package}/deep/part.py"}
    taken = {
        *mine,
        f"{package}/deep/data.txt",
        f"{package}/more/weights.bin",
        f"space_{id_}/a/b.py",
        f"space_{id_}/a/c.csv",
        f"fast_{id_}.so",
        "01_script.py",
        f"runs_{id_}/__init__.py",
    }
    left = {
        "README.md",
        f"data_{id_}/x.csv",
        f".hidden_{id_}/x.py",
        ".hidden.py",
        f"{package}/.x.py.swp",
        f"{package}/__pycache__/part.cpython-311.pyc",
        f"{package}/old.pyc",
        "runs/mine/cluster/code/abc/orchestrator/__init__.py",
        f"{package}/runs/x/y.py",
        f"results_{id_}/trials/0.parquet",
        f"results_{id_}/packs/0.json",
        f"results_{id_}/cluster/code/abc/modules/x.py",
        f"venv_{id_}/pyvenv.cfg",
        f"venv_{id_}/lib/x.py",
        f"conda_{id_}/conda-meta/history",
        f"conda_{id_}/lib/x.py",
        "not-a-package/x.py",
    }
    write(home.folder, dict.fromkeys((taken | left) - mine, ""))
    (home.folder / package / "loop").symlink_to(home.folder)
    (home.folder / package / "gone").symlink_to(home.folder / "nowhere")
    os.mkfifo(home.folder / package / "pipe")
    assert home.modules() == taken


def test_what_nobody_imports(home: Home) -> None:
    """Modules beside the sweep file that installed ones hide stay hidden: they are not copied, nor is a folder
    of the project's own."""
    home.write()
    write(
        home.folder,
        {"colorsys.py": "", "numpy/__init__.py": "", "orchestrator/__init__.py": "", "__main__.py": ""},
    )
    assert not home.modules() & {
        "colorsys.py",
        "numpy/__init__.py",
        "orchestrator/__init__.py",
        "__main__.py",
    }


def test_an_installed_trainer(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a function that is imported from elsewhere nothing is copied: it is what is installed."""
    site = tmp_path / "site"
    write(
        site,
        {f"installed_{home.id}/__init__.py": "", f"installed_{home.id}/a.py": "def f(config, report): ...\n"},
    )
    monkeypatch.syspath_prepend(site)
    sweep = home.sweep(trainer=f"installed_{home.id}.a:f")
    snapshot = take_snapshot(sweep, home.code)
    assert listing(snapshot / "modules") == {"sweep.yaml"}
    assert in_job(snapshot, path=f"{python_path(snapshot)}:{site}") == expected(sweep, snapshot)


@pytest.mark.parametrize(
    ("name", "value", "limits"), [("MAX_FILES", 6, "6 files or 200 MB"), ("MAX_MB", 1, "5,000 files or 1 MB")]
)
def test_too_much_beside_the_sweep_file(
    home: Home, name: str, value: int, limits: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a home directory would be copied, the launch says what to do; data without modules is no matter."""
    home.write()
    size = 300_000
    write(home.folder, {f"data_{home.id}/{i}": "0" * size for i in range(10)})
    monkeypatch.setattr(module, name, value)
    home.take()
    write(home.folder, {f"x_{home.id}/{i}.py": "0" * size for i in range(4)})
    with pytest.raises(SweepError) as caught:
        home.take()
    assert str(caught.value) == (
        f"{home.folder}/sweep.yaml: the modules and packages in its folder are copied for the jobs, and with "
        f"'x_{home.id}' these are more than {limits}. Put the sweep file into a folder of its own, with the "
        "modules that it needs"
    )


def test_a_path_with_a_colon(home: Home) -> None:
    """PYTHONPATH cannot hold it."""
    home.write()
    with pytest.raises(StoreError) as caught:
        take_snapshot(home.sweep(), Path("/tmp/a:b"))
    assert str(caught.value) == (
        "/tmp/a:b: Python imports from no path with a colon; launch with another --run-dir"
    )


def test_a_file_that_cannot_be_read(home: Home) -> None:
    """It is named, and nothing is left behind."""
    home.write()
    path = home.folder / home.package / "broken.py"
    path.symlink_to("/proc/self/mem")
    with pytest.raises(StoreError) as caught:
        home.take()
    assert (
        str(caught.value)
        == f"{path}: cannot be read: Input/output error. The jobs of a launch run a copy of it"
    )
    assert not home.code.exists()


def test_a_folder_that_cannot_be_written(home: Home) -> None:
    """The file system's own words."""
    home.write()
    (home.folder / "elsewhere").write_text("")
    with pytest.raises(StoreError, match="cannot be written: Not a directory"):
        home.take()


def test_killed_while_it_is_written(home: Home) -> None:
    """What is half written has no name that anybody looks for; it is removed after a day, not before."""
    home.write()
    home.sweep()
    code = (
        "import os, sys; from pathlib import Path; from orchestrator.snapshot import *\n"
        "Path.rename = lambda *_: os.kill(os.getpid(), 9)\n"
        "take_snapshot(load_sweep(sys.argv[1]), Path(sys.argv[2]))"
    )
    done = subprocess.run([sys.executable, "-c", code, home.folder / "sweep.yaml", home.code], check=False)
    assert done.returncode == -signal.SIGKILL
    (left,) = home.code.iterdir()
    snapshot = home.take()
    assert set(home.code.iterdir()) == {left, snapshot}
    assert listing(left / "built") == listing(snapshot)
    os.utime(left, (0, time.time() - 25 * 3600))
    (home.folder / f"{home.helper}.py").write_text("def a(): return 2\n")
    other = home.take()
    assert set(home.code.iterdir()) == {snapshot, other}


@pytest.mark.parametrize("umask", [0o002, 0o000])
def test_others_may_not_write_in_it(home: Home, umask: int) -> None:
    """Nor put another in its place, where the umask of a shared folder lets them, or its group was let in since;
    the bit that hands the group down stays."""
    home.write()
    (home.folder / f"{home.helper}.py").chmod(0o666)
    home.code.parent.mkdir()
    home.code.parent.chmod(0o2775)
    before = os.umask(umask)
    try:
        snapshot = home.take()
    finally:
        os.umask(before)
    closed = [home.code.parent, home.code, snapshot, *snapshot.rglob("*")]
    assert [] == [path for path in closed if path.stat().st_mode & 0o022]
    assert {0o2755} == {stat.S_IMODE(path.stat().st_mode) for path in closed if path.is_dir()}
    for path in closed:
        path.chmod(0o2775 if path.is_dir() else 0o664)
    assert home.take() == snapshot
    assert [] == [path for path in closed if path.stat().st_mode & 0o022]


@pytest.mark.parametrize("content", [b"", None])
def test_a_damaged_one_is_written_again(home: Home, content: bytes | None) -> None:
    """What is under its name may be lost, as no file is synced, if the machine dies just after the launch."""
    home.write()
    snapshot = home.take()
    before, path = listing(snapshot), snapshot / "cluster" / "queue.py"
    path.unlink() if content is None else path.write_bytes(content)
    assert home.take() == snapshot
    assert Path(module.__file__).parents[1].joinpath("cluster", "queue.py").read_bytes() == path.read_bytes()
    assert before == listing(snapshot)
    assert [snapshot] == list(home.code.iterdir())


def test_many_at_once(home: Home) -> None:
    """Launches at the same time end with one snapshot, and nothing else."""
    home.write()
    home.sweep()
    code = (
        "import sys; from pathlib import Path; from orchestrator.snapshot import *\n"
        "for _ in range(3): print(take_snapshot(load_sweep(sys.argv[1]), Path(sys.argv[2])).name)"
    )
    command = [sys.executable, "-c", code, home.folder / "sweep.yaml", home.code]
    launches = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    taken = [name for launch in launches for name in launch.communicate()[0].split()]
    assert [home.code / taken[0]] == list(home.code.iterdir())
    assert [taken[0]] * 12 == taken


def test_edited_while_it_is_copied(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name belongs to what was copied, not to what lay there before or lies there now."""
    data, hashed = home.folder / home.package / "deep" / "data.txt", module._digest

    def digest(contents: module.Contents) -> str:
        before = hashed(contents)
        data.write_text("2" if contents[key] == data else "3")
        return before

    home.write(value=1)
    key = f"modules/{data.relative_to(home.folder)}"
    with monkeypatch.context() as patched:
        patched.setattr(module, "_digest", digest)
        snapshot = home.take()
    assert (snapshot / key).read_text() == "2"
    data.write_text("2")
    assert home.take() == snapshot


@pytest.mark.parametrize("edit", ["def a(): return 2\n", None])
def test_edited_since_it_was_loaded(home: Home, edit: str | None) -> None:
    """Trials of one version of a function are never run by another one."""
    home.write()
    sweep = home.sweep()
    helper = home.folder / f"{home.helper}.py"
    helper.unlink() if edit is None else helper.write_text(edit)
    with pytest.raises(SweepError) as caught:
        take_snapshot(sweep, home.code)
    assert str(caught.value) == f"{home.folder}/sweep.yaml: its modules were edited meanwhile; launch again"


def test_a_snapshot_of_a_snapshot(home: Home) -> None:
    """Launching from a snapshot takes the same project with the same version along."""
    home.write()
    snapshot = home.take()
    code = (
        "import sys; from pathlib import Path; from orchestrator.snapshot import *\n"
        "print(take_snapshot(load_snapshot(Path(sys.argv[1])), Path(sys.argv[2])))"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, snapshot, home.code],
        env={**os.environ, "PYTHONPATH": python_path(snapshot)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == str(snapshot), done.stderr


def test_loading_needs_the_snapshot_only(home: Home) -> None:
    """An equal sweep comes back in this process too."""
    home.write()
    sweep = home.sweep(pack={"size": 3}, question="äöü: really?")
    assert load_snapshot(take_snapshot(sweep, home.code)) == sweep
