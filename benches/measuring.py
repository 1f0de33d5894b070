"""How figures are made: what loads, what counts, and what prints them. For benches/side-by-side, which says what they mean."""

import contextlib
import json
import os
import resource
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

SECONDS = float(os.environ.get("BENCH_SECONDS", "3"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
ONLY = os.environ.get("BENCH_ONLY", "")

HERE = Path(__file__).resolve().parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", HERE.parent / "target"))
CORES = sorted(os.sched_getaffinity(0))
CONTENDER_CORE, OTHER_CORE = CORES[0], CORES[-1]
LOG = "/dev/null"  # of all contenders
ASLEEP = bool(os.environ.get("BENCH_ASLEEP"))
CURL = ("User-Agent: curl/8.5.0", "Accept: */*")  # what hardly any client leaves out, and wrk does


class Failed(Exception):
    """Something is not as it must be for the figures to mean anything."""


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def processes_of(pid):
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(each for child in children for each in processes_of(int(child)))]


class Cpu:
    """The CPU time that the threads of processes and their children take, by the threads' names. Looks often, so that the
    time of threads that end is not lost."""

    def __init__(self, pids):
        self.pids, self.last, self.ended = pids, {}, threading.Event()
        self.first = self.look()
        self.watcher = threading.Thread(target=self.watch, daemon=True)
        self.watcher.start()

    def look(self):
        for pid in (each for pid in self.pids for each in processes_of(pid)):
            for task in Path(f"/proc/{pid}/task").iterdir():
                try:
                    name = (task / "comm").read_text().strip()
                    self.last[task.name] = (name, int((task / "schedstat").read_text().split()[0]))
                except (FileNotFoundError, ProcessLookupError):
                    pass  # it has just ended
        return dict(self.last)

    def watch(self):
        while not self.ended.wait(0.5):
            self.look()

    def end(self):
        """Microseconds by group of threads."""
        self.ended.set()
        self.watcher.join()
        groups = {}
        for task, (name, nanoseconds) in self.look().items():
            before = self.first.get(task, (name, 0))[1]
            group = group_of(name)
            groups[group] = groups.get(group, 0) + (nanoseconds - before) / 1000
        return groups


def group_of(thread):
    if thread.startswith("sqlx"):
        return "database"
    if thread in ("outside", "access-log", "spool", "nginx"):
        return thread
    return "requests"


@contextlib.contextmanager
def awake():
    """Keeps all cores from sleeping, as Linux offers it to whom waking up would take too long (PM QoS), and says whether it could.
    Who sends to a process on a core that sleeps has to wake that core, which on a virtual machine costs several microseconds:
    the more, the more often the load generator has nothing to do. What serves many clients has no sleeping cores, and its
    clients are on other machines."""
    try:
        held = None if ASLEEP else os.open("/dev/cpu_dma_latency", os.O_WRONLY)
    except OSError:
        held = None
    try:
        if held is not None:
            os.write(held, struct.pack("i", 0))
        yield held is not None
    finally:
        if held is not None:
            os.close(held)


def wrk(url, clients, seconds, headers):
    command = ["wrk", "--latency", "-t1", f"-c{clients}", f"-d{seconds:g}s" if seconds >= 1 else "-d1s"]
    for header in (*CURL, *headers):
        command += ["-H", header]
    script = HERE / "wrk.lua"
    pinned = lambda: os.sched_setaffinity(0, {OTHER_CORE})
    run = subprocess.run([*command, "-s", script, url], preexec_fn=pinned, capture_output=True, text=True, timeout=seconds + 60)
    if run.returncode != 0:
        raise Failed(f"wrk {url}: {run.stderr}{run.stdout}")
    figures = json.loads(run.stdout.strip().splitlines()[-1])
    if figures["errors"]:
        raise Failed(f"{url}: {figures}")
    return figures


def load(url, clients, seconds, *options):
    """What wrk cannot do, by benches/load.rs. It fails by itself when an answer is not as it should be."""
    command = [load_generator(), url, f"--clients={clients}", f"--seconds={seconds:g}", *options]
    pinned = lambda: os.sched_setaffinity(0, {OTHER_CORE})
    run = subprocess.run(command, preexec_fn=pinned, capture_output=True, text=True, timeout=seconds + 60)
    if run.returncode != 0:
        raise Failed(f"load {url}: {run.stderr}{run.stdout}")
    return json.loads(run.stdout)


def load_generator():
    if "BENCH_LOAD" in os.environ:
        return os.environ["BENCH_LOAD"]
    built = [path for path in (TARGET / "release" / "deps").glob("load-*") if not path.suffix]
    if not built:
        raise Failed("there is no load generator: cargo build --release --bench load")
    return max(built, key=lambda path: path.stat().st_mtime)


def counted(pids, settle, ask):
    """What was measured while asking, and what it cost: microseconds of a contender, and of what loads it, per request. What
    was begun is brought to its end by `settle`, before and after."""
    settle()
    cpu, before = Cpu(pids), resource.getrusage(resource.RUSAGE_CHILDREN)
    figures = ask()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    settle()
    groups = {group: used / figures["requests"] for group, used in cpu.end().items()}
    loading = (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1e6 / figures["requests"]
    return {**figures, "cpu": sum(groups.values()), "groups": groups, "loading": loading}


def quiet(pids):
    """Waits until processes do next to nothing: less than a hundredth of a core."""
    end = time.monotonic() + 60
    while True:
        cpu = Cpu(pids)
        time.sleep(0.3)
        if sum(cpu.end().values()) < 3000:
            return
        if time.monotonic() > end:
            raise Failed("a contender goes on working when nobody asks for anything")


def median(figures, key):
    return statistics.median(figure[key] for figure in figures)


def median_groups(figures):
    names = sorted({name for figure in figures for name in figure["groups"]})
    return {name: statistics.median(figure["groups"].get(name, 0) for figure in figures) for name in names}


def requests_of(figures):
    """Without the background: the threads that bring events into the database and write logs. They keep no request waiting."""
    return statistics.median(figure["groups"].get("requests", 0) for figure in figures)


def table(head, rows):
    widths = [max(len(str(row[column])) for row in [head, *rows]) for column in range(len(head))]
    line = lambda row: "| " + " | ".join(str(cell).ljust(width) for cell, width in zip(row, widths)) + " |"
    print(file=sys.stderr)  # after the progress
    print("\n".join([line(head), line(["-" * width for width in widths]), *map(line, rows)]) + "\n", flush=True)


def wanted(*words):
    """Whether BENCH_ONLY is among the words that name a row, or some of them."""
    return not ONLY or f"/{ONLY}/" in f"/{'/'.join(map(str, words))}/"


def by_threads(what, figures):
    """Where the time went, as a line of text."""
    groups = sorted(median_groups(figures).items(), key=lambda share: -share[1])
    shares = ", ".join(f"{group} {used:.1f}" for group, used in groups if used >= 0.05)
    print(f"{what}, by threads (µs/request): {shares}")


def progress(round_, *words):
    print(f"\rround {round_ + 1} of {ROUNDS}: {' '.join(map(str, words))}\033[K", end="", file=sys.stderr, flush=True)


def latencies(runs):
    return [f"{median(runs, 'p50') / 1000:.2f}", f"{median(runs, 'p99') / 1000:.2f}"]
