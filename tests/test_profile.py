"""Profiles of SLURM sites: every mistake in words, and what sbatch is told."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from cluster.profile import MAX_SCRATCH_BYTES, DriverJobs, Profile, WorkerJobs
from orchestrator.doctor import examine_site
from orchestrator.errors import SweepError
from orchestrator.profile_file import load_profile
from orchestrator.section import plain
from orchestrator.yaml_file import dump_yaml

PROFILES = Path(__file__).resolve().parent.parent / "cluster" / "profiles"
PLACEMENT = "partition, account, qos, constraint, sbatch"
TOP = f"{PLACEMENT}, worker, driver, setup, python, scratch, interface, notice_s, rounds"
JOBS = f"{PLACEMENT}, time_limit_min, cpus, memory_gb"
WORKER = f"{JOBS}, max, min, gpus, gpu_type"
DRIVER = f"{JOBS}, queued"
ONE_LINE = "must be one line without control characters"
PYTHON = (
    "python must be the name of a program or an absolute path, written out (for a container: a script that "
    'ends in "$@")'
)
SCRATCH = "scratch must be an absolute path, written out without ~ and variables"
TOO_SHORT = (
    "time_limit_min must be longer than notice_s (90 s) and the 60 s by which SLURM may be early, not 2 min"
)
SMALL = WorkerJobs(max=4, time_limit_min=60)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Profiles are named as seen from their folder."""
    monkeypatch.chdir(tmp_path)


def load(text: str) -> Profile:
    Path("p.yaml").write_text(text)
    return load_profile("p.yaml")


def mistakes(text: str) -> str:
    with pytest.raises(SweepError) as caught:
        load(text)
    return str(caught.value)


def block(first: str, allowed: str, nearest: str | None = None) -> str:
    return f"{first}\n    allowed: {allowed}" + (f"\n    nearest: {nearest}" if nearest else "")


def test_the_gpu_profile_that_ships() -> None:
    """Its values are those that it shows."""
    assert (
        Profile(partition="gpu", worker=WorkerJobs(max=8, gpus=1, cpus=4, memory_gb=16, time_limit_min=240))
    ) == load_profile(PROFILES / "slurm-gpu.yaml")


def test_the_cpu_profile_that_ships() -> None:
    """Likewise."""
    assert Profile(
        partition="cpu", worker=WorkerJobs(max=16, cpus=8, memory_gb=16, time_limit_min=240)
    ) == load_profile(PROFILES / "slurm-cpu.yaml")


@pytest.mark.parametrize("name", ["slurm-gpu.yaml", "slurm-cpu.yaml"])
def test_what_is_commented_out_is_valid_too(name: str) -> None:
    """A profile with the marks of comments taken away from all examples loads."""
    text = (PROFILES / name).read_text().replace("  #   gres: false", "")
    everything = re.sub(r"^( *)# ( *)(?=- |[a-z_-]+:(?: |$))", r"\1\2", text, flags=re.MULTILINE)
    assert load(everything) != load(text)


def test_keys_with_nothing_behind_them() -> None:
    """At the top they are as if left out, as when all lines below them are commented out."""
    assert Profile(worker=SMALL) == load(
        "worker: {max: 4, time_limit_min: 60}\ndriver:\nsetup:\nsbatch:\npartition:\n"
    )


def test_a_profile_survives_being_written() -> None:
    """Its values as YAML load as an equal profile."""
    profile = Profile(
        partition="a,b",
        worker=WorkerJobs(
            max=4, min=2, time_limit_min=60, gpus=2, gpu_type="a100", sbatch={"exclusive": True}
        ),
        driver=DriverJobs(memory_gb=None, constraint="cpu&big", sbatch={"nice": 10, "requeue": False}),
        setup=("module load 'x y'", 'export A="$(nproc)" B=é\\n'),
        python="/opt/my env/bin/python",
        scratch="/local/é",
        notice_s=120,
        rounds=3,
        sbatch={"comment": 'it\'s "so"'},
    )
    assert profile == load(dump_yaml(plain(profile)))


def test_all_mistakes_come_at_once() -> None:
    """One reading of the file names every problem, also those that only show when others are gone."""
    text = r"""partion: gpu
account: "a\nb"
qos: ""
constraint: a\b
sbatch: {mem: 3G, arr: 1, --x: 2, comment: "", mail-user: "\t", gres: false, exclusive: true}
worker:
  max: 2
  min: 3
  cpus: 0
  gpus: -1
  gpu_type: a:b
  memory_gb: inf
  time_limit_min: two
  sbatch: {nice: 1.5, wait: true}
driver: {time_limit_min: 2, queued: 0, cpu: 3}
setup: ["a\nb", "#SBATCH --x", 3]
python: ~/x
scratch: /a/very/long/path/which/is/too/long
rounds: 0
interface: ib0; x
"""
    expected = [
        block("p.yaml:1: partion: unknown key", TOP, "partition"),
        f"p.yaml:2: account: account {ONE_LINE}",
        "p.yaml:3: qos: qos must not be empty",
        "p.yaml:4: constraint: constraint must not have a backslash, which SLURM does not pass on",
        (
            "p.yaml:5: sbatch: sbatch must not set mem (say memory_gb), arr (orchestrator's own); takes long "
            "option names such as mail-type, not '--x'; option comment must not be empty; option mail-user "
            f"{ONE_LINE}"
        ),
        "p.yaml:8: worker.min: min must be at most max, not 3 with a max of 2",
        "p.yaml:9: worker.cpus: cpus must be 1 or more, not 0",
        "p.yaml:10: worker.gpus: gpus must not be negative, but is -1",
        (
            "p.yaml:11: worker.gpu_type: gpu_type must be one name, such as a100, of the characters "
            "A-Z a-z 0-9 . _ -"
        ),
        "p.yaml:12: worker.memory_gb: memory_gb must be above 0 and finite, not inf",
        block("p.yaml:13: worker.time_limit_min: 'two' is not allowed", "a whole number"),
        block("p.yaml:14: worker.sbatch.nice: 1.5 is not allowed", "text, a whole number, true or false"),
        "p.yaml:14: worker.sbatch: sbatch must not set wait (orchestrator's own)",
        block("p.yaml:15: driver.cpu: unknown key", DRIVER, "cpus"),
        "p.yaml:15: driver.queued: queued must be 1 or more, not 0",
        f"p.yaml:15: driver: driver.{TOO_SHORT}",
        block("p.yaml:16: setup[2]: 3 is not allowed", "text"),
        (
            f"p.yaml:16: setup: setup line 1 {ONE_LINE}; line 2 is an option, which sbatch would read: put it "
            "under sbatch"
        ),
        f"p.yaml:17: python: {PYTHON}",
        (
            "p.yaml:18: scratch: scratch must be at most 28 bytes long, not 35, since Ray's sockets lie below it "
            "and Linux ends their paths at 107 bytes"
        ),
        "p.yaml:19: rounds: rounds must be 1 or more, not 0",
        (
            "p.yaml:20: interface: interface must be the name of a network interface, such as ib0 "
            "(`ip -4 address` lists them)"
        ),
    ]
    assert "\n".join(expected) == mistakes(text)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ("worker:", block("p.yaml:1: worker: is required", f"a mapping of ({WORKER})")),
        ("worker: [1]", block("p.yaml:1: worker: [1] is not allowed", f"a mapping of ({WORKER})")),
        ("worker: {time_limit_min: 60}", block("p.yaml:1: worker.max: is required", "a whole number")),
        (
            "worker: {max: 4, time_limit: 60}",
            block("p.yaml:1: worker.time_limit: unknown key", WORKER, "time_limit_min"),
        ),
        (
            "worker: {max: 1, time_limit_min: 60, gpu_type: a100}",
            "p.yaml:1: worker.gpu_type: gpu_type needs gpus",
        ),
        ("worker: {max: 1, time_limit_min: 2}", f"p.yaml:1: worker: worker.{TOO_SHORT}"),
        (
            "worker: {max: 0, min: 0, time_limit_min: 0}",
            (
                "p.yaml:1: worker.time_limit_min: time_limit_min must be 1 or more, not 0\n"
                "p.yaml:1: worker.min: min must be 1 or more, not 0\n"
                "p.yaml:1: worker.max: max must be 1 or more, not 0"
            ),
        ),
        (
            "worker: {max: 1, time_limit_min: 60}\ndriver: 3",
            block("p.yaml:2: driver: 3 is not allowed", f"a mapping of ({DRIVER})"),
        ),
        (
            "worker: {max: 1, time_limit_min: 60}\nsetup: module load cuda",
            block("p.yaml:2: setup: 'module load cuda' is not allowed", "a list of (text)"),
        ),
        (
            "worker: {max: 1, time_limit_min: 60}\nnotice_s: 0",
            "p.yaml:2: notice_s: notice_s must be from 1 to 65535, not 0",
        ),
        *[
            (f"worker: {{max: 1, time_limit_min: 60}}\nscratch: {path}", f"p.yaml:2: scratch: {SCRATCH}")
            for path in ("tmp", "~/tmp", "$SLURM_TMPDIR", "/scratch/$USER", '"/a\\nb"', '""')
        ],
        *[
            (f"worker: {{max: 1, time_limit_min: 60}}\npython: {path}", f"p.yaml:2: python: {PYTHON}")
            for path in ("venv/bin/python", "apptainer exec x python", "$(which python)", '"/a\\tb"', '""')
        ],
        *[
            (
                f"worker: {{max: 1, time_limit_min: 60, sbatch: {{{option}: 1}}}}",
                f"p.yaml:1: worker.sbatch: sbatch must not set {option} ({instead})",
            )
            for option, instead in [
                ("partition", "say partition"),
                ("account", "say account"),
                ("qos", "say qos"),
                ("constraint", "say constraint"),
                ("time", "say time_limit_min"),
                ("signal", "say notice_s"),
                ("cpus-per-task", "say cpus"),
                ("mem", "say memory_gb"),
                ("mem-per-cpu", "say memory_gb"),
                ("gpus-per-node", "say gpus"),
                *[
                    (name, "orchestrator's own")
                    for name in (
                        *(
                            "array",
                            "dependency",
                            "job-name",
                            "ntasks",
                            "nodes",
                            "output",
                            "error",
                            "open-mode",
                        ),
                        *(
                            "parsable",
                            "wrap",
                            "test-only",
                            "export",
                            "wait",
                            "clusters",
                            "chdir",
                            "outp",
                            "n",
                        ),
                    )
                ],
            ]
        ],
    ],
)
def test_one_mistake(more: str, expected: str) -> None:
    """Each message whole, with what is allowed."""
    assert expected == mistakes(more)


@pytest.mark.parametrize(
    "option", ["wckey", "gres", "nice", "exclusive", "mail-type", "reservation", "time-min"]
)
def test_other_options_are_the_sites_own_business(option: str) -> None:
    """Whatever orchestrator does not rely on can be set."""
    assert {option: "x"} == load(f"worker: {{max: 1, time_limit_min: 9}}\nsbatch: {{{option}: x}}").sbatch


def test_the_longest_scratch() -> None:
    """The longest path that is allowed leaves Ray 64 bytes below its own folder, and bytes are counted."""
    longest = f"/{'x' * (MAX_SCRATCH_BYTES - 1)}"
    assert 107 == len(f"{longest}/orc-12345678/r") + 64
    assert longest == Profile(worker=SMALL, scratch=longest).scratch
    with pytest.raises(ValueError, match="not 29, since"):
        Profile(worker=SMALL, scratch=f"{longest[:-1]}é")


@pytest.mark.parametrize(
    ("cpus", "gpus", "demand", "places"),
    [
        (8, 0, (1, 0), 8),
        (8, 0, (3, 0), 2),
        (8, 0, (9, 0), 0),
        (1, 0, (0.1, 0), 10),
        (1, 0, (1 / 3, 0), 3),
        (8, 0, (1, 1), 0),
        (8, 2, (1, 1), 2),
        (1, 2, (1, 1), 1),
        (8, 4, (1, 2), 2),
        (8, 2, (1, 0.5), 4),
        (8, 2, (1, 0.6), 2),
        (64, 3, (1, 0.1), 30),
        (8, 2, (1, 0), 8),
    ],
)
def test_places(cpus: int, gpus: int, demand: tuple[float, float], places: int) -> None:
    """As many packs as both cores and GPUs allow; no pack takes parts of two GPUs."""
    worker = WorkerJobs(max=1, time_limit_min=60, cpus=cpus, gpus=gpus)
    assert places == worker.places(*demand)


def test_the_doctor_without_slurm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One finding says so, and nothing is asked of it; all else is looked at."""
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "file").touch()
    findings = [str(f) for f in examine_site(Profile(worker=SMALL, python="nothing", scratch="/no/such"))]
    assert [
        "FAIL python: nothing is no program on this machine: change `python` in the profile",
        "ok   scratch: /no/such is not on this machine; every node must have it",
        (
            "FAIL SLURM: sbatch, squeue, scancel, scontrol, srun not found: run this on a login node, with SLURM "
            "on the PATH"
        ),
    ] == findings[-3:]
    assert any(finding.startswith("ok   submitit ") for finding in findings)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (
            {"setup": ("module load x",), "python": "python3"},
            "ok   python: python3, after the setup lines; neither is tried here",
        ),
        (
            {"scratch": "/dev/null"},
            "FAIL scratch: /dev/null cannot be written here: Not a directory; nodes may differ",
        ),
    ],
)
def test_what_the_doctor_says_of_nodes(
    values: dict[str, Any], expected: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What only shows on a node is said to."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert expected in [str(finding) for finding in examine_site(Profile(worker=SMALL, **values))]


def test_the_doctor_tries_an_interpreter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One that lacks a package is named, with the package."""
    python = tmp_path / "python"
    python.write_text(
        "#!/bin/sh\necho 'PackageNotFoundError: No package metadata was found for ray' >&2\nexit 1\n"
    )
    python.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}")
    findings = [str(f) for f in examine_site(Profile(worker=SMALL, python="python"))]
    assert "FAIL python: PackageNotFoundError: No package metadata was found for ray" in findings
