"""A real SLURM of four nodes, with accounting, preemption and GPUs that are not there, on this machine.

    with SlurmCluster.running() as cluster:
        job_id = cluster.run("sbatch", "--parsable", "--wrap", "hostname").strip()
        cluster.wait_for_state(job_id, "COMPLETED")

munged, a MariaDB without TCP, slurmdbd, slurmctld and one slurmd per node: all in one folder under /tmp, on ports
of their own, as the user who starts them (root or not), without systemd and cgroups. Several clusters, or a SLURM
that is a service of this machine, do not meet. Tried with SLURM 22.05 (Debian 12): up in 4 s, gone in 0.1 s.

What a user should know:

- Partitions, each over all four nodes: `low` (the default; a job preempted there is requeued), `cancel` (it is
  cancelled), `high` (preempts both). The account is `lab`; sbatch refuses one that does not exist.
- A node has 4 CPUs, 6000 MB and 2 GPUs, whatever this machine has; a job gets 100 MB per CPU unless it asks. SLURM
  counts them and sets CUDA_VISIBLE_DEVICES, but limits nothing.
- Nodes share this machine's processes, files, ports and host name. SLURMD_NODENAME tells them apart.
- At the end of a job SLURM kills its process tree. A process whose parent has gone is in no tree any more and lives
  on until `cancel_everything` or the end of the cluster; a site with cgroups would have killed it.
- A job that is preempted or cancelled: SIGCONT and SIGTERM to all its processes, SIGKILL after KillWait (15 s).
  What the batch script started without srun is killed when the script ends, and a shell ends at SIGTERM: `exec` it.
- A job that is requeued is PENDING for 11 s, because of BeginTime (`cred_expire` below; usually two minutes).
- When a node dies, its jobs stay RUNNING for 14-18 s, until slurmctld has it as `down*`; then they are NODE_FAIL
  and requeued. If it is revived before that, the jobs it lost stay RUNNING for about 30 s.
- `sacct` is a second late and first shows half a record; `SlurmCluster.state` is not.
"""

from __future__ import annotations

import os
import pwd
import random
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import psutil

SLURM_CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmdLogFile={folder}/log/%n.steps

# A requeued job may not start before its old credential has expired.
AuthInfo=socket={folder}/munge.socket,cred_expire=10

AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={dbd_port}
# With munge this is no password, but the socket of the munged that slurmdbd believes.
AccountingStoragePass={folder}/munge.socket
AccountingStorageEnforce=associations,limits,qos
AccountingStorageTRES=gres/gpu

ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none

SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=100
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
KillWait=15
MaxArraySize=4

# How long a dead node goes unnoticed: both count. With MessageTimeout at its default of 10 s it is half a minute.
SlurmdTimeout=5
MessageTimeout=5
ReturnToService=2

GresTypes=gpu
SlurmdParameters=config_overrides
NodeName=n[1-4] NodeHostname={host} NodeAddr=127.0.0.1 Port={node_ports} CPUs=4 RealMemory=6000 Gres=gpu:2
PartitionName=low Nodes=ALL Default=YES PriorityTier=1 PreemptMode=REQUEUE
PartitionName=cancel Nodes=ALL PriorityTier=1 PreemptMode=CANCEL
PartitionName=high Nodes=ALL PriorityTier=10 PreemptMode=OFF
"""

SLURMDBD_CONF = """\
DbdHost=localhost
DbdPort={dbd_port}
SlurmUser={user}
PidFile={folder}/slurmdbd.pid
AuthInfo=socket={folder}/munge.socket
StorageType=accounting_storage/mysql
StorageUser={user}
"""

# slurmd loads this plugin though nothing here uses cgroups. Left to detect one, it does not start where none is
# mounted (a sandbox), nor where only v2 is (a container), since v2 asks systemd; v1 asks nobody.
CGROUP_CONF = """\
CgroupPlugin=cgroup/v1
"""

GRES_CONF = """\
Name=gpu File={folder}/gpu[0-1] Flags=nvidia_gpu_env
"""

DEBIAN_PACKAGES = {
    "munged": "munge",
    "mariadbd": "mariadb-server",
    "mariadb-install-db": "mariadb-server",
    "slurmdbd": "slurmdbd",
    "slurmctld": "slurm-wlm",
    "slurmd": "slurm-wlm",
    "sbatch": "slurm-wlm",
}


def missing_programs() -> list[str]:
    """What to install before a cluster can run here: "munged (Debian package munge)", ..."""
    return [
        f"{program} (Debian package {package})"
        for program, package in DEBIAN_PACKAGES.items()
        if shutil.which(program, path=search_path()) is None
    ]


@dataclass(frozen=True)
class Job:
    """A line of `squeue`; `job_id` is "12", or "12_3" for a task of an array; `node` is None while it waits."""

    job_id: str
    state: str
    node: str | None
    reason: str
    name: str


@dataclass(frozen=True)
class SlurmCluster:
    folder: Path
    port: int  # the first of six in a row: slurmctld, slurmdbd, the nodes
    user: str = field(default_factory=lambda: pwd.getpwuid(os.getuid()).pw_name)
    daemons: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)  # a node's is named as the node

    nodes: ClassVar[tuple[str, ...]] = ("n1", "n2", "n3", "n4")

    @classmethod
    @contextmanager
    def running(cls) -> Iterator[SlurmCluster]:
        """A cluster with four idle nodes; afterwards, whatever happened, no process and no file of it is left."""
        # Not TMPDIR: a socket's name has at most 107 bytes, and munged distrusts folders that others can write.
        folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))
        cluster = cls(folder, free_ports(2 + len(cls.nodes)))
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.stop()

    @property
    def conf(self) -> Path:
        return self.folder / "slurm.conf"

    def env(self) -> dict[str, str]:
        """What a process needs in its environment to speak to this cluster."""
        return {"SLURM_CONF": str(self.conf)}

    # -- jobs --------------------------------------------------------------------------------------------------

    def run(self, *command: str, check: bool = True) -> str:
        """What a SLURM command prints; where it may fail (`check=False`) its complaints too."""
        done = subprocess.run(command, env=self.whole_env(), capture_output=True, text=True, check=False)
        if check and done.returncode != 0:
            raise RuntimeError(
                f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}{done.stderr}"
            )
        return done.stdout if check else done.stdout + done.stderr

    def queue(self) -> list[Job]:
        """Pending, running and completing jobs; tasks of arrays one by one."""
        lines = self.run("squeue", "--noheader", "--array", "--format=%i|%T|%N|%r|%j").splitlines()
        fields = (line.split("|", maxsplit=4) for line in lines)
        return [
            Job(job_id, state, node or None, reason, name) for job_id, state, node, reason, name in fields
        ]

    def state(self, job_id: str) -> str:
        """The job's state; slurmctld forgets a job five minutes after its end (MinJobAge)."""
        return self.run("squeue", "--noheader", "--states=all", "--format=%T", f"--jobs={job_id}").strip()

    def wait_for_state(self, job_id: str, state: str, seconds: float = 30) -> None:
        wait_for(lambda: self.state(job_id) == state, seconds, f"job {job_id} to be {state}")

    def hurry(self, job_id: str) -> None:
        """Let a requeued job start now, without the wait for its old credential."""
        self.run("scontrol", "update", f"JobId={job_id}", "StartTime=now")

    def cancel_everything(self) -> None:
        """Empty the queue at once, also of jobs that ignore SIGTERM, and of what left their process trees."""
        self.run("scancel", f"--user={self.user}")
        for node in self.nodes:
            kill(self.processes(SLURMD_NODENAME=node))
        wait_for(lambda: not self.queue(), 180, "an empty queue")

    def processes(self, **variables: str) -> list[psutil.Process]:
        """Living processes started with this cluster and these variables in their environment: jobs', clients."""
        wanted = (self.env() | variables).items()
        return [process for process in psutil.process_iter() if wanted <= environment(process).items()]

    def processes_of(self, job_id: str) -> list[psutil.Process]:
        """Living processes of a job ("12", "12_3"), those too which left its process tree."""
        array, _, task = job_id.partition("_")
        if task:
            return self.processes(SLURM_ARRAY_JOB_ID=array, SLURM_ARRAY_TASK_ID=task)
        return self.processes(SLURM_JOB_ID=job_id)

    # -- nodes -------------------------------------------------------------------------------------------------

    def kill_node(self, node: str) -> None:
        """SIGKILL all that a node runs, as if its power went: slurmd, slurmstepds, every process of its jobs."""
        self.daemons[node].kill()  # first, so that it starts nothing more
        self.daemons.pop(node).wait()
        wait_for(lambda: not kill(self.processes_on(node)), 10, f"{node} to be dead")

    def revive_node(self, node: str) -> None:
        """Start a killed node again and wait until jobs can run on it; one that waited may run already."""
        before = self.registration(node)
        self.start_daemon(node, "slurmd", "-D", "-N", node)
        self.wait_for_daemons(lambda: self.registration(node) != before, f"{node} to register")
        # ReturnToService=2: a node that was down is taken back when it registers.
        wait_for(lambda: self.node_state(node) in {"idle", "mixed", "allocated"}, 60, f"{node} to be back")

    def restore(self) -> None:
        """The state in which a cluster starts: nothing queued, no node dead."""
        self.cancel_everything()
        for node in self.nodes:
            if node not in self.daemons:
                self.revive_node(node)

    def node_state(self, node: str) -> str:
        """As `sinfo` says it: idle, mixed, allocated, down, ...; a "*" behind it: the node does not answer."""
        return self.run("sinfo", "--noheader", "--partition=low", f"--nodes={node}", "--format=%T").strip()

    def registration(self, node: str) -> str:
        """When the slurmd that slurmctld knows for a node was started."""
        return self.run("scontrol", "show", "node", node).partition("SlurmdStartTime=")[2].split()[0]

    def processes_on(self, node: str) -> list[psutil.Process]:
        """Living processes of a node: its daemons, then those of its jobs."""
        # slurmstepd writes its title over its environment, but keeps its node's log open.
        log = str(self.folder / "log" / f"{node}.steps")
        daemons = [process for process in psutil.process_iter() if log in open_files(process)]
        return daemons + self.processes(SLURMD_NODENAME=node)

    def everything(self) -> list[psutil.Process]:
        return self.processes() + [process for node in self.nodes for process in self.processes_on(node)]

    # -- start and stop ----------------------------------------------------------------------------------------

    def start(self) -> None:
        try:
            self.write_files()
            self.start_munge()
            self.start_accounting()
            self.start_daemon("slurmctld", "slurmctld", "-D")
            for node in self.nodes:
                self.start_daemon(node, "slurmd", "-D", "-N", node)
            self.wait_for_daemons(
                lambda: all(self.node_state(node) == "idle" for node in self.nodes), "four idle nodes"
            )
        except Exception as error:
            raise RuntimeError(f"SLURM did not start: {error}\n{self.last_lines()}") from error

    def stop(self) -> None:
        """Kill all of it, its clients and what its jobs left behind too, and delete its folder."""
        for daemon in self.daemons.values():
            daemon.kill()
            daemon.wait()
        wait_for(lambda: not kill(self.everything()), 10, f"the processes of {self.folder} to end")
        shutil.rmtree(self.folder)

    def write_files(self) -> None:
        self.folder.chmod(0o755)  # munged wants its socket to be in everyone's reach
        (self.folder / "log").mkdir()
        values = {
            "folder": self.folder,
            "user": self.user,
            "host": socket.gethostname().partition(".")[0],
            "port": self.port,
            "dbd_port": self.port + 1,
            "node_ports": f"[{self.port + 2}-{self.port + 1 + len(self.nodes)}]",
        }
        write_private(self.conf, SLURM_CONF.format_map(values))
        write_private(self.folder / "cgroup.conf", CGROUP_CONF)
        write_private(self.folder / "gres.conf", GRES_CONF.format_map(values))
        write_private(self.folder / "slurmdbd.conf", SLURMDBD_CONF.format_map(values))
        write_private(self.folder / "munge.key", secrets.token_hex(64))
        for gpu in ("gpu0", "gpu1"):  # slurmd insists on a device, and follows links
            (self.folder / gpu).symlink_to("/dev/null")

    def start_munge(self) -> None:
        self.start_daemon(
            "munged",
            "munged",
            "--foreground",
            f"--socket={self.folder}/munge.socket",
            f"--key-file={self.folder}/munge.key",
            f"--pid-file={self.folder}/munge.pid",
            f"--seed-file={self.folder}/munge.seed",
            f"--log-file={self.folder}/munge.log",
        )
        self.wait_for_daemons((self.folder / "munge.socket").exists, "munged")

    def start_accounting(self) -> None:
        where = ("--no-defaults", f"--user={self.user}", f"--datadir={self.folder}/db")
        db_socket = self.folder / "db.socket"
        self.run("mariadb-install-db", *where, "--skip-test-db", f"--auth-root-socket-user={self.user}")
        self.start_daemon("mariadbd", "mariadbd", *where, "--skip-networking", f"--socket={db_socket}")
        self.wait_for_daemons(db_socket.exists, "mariadbd")
        # slurmdbd.conf cannot name a socket, but MariaDB's client library, which slurmdbd uses, reads it here.
        self.start_daemon("slurmdbd", "slurmdbd", "-D", MYSQL_UNIX_PORT=str(db_socket))
        self.wait_for_daemons(lambda: self.succeeds("sacctmgr", "show", "cluster"), "slurmdbd")
        self.run("sacctmgr", "--immediate", "add", "cluster", "test")
        self.run("sacctmgr", "--immediate", "add", "account", "lab")
        self.run("sacctmgr", "--immediate", "add", "user", self.user, "account=lab", "defaultaccount=lab")

    def start_daemon(self, name: str, *command: str, **variables: str) -> None:
        """In the foreground, writing to log/<name>, and out of reach of the terminal's Ctrl-C."""
        with (self.folder / "log" / name).open("ab") as log:
            self.daemons[name] = subprocess.Popen(
                command,
                env=self.whole_env() | variables,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,
            )

    def wait_for_daemons(self, condition: Callable[[], bool], what: str) -> None:
        """Until the condition holds; fails at once when a daemon ends."""

        def holds() -> bool:
            ended = [name for name, daemon in self.daemons.items() if daemon.poll() is not None]
            if ended:
                raise RuntimeError(f"{', '.join(ended)} ended")
            return condition()

        wait_for(holds, 60, what)

    def succeeds(self, *command: str) -> bool:
        try:
            self.run(*command)
        except RuntimeError:
            return False
        return True

    def whole_env(self) -> dict[str, str]:
        return os.environ | {"PATH": search_path()} | self.env()

    def last_lines(self, n: int = 15) -> str:
        """The end of what every daemon wrote."""
        logs = sorted(self.folder.glob("log/*"))
        tails = ("\n".join(log.read_text(errors="replace").splitlines()[-n:]) for log in logs)
        return "\n".join(f"--- {log.name}\n{tail}" for log, tail in zip(logs, tails, strict=True))


def wait_for(condition: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds} s for {what}")
        time.sleep(0.1)


def kill(processes: list[psutil.Process]) -> list[psutil.Process]:
    """SIGKILL them; returns them, so that who calls until there is none has also caught what they started."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    return processes


def environment(process: psutil.Process) -> dict[str, str]:
    """With which a process was started; empty if it is a zombie or somebody else's."""
    try:
        return dict(process.environ())
    except psutil.Error:
        return {}


def open_files(process: psutil.Process) -> set[str]:
    try:
        return {file.path for file in process.open_files()}
    except psutil.Error:
        return set()


def write_private(path: Path, text: str) -> None:
    """munged and slurmdbd insist that nobody else can read what holds keys and passwords."""
    path.touch(mode=0o600)
    path.write_text(text)


def search_path() -> str:
    """PATH and where Debian puts daemons, which is not on everyone's."""
    return f"{os.environ.get('PATH', '')}:/usr/sbin"


def free_ports(n: int) -> int:
    """The first of n ports in a row that nobody has, below those that Linux hands out to clients."""
    while True:
        first = random.randrange(20000, 32000)
        if all(is_free(port) for port in range(first, first + n)):
            return first


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True
