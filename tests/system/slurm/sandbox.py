"""Run a real Slurm on one machine, on loopback and without systemd: two nodes with four stand-in GPUs each."""

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

NODES = ("n1", "n2")
GPUS = 4
CPUS = 8
COMMANDS = ("munged", "slurmctld", "slurmd", "sbatch", "setpriv")
# Slurm's commands look here without SLURM_CONF, which Snakemake's plugin drops before the inner srun.
SYSTEM = Path("/etc/slurm")
MARK = "# stlight's sandbox: made by its tests, removed with them\n"
# An environment variable of every process of a sandbox and of the processes that these start.
TAG = "STLIGHT_SLURM_SANDBOX"

# A job of a higher tier preempts those of a lower tier.
PARTITIONS = {
    "gpu": "Default=YES PriorityTier=1 MaxTime=1-0",
    "urgent": "PriorityTier=10 MaxTime=1-0",
}


class UnavailableError(Exception):
    """Slurm cannot be started here; the message says why."""


class Sandbox:
    """A Slurm cluster in a folder.

    Partitions: `gpu`, and `urgent`, whose jobs preempt those of `gpu`, which are requeued.

    >>> with Sandbox(folder) as slurm:
    ...     slurm.run("sbatch", "--gres=gpu:1", "--wrap", "echo $CUDA_VISIBLE_DEVICES")
    """

    def __init__(self, folder: Path, kill_wait: int = 10) -> None:
        """`kill_wait`: seconds between SIGTERM and SIGKILL for a cancelled job; Slurm's default is 30."""
        self.folder = folder.resolve()
        self.kill_wait = kill_wait
        self.env = {**os.environ, "SLURM_CONF": str(self.folder / "slurm.conf"), TAG: str(self.folder)}
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        self._lock: int | None = None

    def __enter__(self) -> "Sandbox":
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def start(self, patience: float = 0) -> None:
        """Start the daemons and wait until every node takes jobs. Wait `patience` seconds for another sandbox to end."""
        if os.geteuid() != 0:
            raise UnavailableError("Slurm's sandbox needs root")
        missing = [name for name in COMMANDS if shutil.which(name) is None]
        if missing:
            raise UnavailableError(f"not installed: {', '.join(missing)} (Debian: apt install slurm-wlm munge)")
        try:
            self._take_the_machine(patience)
            self._write_configuration()
            self._start_daemons()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Remove all jobs, processes and links, also after a start that failed."""
        for name in ("slurmctld", *NODES, "munged"):
            if name in self._daemons:
                self._end(name)
        # Jobs and slurmstepd outlive the daemons. They may fork while we kill them, so we repeat until none is left.
        self.wait_for(self._none_left, 60)
        if self._lock is not None:
            for link in self._links():
                link.unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = None

    def run(self, *command: str, seconds: float = 120) -> str:
        """Run a command, for example `sbatch`, and return its output. Raises `RuntimeError` if it fails."""
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=seconds, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip() or done.returncode}")
        return done.stdout.strip()

    def jobs(self) -> dict[str, str]:
        """Return the state of every job, also finished ones, by its number."""
        lines = self.run("squeue", "--noheader", "--states=all", "--format=%i %T").splitlines()
        return dict(line.split() for line in lines)

    def state(self, node: str) -> str:
        """Return a node's state as `sinfo` prints it: idle, mixed, draining, down*, …"""
        return self.run("sinfo", "--noheader", "--Node", f"--nodes={node}", "--partition=gpu", "--format=%T")

    def drain(self, node: str) -> None:
        """Let a node take no new jobs; its present jobs continue."""
        self.run("scontrol", "update", f"nodename={node}", "state=drain", "reason=test")

    def down(self, node: str) -> None:
        """Mark a node as lost, with its jobs."""
        self.run("scontrol", "update", f"nodename={node}", "state=down", "reason=test")

    def resume(self, node: str) -> None:
        """Return a drained or lost node to service."""
        self.run("scontrol", "update", f"nodename={node}", "state=resume")
        self.wait_for(lambda: self.state(node) in ("idle", "mixed", "allocated"), 120)

    def end_soon(self, job: str, seconds: int) -> None:
        """Move a running job's time limit to `seconds` from now. Slurm checks limits every 30 s."""
        end = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(time.time() + seconds))
        self.run("scontrol", "update", f"jobid={job}", f"endtime={end}")

    def restart_controller(self, pause: float = 0) -> None:
        """Stop the controller, wait `pause` seconds, and start it again."""
        self._end("slurmctld")
        time.sleep(pause)
        self._start_controller()

    def wait_for(self, condition: Callable[[], object], seconds: float) -> None:
        """Wait until a condition holds. Raises `TimeoutError` with the last lines of the daemons' logs."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                logs = {log.name: log.read_text(errors="replace").splitlines()[-3:] for log in self.folder.glob("*.log")}
                raise TimeoutError(f"not within {seconds} s: {condition}; {logs}")
            time.sleep(0.1)

    def processes(self) -> list[int]:
        """Return the ids of all processes of this sandbox: daemons, slurmstepd, jobs."""
        return [int(entry.parent.name) for entry in Path("/proc").glob("[0-9]*/environ") if self._owns(entry)]

    def _none_left(self) -> bool:
        left = self.processes()
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not left

    def _owns(self, environment: Path) -> bool:
        try:
            return f"{TAG}={self.folder}".encode() in environment.read_bytes().split(b"\0")
        except OSError:
            # The process has ended, or belongs to another user.
            return False

    def _take_the_machine(self, patience: float) -> None:
        # Sandboxes share the links, so only one may run. The kernel frees the lock when its holder is killed.
        lock = os.open("/run/lock/stlight-slurm.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC)
        try:
            self.wait_for(lambda: _locked(lock), patience)
        except TimeoutError:
            os.close(lock)
            raise UnavailableError("another sandbox runs on this machine") from None
        for link in self._links():
            # We may replace the link of a killed sandbox, because its daemons died with it.
            ours = link.is_symlink() and (not link.exists() or link.read_text().startswith(MARK))
            if not ours and os.path.lexists(link):
                os.close(lock)
                raise UnavailableError(f"{link} exists: this machine has a Slurm of its own")
        self._lock = lock
        # Forget the jobs of an earlier sandbox in this folder.
        shutil.rmtree(self.folder / "state", ignore_errors=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        for link in self._links():
            link.parent.mkdir(exist_ok=True)
            link.unlink(missing_ok=True)
            link.symlink_to(self.folder / link.name)

    @staticmethod
    def _links() -> list[Path]:
        return [SYSTEM / name for name in ("slurm.conf", "gres.conf", "cgroup.conf")]

    def _write_configuration(self) -> None:
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        host = socket.gethostname().split(".")[0]
        controller, *ports = _free_ports(1 + len(NODES))
        nodes, gpus = [], ["AutoDetect=off"]
        for node, port in zip(NODES, ports, strict=True):
            devices = self.folder / node
            devices.mkdir(exist_ok=True)
            for gpu in range(GPUS):
                # With plain files Slurm would leave CUDA_VISIBLE_DEVICES unset.
                if not (devices / f"nvidia{gpu}").exists():
                    try:
                        os.mknod(devices / f"nvidia{gpu}", stat.S_IFCHR | 0o666, os.makedev(1, 3))
                    except PermissionError:
                        raise UnavailableError("stand-in GPUs need the right to make device files") from None
            address = f"NodeHostname={host} NodeAddr=127.0.0.1 Port={port}"
            nodes.append(f"NodeName={node} {address} CPUs={CPUS} RealMemory=16000 Gres=gpu:{GPUS}")
            gpus.append(f"NodeName={node} Name=gpu Flags=nvidia_gpu_env File={devices}/nvidia[0-{GPUS - 1}]")
        settings = {
            "ClusterName": "sandbox",
            "SlurmctldHost": f"{host}(127.0.0.1)",
            "SlurmctldPort": controller,
            "SlurmctldPidFile": self.folder / "slurmctld.pid",
            "SlurmdPidFile": self.folder / "slurmd-%n.pid",
            "StateSaveLocation": self.folder / "state",
            "SlurmdSpoolDir": self.folder / "spool-%n",
            "SlurmUser": "root",
            "SlurmdUser": "root",
            "AuthType": "auth/munge",
            # A requeued job starts when its old credential has expired, by default after two minutes.
            "AuthInfo": f"socket={self.folder}/munge.socket,cred_expire=20",
            # A container has no control groups and no accounting. Process groups are the best substitute: they keep a process
            # whose parent has died, and kill it as control groups would.
            "ProctrackType": "proctrack/pgid",
            "TaskPlugin": "task/none",
            "JobAcctGatherType": "jobacct_gather/none",
            "AccountingStorageType": "accounting_storage/none",
            "MpiDefault": "none",
            # The machine is smaller than the nodes.
            "SlurmdParameters": "config_overrides",
            "SelectType": "select/cons_tres",
            "SelectTypeParameters": "CR_Core_Memory",
            "GresTypes": "gpu",
            "SchedulerParameters": "bf_interval=1,sched_interval=2,batch_sched_delay=0",
            "ReturnToService": 2,
            "JobRequeue": 1,
            "PreemptType": "preempt/partition_prio",
            "PreemptMode": "REQUEUE",
            "OverTimeLimit": 0,
            "KillWait": self.kill_wait,
            # Seconds for which squeue lists finished jobs.
            "MinJobAge": 300,
        }
        partitions = [f"PartitionName={name} Nodes=ALL {more}" for name, more in PARTITIONS.items()]
        lines = [f"{name}={value}" for name, value in settings.items()] + nodes + partitions
        for name, text in (("slurm.conf", lines), ("gres.conf", gpus), ("cgroup.conf", ["CgroupPlugin=cgroup/v1"])):
            (self.folder / name).write_text(MARK + "\n".join(text) + "\n")

    def _start_daemons(self) -> None:
        munge = f"{self.folder}/munge"
        files = [f"--key-file={munge}.key", f"--socket={munge}.socket", f"--pid-file={munge}.pid", f"--seed-file={munge}.seed"]
        self._spawn("munged", "munged", "--foreground", "--force", f"--log-file={munge}.log", *files)
        self.wait_for(lambda: self._succeeds("munge", "-n", "-S", f"{munge}.socket"), 60)
        self._start_controller()
        for node in NODES:
            self._spawn(node, "slurmd", "-D", "-N", node)
        self.wait_for(lambda: [self.state(node) for node in NODES] == ["idle"] * len(NODES), 120)

    def _start_controller(self) -> None:
        self._spawn("slurmctld", "slurmctld", "-D")
        self.wait_for(lambda: self._succeeds("scontrol", "ping"), 120)

    def _spawn(self, name: str, *command: str) -> None:
        # The daemons end with the tests, however these end.
        with (self.folder / f"{name}.log").open("ab") as log:
            self._daemons[name] = subprocess.Popen(
                ["setpriv", "--pdeathsig=TERM", *command],
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _end(self, name: str) -> None:
        daemon = self._daemons.pop(name)
        daemon.terminate()
        try:
            # A node waits for its jobs; we do not.
            daemon.wait(20 if name == "slurmctld" else 5)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait(20)

    def _succeeds(self, *command: str) -> bool:
        try:
            done = subprocess.run(command, env=self.env, capture_output=True, timeout=20, check=False)
        except subprocess.TimeoutExpired:
            return False
        return done.returncode == 0


def _locked(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as open_at_once:
        sockets = [open_at_once.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
