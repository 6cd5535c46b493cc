"""Peers for benchmarks: Shoal and, where Debian's dockerd is installed, a Docker Swarm beside it on the same machine."""
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "lib"))

import shoaltest  # noqa: E402
from shoaltest import Host, Node, run, wait_for  # noqa: E402

DOCKERD = "/usr/sbin/dockerd"


class Docker(Node):
    """dockerd in a network namespace of its own, driven like a Node."""

    def argv(self):
        return [DOCKERD, "--data-root", self.data_root, "--exec-root", self.exec_root, "-H", "unix://" + self.socket,
                "--pidfile", os.path.join(self.host.dir, "dockerd.pid")]

    def start(self, wait=True):
        # Swarm looks for each image at its registry first: let that fail at once, not by a time-out.
        run("ip", "-n", self.host.name, "route", "del", "default")
        super().start(wait=False)
        wait_for(self.alive_and_serving, timeout=60, what="dockerd serving")
        return self

    def close(self):
        for c in self.docker("ps", "-aq", check=False).stdout.split():
            self.docker("rm", "-f", c, check=False)
        super().close()


def descendants(pid):
    out = []
    for c in shoaltest.children(pid):
        out += [c] + descendants(c)
    return out


def memory(pids, field):
    """Sum of a field of smaps_rollup (Pss, Rss) over processes, KiB."""
    total = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/smaps_rollup") as f:
                total += sum(int(line.split()[1]) for line in f if line.startswith(field + ":"))
        except OSError:
            pass
    return total


def comm(pid):
    try:
        with open(f"/proc/{pid}/comm") as f:
            return f.read().strip()
    except OSError:
        return ""


def start(kind):
    """(node, None) ready as a manager with whoami, or (None, why)."""
    if kind is Docker and not os.path.exists(DOCKERD):
        return None, "Debian's docker.io is not installed"
    host = Host()
    node = Node(host, log_level="warn") if kind is Node else kind(host)
    try:
        if kind is Node:
            # As on people's machines, where /run is a tmpfs.
            os.makedirs(node.exec_root, exist_ok=True)
            run("mount", "-t", "tmpfs", "-o", "mode=711", "tmpfs", node.exec_root)
        node.start()
        node.init()
        node.load("whoami")
        return node, None
    except (AssertionError, RuntimeError, subprocess.SubprocessError) as e:
        node.close()
        host.close()
        if kind is Node:
            raise
        return None, f"dockerd does not start here: {e}"


def stop(node):
    node.close()
    node.host.close()


__all__ = ["Docker", "Node", "comm", "descendants", "memory", "run", "shoaltest", "start", "stop", "wait_for"]
