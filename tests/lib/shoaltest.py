"""Real nodes for tests: a network namespace each, one shoald in it, the docker and shoal clients beside.

Everything that a Host makes (namespace, links, processes, directories, mounts) is gone after close(), also when a test
failed half-way. Nothing waits for time: wait_for polls a condition until a deadline.
"""
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("SHOAL_BUILD", os.path.join(ROOT, "build", "release"))
DOCKER = "/usr/bin/docker"
_counter = iter(range(1, 1 << 30))


def run(*args, check=True, timeout=60, **kw):
    """A command to its end; its output is in the failure."""
    r = subprocess.run([str(a) for a in args], capture_output=True, text=True, timeout=timeout, **kw)
    if check and r.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, args))} exited with {r.returncode}\n{r.stdout}\n{r.stderr}")
    return r


def wait_for(condition, timeout=30, what="condition", interval=0.02):
    """Calls condition until it returns something true; returns that. Exceptions count as not yet."""
    deadline = time.monotonic() + timeout
    last = None
    while True:
        try:
            value = condition()
            if value:
                return value
            last = value
        except (AssertionError, OSError, ValueError, KeyError, IndexError, subprocess.SubprocessError) as e:
            last = e
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {timeout} s; last: {last!r}")
        time.sleep(interval)


class Host:
    """A machine of its own: network namespace with lo, and eth0 (address `ip`) to a client namespace (address `client_ip`)."""

    def __init__(self):
        n = next(_counter)
        self.name = f"sht{os.getpid()}-{n}"
        self.client = self.name + "c"
        self.dir = tempfile.mkdtemp(prefix="shoaltest-")
        os.chmod(self.dir, 0o755)
        self.ip = "10.231.7.1"
        self.client_ip = "10.231.7.2"
        self._stack = contextlib.ExitStack()
        self.procs = []
        try:
            self._network()
        except BaseException:
            self.close()
            raise

    def _network(self):
        for ns in (self.name, self.client):
            run("ip", "netns", "add", ns)
            self._stack.callback(run, "ip", "netns", "del", ns, check=False)
            run("ip", "-n", ns, "link", "set", "lo", "up")
        run("ip", "-n", self.name, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", self.client)
        for ns, addr in ((self.name, self.ip), (self.client, self.client_ip)):
            run("ip", "-n", ns, "addr", "add", addr + "/24", "dev", "eth0")
            run("ip", "-n", ns, "link", "set", "eth0", "up")
        run("ip", "-n", self.name, "route", "add", "default", "via", self.client_ip)

    def inside(self, *args):
        """argv that runs in this host's network."""
        return ["nsenter", f"--net=/run/netns/{self.name}", "--", *map(str, args)]

    def outside(self, *args):
        """argv that runs in the client's network."""
        return ["nsenter", f"--net=/run/netns/{self.client}", "--", *map(str, args)]

    def popen(self, args, **kw):
        p = subprocess.Popen([str(a) for a in args], **kw)
        self.procs.append(p)
        return p

    def curl(self, url, where="outside", timeout=5, check=True):
        argv = ["curl", "-sS", "--max-time", str(timeout), url]
        r = run(*(self.outside(*argv) if where == "outside" else self.inside(*argv)), check=check, timeout=timeout + 10)
        return r.stdout

    def close(self):
        for p in self.procs:
            if p.poll() is None:
                p.kill()
                p.wait()
        self._stack.close()
        shutil.rmtree(self.dir, ignore_errors=True)


class Node:
    """A shoald on a Host."""

    def __init__(self, host, *flags, log_level="info"):
        self.host = host
        self.data_root = os.path.join(host.dir, "data")
        self.exec_root = os.path.join(host.dir, "exec")
        self.socket = os.path.join(host.dir, "shoal.sock")
        self.log_path = os.path.join(host.dir, "shoald.log")
        self.flags = list(flags)
        self.log_level = log_level
        self.proc = None
        self.docker_config = os.path.join(host.dir, "docker-config")
        os.makedirs(self.docker_config, exist_ok=True)

    def argv(self):
        return [os.path.join(BUILD, "shoald"), "--data-root", self.data_root, "--exec-root", self.exec_root, "-H",
                "unix://" + self.socket, "-l", self.log_level, *self.flags]

    def start(self, wait=True):
        self.log = open(self.log_path, "ab")
        self.proc = self.host.popen(self.host.inside(*self.argv()), stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL)
        if wait:
            wait_for(self.alive_and_serving, what="shoald serving")
        return self

    def alive_and_serving(self):
        if self.proc.poll() is not None:
            raise RuntimeError(f"shoald ended with {self.proc.returncode}:\n{self.log_text()[-4000:]}")
        return run("curl", "-s", "--unix-socket", self.socket, "http://d/_ping", check=False).stdout == "OK"

    def log_text(self):
        with open(self.log_path, errors="replace") as f:
            return f.read()

    def kill9(self):
        self.proc.kill()
        self.proc.wait()

    def terminate(self):
        """A planned stop; containers stay."""
        self.proc.send_signal(signal.SIGTERM)
        self.proc.wait(timeout=30)
        return self.proc.returncode

    def restart(self, hard=False):
        if hard:
            self.kill9()
        else:
            self.terminate()
        return self.start()

    def env(self):
        return {**os.environ, "DOCKER_HOST": "unix://" + self.socket, "DOCKER_CONFIG": self.docker_config,
                "SHOAL_HOST": "unix://" + self.socket}

    def docker(self, *args, check=True, timeout=60, input=None):
        r = run(DOCKER, *args, check=check, timeout=timeout, env=self.env(), input=input)
        return r.stdout if check else r

    def shoal(self, *args, check=True, timeout=60, input=None):
        r = run(os.path.join(BUILD, "shoal"), *args, check=check, timeout=timeout, env=self.env(), input=input)
        return r.stdout if check else r

    def api(self, method, path, body=None, timeout=30):
        """(status, decoded body) of a raw API call."""
        argv = ["curl", "-s", "--unix-socket", self.socket, "-X", method, "-w", "\n%{http_code}", "--max-time", timeout]
        if body is not None:
            data = body if isinstance(body, (str, bytes)) else json.dumps(body)
            argv += ["-H", "Content-Type: application/json", "--data-binary", "@-"]
        else:
            data = None
        r = run(*argv, "http://d" + path, input=data, timeout=timeout + 10, check=False)
        text, _, code = r.stdout.rpartition("\n")
        try:
            return int(code), json.loads(text) if text else None
        except ValueError:
            return int(code or 0), text

    def init(self):
        return self.docker("swarm", "init", "--advertise-addr", self.host.ip)

    def load(self, image="whoami"):
        return self.docker("load", "-i", image_archive(image))

    def running(self, service):
        """Tasks of a service that run now, as the API shows them."""
        status, tasks = self.api("GET", "/tasks?filters=" + json_filter(service=[service]))
        assert status == 200, tasks
        return [t for t in tasks if t["Status"]["State"] == "running" and t["DesiredState"] == "running"]

    def wait_running(self, service, n, timeout=30):
        return wait_for(lambda: (lambda r: r if len(r) == n else None)(self.running(service)), timeout, f"{n} running tasks of {service}")

    def conmons(self):
        """Process ids of the container monitors of this node."""
        pids = []
        for p in os.listdir("/proc"):
            if p.isdigit():
                try:
                    with open(f"/proc/{p}/cmdline", "rb") as f:
                        argv = f.read().split(b"\0")
                except OSError:
                    continue
                if argv[0].endswith(b"conmon") and any(self.host.dir.encode() in a for a in argv):
                    pids.append(int(p))
        return pids

    def close(self):
        """Ends the daemon and every container of it."""
        if self.proc and self.proc.poll() is None:
            self.docker("swarm", "leave", "--force", check=False, timeout=60)
            try:
                self.terminate()
            except subprocess.TimeoutExpired:
                self.kill9()
        for pid in self.conmons():
            for child in children(pid):
                _kill(child)
            _kill(pid)
        unmount_below(self.host.dir)


def children(pid):
    with contextlib.suppress(OSError):
        with open(f"/proc/{pid}/task/{pid}/children") as f:
            return [int(c) for c in f.read().split()]
    return []


def _kill(pid):
    with contextlib.suppress(OSError):
        os.kill(pid, signal.SIGKILL)


def unmount_below(path):
    with open("/proc/self/mountinfo") as f:
        points = [line.split()[4] for line in f]
    for p in sorted((p for p in points if p == path or p.startswith(path + "/")), reverse=True):
        run("umount", "-l", p, check=False)


def json_filter(**kw):
    return json.dumps(kw).replace('"', "%22").replace(" ", "").replace("{", "%7B").replace("}", "%7D").replace("[", "%5B").replace("]", "%5D")


_images = {}
_images_lock = threading.Lock()


def image_archive(name):
    """Path of an image made by scripts/mkimage; made once a run."""
    with _images_lock:
        if name not in _images:
            d = os.path.join(BUILD, "test-images")
            os.makedirs(d, exist_ok=True)
            path = os.path.join(d, name + ".tar")
            if not os.path.exists(path):
                tmp = f"{path}.{os.getpid()}"
                run(os.path.join(ROOT, "scripts", "mkimage"), name, "-o", tmp, timeout=300, env={**os.environ, "SHOAL_BUILD": BUILD})
                os.rename(tmp, path)
            _images[name] = path
        return _images[name]


def table(text):
    """Rows of a CLI table as dicts, by its header (columns are at least two spaces apart)."""
    lines = text.rstrip("\n").split("\n")
    starts = [m.start() for m in re.finditer(r"(?:^|(?<=\s\s))\S", lines[0])]
    cuts = list(zip(starts, starts[1:] + [None]))
    names = [lines[0][a:b].strip() for a, b in cuts]
    return [{n: line[a:b].strip() for n, (a, b) in zip(names, cuts)} for line in lines[1:]]
