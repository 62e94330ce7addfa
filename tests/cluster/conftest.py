"""SLURM's programs as scripts, for what is said to them; with a real SLURM: tests/slurm."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from cluster.base import Demand
from cluster.order import Order
from cluster.profile import DriverJobs, Profile, WorkerJobs

SBATCH = """\
n=$(($(cat "$folder/n" 2>/dev/null || echo 0) + 1)); echo $n > "$folder/n"
cp "$1" "$folder/sbatch.$n"; env > "$folder/environment"
name=$(sed -n "s/^#SBATCH --job-name=//p" "$1")
tasks=$(sed -n "s/^#SBATCH --array=0-\\([0-9]*\\)%.*/\\1/p" "$1"); tasks=$((${tasks:-0} + 1))
if [ $(($(cat "$folder/queued" 2>/dev/null || echo 0) + tasks)) -gt $(cat "$folder/limit") ]; then
  echo "refused $name $tasks" >> "$folder/asked"
  echo "sbatch: error: $(cat "$folder/words")" >&2; exit 1
fi
echo $(($(cat "$folder/queued" 2>/dev/null || echo 0) + tasks)) > "$folder/queued"
echo "queued $name $tasks" >> "$folder/asked"
echo "Submitted batch job $((100 + n))"
"""
SQUEUE = """\
for argument; do case $argument in --format=*) mark=${argument#--format=};; esac; done
sed "s/,/${mark%%%i*}/g" "$folder/queue"
"""
LIMIT = (
    "AssocMaxSubmitJobLimit\nsbatch: error: Batch job submission failed: "
    "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)"
)


@dataclass(frozen=True)
class Programs:
    """What stands in for SLURM: what it answers, and what it was asked."""

    folder: Path

    def install(self, name: str, script: str) -> None:
        path = self.folder / name
        path.write_text(f"#!/bin/sh\nfolder='{self.folder}'\n{script}")
        path.chmod(0o755)

    def allows(self, n_jobs: int, words: str = LIMIT) -> None:
        """Refuse jobs beyond so many, with these words."""
        (self.folder / "limit").write_text(str(n_jobs))
        (self.folder / "words").write_text(words)

    def shows(self, *jobs: tuple[str, ...]) -> None:
        """The queue: id, name, state and perhaps reason of jobs."""
        rows = ((*job, "None")[:4] for job in jobs)
        lines = (f",{job_id},{name},{state},{reason},n1,1:00,\n" for job_id, name, state, reason in rows)
        (self.folder / "queue").write_text("".join(lines))

    @property
    def asked(self) -> list[str]:
        """What was queued, refused or cancelled so far."""
        path = self.folder / "asked"
        return path.read_text().splitlines() if path.exists() else []

    def text(self, n: int) -> str:
        """The n-th file that sbatch was given."""
        return (self.folder / f"sbatch.{n}").read_text()

    @property
    def environment(self) -> dict[str, str]:
        """Of the last sbatch."""
        lines = (self.folder / "environment").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    """A SLURM with an empty queue, no limits and arrays of up to ten tasks."""
    programs = Programs(tmp_path / "bin")
    programs.folder.mkdir()
    programs.install("sbatch", SBATCH)
    programs.install("squeue", SQUEUE)
    programs.install("srun", "exit 1\n")
    programs.install("scontrol", 'echo "MaxArraySize            = 10"\n')
    programs.install("scancel", 'echo "scancel $*" >> "$folder/asked"\n')
    programs.allows(1_000_000)
    programs.shows()
    monkeypatch.setenv("PATH", f"{programs.folder}:/usr/bin:/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return programs


@pytest.fixture
def order(tmp_path: Path) -> Order:
    """A launch that wants at most 25 workers."""
    profile = Profile(worker=WorkerJobs(max=25, time_limit_min=60), driver=DriverJobs(time_limit_min=600))
    code = tmp_path / "run" / "cluster" / "code" / "c0de"
    return Order(
        run=tmp_path / "run",
        name="sweep",
        launch=1,
        profile=profile,
        profile_name="site",
        demand=Demand(1.0, 0.0),
        code=code,
        python_path=f"{code}:{code / 'modules'}",
        entry="orchestrator.launch:drive",
    )


@pytest.fixture(autouse=True)
def _no_site(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever SLURM this machine belongs to."""
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
