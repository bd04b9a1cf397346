"""Slurm on this machine alone: munge, a controller and a node with four GPUs that are none, in one folder, on loopback.

Nothing outside the folder is touched, so a real Slurm on the machine is left alone: the commands of `bin/` call the
system's with this cluster's slurm.conf, and jobs inherit the PATH that begins with them.
"""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

DAEMONS = ("munged", "slurmctld", "slurmd")
PACKAGES = ("slurm-wlm", "munge")
COMMANDS = ("sbatch", "scancel", "scontrol", "sinfo", "squeue", "srun")  # no sacct: nothing accounts here
DEVICES = ("/dev/full", "/dev/null", "/dev/random", "/dev/zero")  # that stand for GPUs: Slurm wants device files
SECONDS = 30  # at most, for a daemon to come up or to go
MEMORY_MB = 64_000  # more than there may be: the jobs of a test ask for much and take little
CONF = """\
ClusterName=one
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SchedulerParameters=sched_interval=1,batch_sched_delay=0,sched_min_interval=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=500
SlurmdParameters=config_overrides
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MinJobAge=300
ReturnToService=2
GresTypes=gpu
NodeName=localhost NodeAddr=127.0.0.1 CPUs=16 RealMemory={memory_mb} Gres=gpu:{gpus} State=UNKNOWN
PartitionName=cpu Nodes=localhost Default=YES MaxTime=7-00:00:00 State=UP
PartitionName=gpu Nodes=localhost MaxTime=7-00:00:00 State=UP
"""


def missing() -> str:
    """Return why Slurm cannot run here; "" where it can."""
    if os.geteuid():
        return "Slurm's daemons need root"
    absent = [name for name in DAEMONS if not shutil.which(name)]
    return f"no {', '.join(absent)} here: install Debian's {', '.join(PACKAGES)}, as .ci/tools does" if absent else ""


def wait_for(what: str, there: Callable[[], bool], seconds: float = SECONDS) -> None:
    """Look five times a second until it is there; raises TimeoutError after so many seconds."""
    deadline = time.monotonic() + seconds
    while not there():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds:.0f} s")
        time.sleep(0.2)


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens at."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [found.getsockname()[1] for found in sockets]
    for found in sockets:
        found.close()
    return ports


def write_settings(folder: Path) -> None:
    """What the daemons read: the key, slurm.conf, gres.conf and the commands of bin/."""
    for name in ("state", "spool", "bin"):
        (folder / name).mkdir()
    (folder / "munge.key").touch(0o600)
    (folder / "munge.key").write_bytes(secrets.token_bytes(128))
    (folder / "slurm.conf").write_text(
        CONF.format(folder=folder, ports=free_ports(2), memory_mb=MEMORY_MB, gpus=len(DEVICES))
    )
    gpus = [f"NodeName=localhost Name=gpu File={path}\n" for path in DEVICES]
    (folder / "gres.conf").write_text("".join(gpus))
    for name in COMMANDS:
        command = folder / "bin" / name
        command.write_text(f'#!/bin/sh\nSLURM_CONF={folder}/slurm.conf exec {shutil.which(name)} "$@"\n')
        command.chmod(0o755)


def mine(folder: Path) -> list[int]:
    """The processes that have this cluster's folder in their command or their environment, but for this one."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            said = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
            if str(folder).encode() in said and int(process.name) != os.getpid():
                found.append(int(process.name))
    return found


def answers(command: list[str], environment: dict[str, str], wanted: str) -> bool:
    """Whether a command prints what is wanted."""
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    return wanted in done.stdout


def stop(folder: Path, environment: dict[str, str], daemons: list[subprocess.Popen[bytes]]) -> None:
    """End all jobs, then the daemons, the last begun first, then by its id whatever is left."""
    with suppress(TimeoutError, subprocess.TimeoutExpired, FileNotFoundError):
        subprocess.run(["scancel", "--user=root"], env=environment, capture_output=True, timeout=SECONDS)
        states = ["squeue", "--noheader", "--states=pending,running,completing", "--Format=State"]
        wait_for("the end of all jobs", lambda: not answers(states, environment, "ING"))
    for daemon in reversed(daemons):
        daemon.terminate()
        with suppress(subprocess.TimeoutExpired):
            daemon.wait(SECONDS)
        daemon.kill()
        daemon.wait()
    for process in mine(folder):
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    wait_for("the end of all processes", lambda: not mine(folder))


@contextmanager
def one_node() -> Iterator[dict[str, str]]:
    """Slurm up and idle; gives the environment to call it in. Raises TimeoutError when it does not come up."""
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))  # short: the name of munge's socket may have 107 letters
    folder.chmod(0o755)
    environment = os.environ | {"PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    daemons: list[subprocess.Popen[bytes]] = []

    def begin(*command: str) -> None:
        with open(folder / f"{command[0]}.out", "wb") as out:
            daemons.append(subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out))

    try:
        write_settings(folder)
        files = {"key": "munge.key", "pid": "munged.pid", "log": "munged.log", "seed": "munged.seed"}
        paths = [f"--{what}-file={folder / name}" for what, name in files.items()]
        begin("munged", "--foreground", "--force", f"--socket={folder / 'munge.socket'}", *paths)
        wait_for("munge's socket", (folder / "munge.socket").exists)
        conf = str(folder / "slurm.conf")
        begin("slurmctld", "-D", "-f", conf)
        begin("slurmd", "-D", "-N", "localhost", "-f", conf)
        state = ["sinfo", "--noheader", "--format=%t"]
        wait_for("an idle node", lambda: answers(state, environment, "idle"))
        yield environment
    except TimeoutError as error:
        for path in sorted(folder.glob("*.out")):
            error.add_note(f"{path.name}: {path.read_text(errors='replace')[-2000:]}")
        raise
    finally:
        stop(folder, environment, daemons)
        shutil.rmtree(folder)
