"""Starts several workers on this machine, each on its share of the cores or on a GPU of its own.

    python -m ptb.cluster --trusted_network --workers 4 lstm.py --config small

What they do together is in cluster.py.
"""

import contextlib
import json
import math
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

from ptb.terminal import command_line
from ptb.terminal.errors import STOP_SIGNALS, UserError
from ptb.terminal.progress import counted
from ptb.terminal.quiet import tf

GRACE = 30  # seconds that the others get to end when one worker has ended
KILLED = 137  # exit status of a process that the system, or somebody, has killed
LAUNCHED = "PTB_LAUNCHED"  # set in the environment of workers whose stdin the launcher holds open


def launch(command, number):
    """Starts a command as so many workers on this machine, and returns the worst exit status.

    What worker 0 prints is shown as it is. What another one writes on stderr is shown at the end if
    it has ended in another way than worker 0, or names itself; otherwise worker 0 says the same.
    Signals are passed on to all workers. When one has ended, the others have GRACE seconds to end
    as well; when this process is gone, they stop by themselves.

    Args:
      command: the words after the name of Python.
      number: how many workers there are.

    Raises:
      UserError: there are GPUs, but not enough of them.
    """
    addresses = free_addresses(number)
    ports = ", ".join(address.split(":")[1] for address in addresses)
    print(f"Each worker opens a port to every network of this machine: {ports}.")
    processes, written, before = [], [tempfile.TemporaryFile() for _ in range(number)], {}
    try:
        for index, resources in enumerate(_shares(number)):
            task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
            processes.append(subprocess.Popen(
                [sys.executable, *command],
                env={**os.environ, **resources, "TF_CONFIG": json.dumps(task), LAUNCHED: "1"},
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL if index else None,
                stderr=written[index] if index else None,
                start_new_session=True,  # A terminal's Ctrl-C then comes to this process alone.
            ))
        if threading.current_thread() is threading.main_thread():
            for signum in STOP_SIGNALS:
                if signal.getsignal(signum) not in (signal.SIG_IGN, None):
                    before[signum] = signal.signal(signum, lambda n, _: _send(processes, n))
        ended_at = math.inf
        while any(process.poll() is None for process in processes):
            time.sleep(0.05)
            if any(process.returncode is not None for process in processes):
                ended_at = min(ended_at, time.monotonic())
            if time.monotonic() - ended_at > GRACE:
                _send(processes, getattr(signal, "SIGKILL", signal.SIGTERM))
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)  # A notebook goes on after this.
        for process in processes:
            process.stdin.close()
    # A process that a signal ended has the status -signum in Python, and 128 + signum in a shell.
    statuses = [128 - p.returncode if p.returncode < 0 else p.returncode for p in processes]
    for index, file in enumerate(written):
        file.seek(0)
        text = file.read().decode(errors="backslashreplace")
        if statuses[index] != statuses[0] or f": worker {index} (" in text:
            for line in text.splitlines():
                print(f"worker {index}: {line}", file=sys.stderr)
        file.close()
    if min(statuses) == KILLED:
        print("all workers were killed, as happens where memory runs out", file=sys.stderr)
    return max(statuses)


def _send(processes, signum):
    """Passes a signal on to the processes that still run."""
    for process in processes:
        # Windows sends Ctrl-C to every process of a terminal by itself, and has no other signals.
        with contextlib.suppress(ValueError):
            process.send_signal(signum)


def end_with_it():
    """Asks this process to stop when the launcher that started it, and holds its stdin, is gone."""

    def wait():
        with contextlib.suppress(OSError):
            while os.read(0, 1):
                pass
        os.kill(os.getpid(), signal.SIGTERM)

    if os.environ.get(LAUNCHED):
        threading.Thread(target=wait, daemon=True).start()


def free_addresses(number):
    """Returns so many addresses of this machine alone, with ports that are free now.

    Their numbers are below those that systems give to outgoing connections, so that none of these
    takes a port before its worker opens it.
    """
    ports = iter(random.SystemRandom().sample(range(1 << 14, 1 << 15), 1 << 14))
    addresses = []
    while len(addresses) < number:
        host, port = "127.0.0.1", next(ports)
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind((host, port))
            addresses.append(f"{host}:{port}")
    return addresses


def _shares(number):
    """Returns for each of so many workers the environment that gives it its share of the machine.

    That is a GPU of its own, where there are GPUs, and an equal number of cores.
    """
    gpus = [str(k) for k in range(len(tf.config.list_physical_devices("GPU")))]
    if gpus and len(gpus) < number:
        raise UserError(
            f"--workers {number}: there {'is' if len(gpus) == 1 else 'are'} "
            f"{counted(len(gpus), 'GPU')}; start no more workers than that, or set "
            "CUDA_VISIBLE_DEVICES= to use none"
        )
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = visible.split(",") if gpus and visible else gpus
    threads = str(max(num_cores() // number, 1))
    return [
        {
            "TF_NUM_INTRAOP_THREADS": threads, "TF_NUM_INTEROP_THREADS": threads,
            **({"CUDA_VISIBLE_DEVICES": gpus[index]} if gpus else {}),
        }
        for index in range(number)
    ]


def num_cores():
    """Returns how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def main(argv=None):
    """Starts the workers that the command line asks for; returns the exit status."""
    parser = command_line.Parser(
        prog="python -m ptb.cluster", add_help=True,
        description="Starts workers on this machine, which train one model together: each on its "
        "share of the cores,\nor a GPU of its own. For example:\n\n"
        "  python -m ptb.cluster --trusted_network --workers 2 lstm.py --config small",
    )
    parser.add_argument(
        "--trusted_network", action="store_true",
        help="needed: it says that only people whom you trust can reach the ports of this machine",
    )
    parser.add_argument("--workers", type=int, required=True, help="how many workers to start")
    parser.add_argument("command", nargs="...", help="what each of them runs: a script, its flags")
    args = parser.parse_args(argv)
    if args.workers < 1:
        raise UserError(f"--workers is {args.workers}; the smallest possible is 1")
    if not args.trusted_network:
        raise UserError(
            "each worker opens a port to every network of this machine, and whoever reaches it can "
            "run anything here; where all who can are trusted, add --trusted_network"
        )
    if not args.command:
        raise UserError("what are the workers to run? Such as lstm.py --config small")
    if not os.path.isfile(args.command[0]):
        raise UserError(f"{args.command[0]}: no such file")
    return launch(args.command, args.workers)
