"""A profile as options of sbatch, what SLURM's programs find in the environment, and what they answer."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping

from cluster.profile import Jobs, Option, Profile

_SETTINGS = ("SLURM_", "SLURMD_", "SBATCH_", "SQUEUE_", "SCANCEL_", "SACCT_", "SCONTROL_")
_HOW_TO_REACH_IT = ("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT")
_COMPLAINT = re.compile(r"\b(?:error|fatal|failure): ")
_LEAD = re.compile(
    r"(?:\w+: )?(?:(?:error|fatal): )*(?:(?:Batch job submission failed|allocation failure): )?"
)
_EMPTY_WORDS = ("Unspecified error", 'Try "')
_MAX_WORDS = 400
"""Characters. Some sites answer with a page."""


def worker_options(profile: Profile) -> dict[str, Option]:
    """Long names of sbatch options and their values, for a worker job."""
    worker = profile.worker
    parts = ("gpu", worker.gpu_type, str(worker.gpus))
    gres = ":".join(part for part in parts if part) if worker.gpus else None
    return _options(profile, worker, gres)


def driver_options(profile: Profile) -> dict[str, Option]:
    """Likewise for a driver job. Not to be requeued unless the profile says so: SLURM holds a requeued job back for
    two minutes, and its successors with it, one of which would begin at once.
    """
    options = _options(profile, profile.driver, None)
    return options if "requeue" in options else {**options, "no-requeue": True}


def _options(profile: Profile, jobs: Jobs, gres: str | None) -> dict[str, Option]:
    """Always one task on one node: a default of the site may be another."""
    memory = None if jobs.memory_gb is None else f"{math.ceil(jobs.memory_gb * 1024)}M"
    options: dict[str, Option | None] = {
        "partition": jobs.partition or profile.partition,
        "account": jobs.account or profile.account,
        "qos": jobs.qos or profile.qos,
        "constraint": jobs.constraint or profile.constraint,
        "time": jobs.time_limit_min,
        "nodes": 1,
        "ntasks": 1,
        "cpus-per-task": jobs.cpus,
        "mem": memory,
        "gres": gres,
        **profile.sbatch,
        **jobs.sbatch,
    }
    return {name: value for name, value in options.items() if value is not None and value is not False}


def as_arguments(options: Mapping[str, Option]) -> list[str]:
    """The options for a command line."""
    return [f"--{name}" if value is True else f"--{name}={value}" for name, value in options.items()]


def clean_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment for SLURM's programs: without the settings of an allocation around us (they would become
    the new job's) and those of the user (`SBATCH_PARTITION` goes before what a job's file says,
    `SQUEUE_STATES` hides jobs).
    """
    return {
        name: value
        for name, value in environ.items()
        if name in _HOW_TO_REACH_IT or not name.startswith(_SETTINGS)
    }


def scheduler_words(stderr: str) -> str:
    """What a program of SLURM's complains of, in one line."""
    lines = stderr.splitlines()
    complaints = [line for line in lines if _COMPLAINT.search(line)]
    words = list(dict.fromkeys(_essential(complaints or lines)))
    telling = [line for line in words if not line.startswith(_EMPTY_WORDS)]
    text = "; ".join(telling or words) or "no reason given"
    return text if len(text) <= _MAX_WORDS else f"{text[: _MAX_WORDS - 3]}..."


def _essential(lines: list[str]) -> Iterator[str]:
    """Without the names of program and severity, ornaments, and what a terminal would act on."""
    for line in lines:
        text = "".join(character if character.isprintable() else " " for character in line)
        text = _LEAD.sub("", text.strip(), count=1).strip()
        if re.search(r"\w", text):
            yield text
