"""Streams of containers over the raw API: logs, attach, exec, wait, stats; slow clients, clients that go, refusals."""
import json
import os
import pty
import re
import socket
import struct
import subprocess
import time

import pytest
from shoaltest import DOCKER, json_filter, run, wait_for

LOOP = "trap 'exit 5' TERM; echo first; while :; do sleep 0.05; done"


@pytest.fixture
def node(node):
    """In a swarm, with busybox."""
    node.init()
    node.load("busybox")
    return node


def service(n, name, *args, **spec):
    """A service with one container; its id."""
    body = {"Name": name, "TaskTemplate": {"ContainerSpec": {"Image": "busybox:latest", "Command": list(args), **spec},
                                           "RestartPolicy": {"Condition": "none"}}}
    status, reply = n.api("POST", "/services/create", body)
    assert status == 201, reply
    (task,) = n.wait_running(name, 1)
    return task["Status"]["ContainerStatus"]["ContainerID"]


class Stream:
    """A connection that was taken over."""

    def __init__(self, n, path, body=None):
        self.s = socket.socket(socket.AF_UNIX)
        self.s.settimeout(20)
        self.s.connect(n.socket)
        data = json.dumps(body).encode() if body is not None else b""
        self.s.sendall(f"POST {path} HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
                       f"Content-Length: {len(data)}\r\n\r\n".encode() + data)
        self.buf = b""
        while b"\r\n\r\n" not in self.buf:
            self._more()
        self.head, self.buf = self.buf.split(b"\r\n\r\n", 1)
        self.status = int(self.head.split()[1])

    def _more(self):
        piece = self.s.recv(65536)
        if not piece:
            raise EOFError
        self.buf += piece

    def frame(self):
        while len(self.buf) < 8 or len(self.buf) < 8 + struct.unpack(">I", self.buf[4:8])[0]:
            self._more()
        n = struct.unpack(">I", self.buf[4:8])[0]
        stream, data, self.buf = self.buf[0], self.buf[8:8 + n], self.buf[8 + n:]
        return stream, data

    def frames(self):
        """All that comes until the end, by stream."""
        out = {1: bytearray(), 2: bytearray()}
        try:
            while True:
                stream, data = self.frame()
                out[stream] += data
        except EOFError:
            assert self.buf == b""
            return out

    def until(self, text):
        while text not in self.buf:
            self._more()
        return self.buf

    def close(self):
        self.s.close()


def start_exec(n, cid, *cmd, **options):
    body = {"Cmd": list(cmd), "AttachStdout": True, "AttachStderr": True, **options}
    status, reply = n.api("POST", f"/containers/{cid}/exec", body)
    assert status == 201, reply
    s = Stream(n, f"/exec/{reply['Id']}/start", {"Detach": False, "Tty": bool(options.get("Tty"))})
    assert s.status == 101
    return reply["Id"], s


def exec_info(n, xid):
    status, info = n.api("GET", f"/exec/{xid}/json")
    assert status == 200
    return info


def test_exec_streams(node):
    n = node
    c = service(n, "s", "sh", "-c", LOOP)
    xid, s = start_exec(n, c, "sh", "-c", "echo out; echo err >&2; cat; exit 4", AttachStdin=True)
    s.s.sendall(b"some input\n")
    s.s.shutdown(socket.SHUT_WR)
    assert s.frames() == {1: b"out\nsome input\n", 2: b"err\n"}
    info = exec_info(n, xid)
    assert (info["Running"], info["ExitCode"], info["ContainerID"]) == (False, 4, c)
    assert info["ProcessConfig"]["entrypoint"] == "sh" and info["ProcessConfig"]["arguments"][0] == "-c"
    assert n.api("POST", f"/exec/{xid}/start", {})[0] == 409
    # Only what was asked for.
    _, s = start_exec(n, c, "sh", "-c", "echo out; echo err >&2", AttachStderr=False)
    assert s.frames() == {1: b"out\n", 2: b""}
    # Refusals.
    for body, status, words in (({"Cmd": []}, 400, "No exec command specified"), ({"Cmd": "ls"}, 400, "Cmd"),
                                ({"Cmd": ["ls"], "Env": ["=x"]}, 400, "environment"), ({"Cmd": ["ls"], "Tty": 1}, 400, "Tty"),
                                ({"Cmd": ["ls"], "WorkingDir": "x"}, 400, "working directory"),
                                ({"Cmd": ["ls"], "DetachKeys": "shift-a"}, 400, "detach keys")):
        got = n.api("POST", f"/containers/{c}/exec", body)
        assert got[0] == status and words in got[1]["message"], got
    assert n.api("POST", "/exec/nope/start", {})[0] == 404
    xid, s = start_exec(n, c, "true", User="ghost")
    assert b"unable to find user ghost" in s.frames()[1]
    assert exec_info(n, xid)["ExitCode"] == 126


def test_exec_slow_reader(node):
    """The process waits while nobody reads, the daemon does not grow, and every byte comes."""
    n = node
    c = service(n, "s", "sh", "-c", LOOP)
    def rss():
        with open(f"/proc/{n.proc.pid}/statm") as f:
            return int(f.read().split()[1]) * 4096
    before = rss()
    xid, s = start_exec(n, c, "dd", "if=/dev/zero", "bs=1M", "count=64")
    time.sleep(1)
    assert exec_info(n, xid)["Running"]
    assert rss() - before < 16 << 20 or "asan" in os.environ.get("SHOAL_BUILD", "")
    assert len(s.frames()[1]) == 64 << 20
    assert wait_for(lambda: not exec_info(n, xid)["Running"])
    # The other way: a process that does not read its input.
    xid, s = start_exec(n, c, "sh", "-c", "sleep 1; wc -c", AttachStdin=True)
    s.s.settimeout(60)
    s.s.sendall(bytes(8 << 20))
    s.s.shutdown(socket.SHUT_WR)
    assert s.frames()[1].strip() == str(8 << 20).encode()


def test_exec_client_goes(node):
    n = node
    c = service(n, "s", "sh", "-c", LOOP)
    xid, s = start_exec(n, c, "sh", "-c", "while :; do echo a lot of output; done")
    s.frame()
    s.close()
    assert exec_info(n, xid)["Running"]
    xid2, s = start_exec(n, c, "cat", AttachStdin=True)
    s.close()  # its input is closed with the client
    wait_for(lambda: not exec_info(n, xid2)["Running"], what="the end of cat")
    assert n.api("GET", "/_ping")[0] == 200
    n.docker("kill", c)
    wait_for(lambda: n.api("GET", f"/exec/{xid}/json")[0] == 404 or not exec_info(n, xid)["Running"], what="its end with the container")


def test_exec_terminal(node):
    n = node
    c = service(n, "s", "sh", "-c", LOOP)
    xid, s = start_exec(n, c, "sh", "-c", "stty size; read x; stty size; echo got $x; sleep 60", Tty=True, AttachStdin=True)
    s.until(b"\r\n")
    assert n.api("POST", f"/exec/{xid}/resize?h=33&w=77")[0] == 200
    assert n.api("POST", f"/exec/{xid}/resize?h=-1&w=77")[0] == 400
    s.s.sendall(b"line\r")
    assert b"33 77\r\ngot line" in s.until(b"got line")
    s.s.sendall(b"\x10\x11")  # ctrl-p ctrl-q
    with pytest.raises(EOFError):
        s.until(b"never comes")
    assert exec_info(n, xid)["Running"]


def test_interactive_client(node):
    """docker exec -it as a person has it: a terminal on both ends."""
    n = node
    c = service(n, "s", "sh", "-c", LOOP)
    pid, fd = pty.fork()
    if pid == 0:
        os.environ.update(n.env())
        os.execv(DOCKER, [DOCKER, "exec", "-it", c, "sh"])
    out = b""

    def expect(text):
        nonlocal out
        deadline = time.monotonic() + 20
        while text not in out:
            assert time.monotonic() < deadline, out
            out += os.read(fd, 4096)
    expect(b"/ #")
    os.write(fd, b"echo $((6*7)); tty\r")
    expect(b"42\r\n")
    expect(b"/dev/pts/")
    os.write(fd, b"exit 3\r")
    _, status = os.waitpid(pid, 0)
    os.close(fd)
    assert os.waitstatus_to_exitcode(status) == 3


def test_attach(node):
    n = node
    c = service(n, "s", "sh", "-c", "while read x; do echo got $x; echo e-$x >&2; done; echo over", OpenStdin=True)
    s = Stream(n, f"/containers/{c}/attach?stream=1&stdin=1&stdout=1&stderr=1")
    assert s.status == 101
    s.s.sendall(b"a\n")
    assert sorted([s.frame(), s.frame()]) == [(1, b"got a\n"), (2, b"e-a\n")]
    s.close()
    # A second client sees what comes from now on, with logs also what was.
    s = Stream(n, f"/containers/{c}/attach?stream=1&stdin=1&stdout=1")
    old = Stream(n, f"/containers/{c}/attach?logs=1&stream=1&stdout=1")
    assert old.frame() == (1, b"got a\n")
    s.s.sendall(b"b\n")
    assert s.frame() == (1, b"got b\n") and old.frame() == (1, b"got b\n")
    n.docker("kill", c)
    assert s.frames() == {1: b"", 2: b""} and old.frames() == {1: b"", 2: b""}
    done = Stream(n, f"/containers/{c}/attach?logs=1&stdout=1&stderr=1")
    assert done.frames()[1] == b"got a\ngot b\n"
    for query, status in (("stream=1&stdout=1", 409), ("", 400), ("stream=1", 400), ("logs=1&stream=1&stdin=1", 501)):
        assert n.api("POST", f"/containers/{c}/attach?{query}")[0] == status
    plain = service(n, "plain", "sh", "-c", LOOP)
    assert n.api("POST", f"/containers/{plain}/attach?stream=1&stdin=1&stdout=1")[0] == 400


def test_logs(node):
    n = node
    c = service(n, "s", "sh", "-c", "trap 'echo bye; exit 0' TERM; for i in 1 2 3 4; do echo line $i; sleep 0.05; done; echo err >&2; while :; do sleep 0.05; done")
    wait_for(lambda: "err" in n.docker("logs", c, check=False).stderr, what="the log")
    r = n.docker("logs", c, check=False)
    assert (r.stdout, r.stderr) == ("line 1\nline 2\nline 3\nline 4\n", "err\n")
    assert n.docker("logs", "--tail", "2", c).splitlines()[-1] == "line 4"
    stamped = n.docker("logs", "-t", c).splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z line ", s) for s in stamped)
    third = stamped[2].split()[0]
    assert n.docker("logs", "--since", third, c).startswith("line 3")
    assert n.docker("logs", "--until", third, c).splitlines()[-1] == "line 3"
    assert n.api("GET", f"/containers/{c}/logs")[0] == 400
    assert n.api("GET", f"/containers/{c}/logs?stdout=1&tail=x")[0] == 400
    assert n.api("GET", "/containers/nope/logs?stdout=1")[0] == 404
    follow = subprocess.Popen([DOCKER, "logs", "-f", "--tail", "0", c], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=n.env())
    gone = subprocess.Popen([DOCKER, "logs", "-f", c], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=n.env())
    time.sleep(0.3)
    gone.kill()
    gone.wait()
    n.docker("stop", c)
    assert follow.communicate(timeout=20)[0] == "bye\n" and follow.returncode == 0


def test_wait_conditions(node):
    n = node
    c = service(n, "s", "sh", "-c", LOOP)
    waits = {k: subprocess.Popen(["curl", "-sN", "--unix-socket", n.socket, "-X", "POST", f"http://d/containers/{c}/wait?condition={k}"],
                                 stdout=subprocess.PIPE, text=True) for k in ("not-running", "next-exit", "removed")}
    gone = subprocess.Popen(["curl", "-sN", "--unix-socket", n.socket, "-X", "POST", f"http://d/containers/{c}/wait"], stdout=subprocess.DEVNULL)
    time.sleep(0.3)
    gone.kill()
    gone.wait()
    assert n.api("POST", f"/containers/{c}/wait?condition=x")[0] == 400
    n.docker("stop", c)
    for k in ("not-running", "next-exit"):
        assert json.loads(waits[k].communicate(timeout=10)[0]) == {"StatusCode": 5}
    assert waits["removed"].poll() is None
    assert n.api("POST", f"/containers/{c}/stop")[0] == 304
    status, reply = n.api("POST", f"/containers/{c}/kill")
    assert status == 409 and reply["message"] == f"Cannot kill container: {c}: Container {c} is not running"
    assert n.api("DELETE", f"/containers/{c}")[0] == 204
    assert json.loads(waits["removed"].communicate(timeout=10)[0])["StatusCode"] == 5
    assert n.api("GET", f"/containers/{c}/json")[0] == 404


def test_stats_stream(node):
    n = node
    c = service(n, "s", "sh", "-c", LOOP)
    one = n.api("GET", f"/containers/{c}/stats?stream=0&one-shot=1")[1]
    assert one["precpu_stats"]["cpu_usage"]["total_usage"] == 0 and one["memory_stats"]["usage"] > 0
    two = n.api("GET", f"/containers/{c}/stats?stream=0")[1]
    assert 0 < two["precpu_stats"]["system_cpu_usage"] < two["cpu_stats"]["system_cpu_usage"]
    assert two["networks"]["eth0"] and two["pids_stats"]["current"] >= 1
    p = subprocess.Popen(["curl", "-sN", "--unix-socket", n.socket, f"http://d/containers/{c}/stats"], stdout=subprocess.PIPE, text=True)
    first, second = json.loads(p.stdout.readline()), json.loads(p.stdout.readline())
    assert second["preread"] == first["read"]
    n.docker("kill", c)
    p.stdout.read()
    assert p.wait(timeout=10) == 0  # it ended with the container
    assert n.api("GET", f"/containers/{c}/stats?stream=0")[1]["read"] == "0001-01-01T00:00:00Z"
    assert n.api("GET", f"/containers/{c}/stats?stream=1&one-shot=1")[0] == 400


def test_lists(node):
    n = node
    a = service(n, "a", "sh", "-c", LOOP, Labels={"tier": "front"})
    b = service(n, "b", "sh", "-c", LOOP)
    n.docker("kill", b)
    wait_for(lambda: b not in n.docker("ps", "-q", "--no-trunc"), what="its end")

    def ids(all=1, **filters):
        status, reply = n.api("GET", f"/containers/json?all={all}&filters=" + json_filter(**filters))
        assert status == 200, reply
        return [c["Id"] for c in reply]
    assert ids(0) == [a] and ids() == [b, a]
    assert ids(status=["exited"]) == [b] and ids(exited=["137"]) == [b] and ids(exited=["0"]) == []
    assert ids(name=["^/a.1"]) == [a] and ids(label=["tier=front"]) == [a] and ids(id=[b[:12]]) == [b]
    assert ids(**{"is-task": ["true"]}) == [b, a] and ids(ancestor=["busybox"]) == [b, a] and ids(ancestor=["nothing"]) == []
    assert ids(before=[b]) == [a] and ids(since=[a]) == [b] and ids(network=["bridge"]) == [b, a]
    assert [c["Id"] for c in n.api("GET", "/containers/json?limit=1")[1]] == [b]
    for bad in ({"no": ["x"]}, {"status": ["x"]}, {"name": ["("]}):
        assert n.api("GET", "/containers/json?filters=" + json_filter(**bad).replace("(", "%28"))[0] == 400
    assert n.api("GET", "/containers/json?filters=" + json_filter(before=["nope"]))[0] == 404
    sized = n.api("GET", "/containers/json?size=1")[1]
    assert sized[0]["SizeRw"] == 0 and sized[0]["SizeRootFs"] > 0  # it has written nothing
    up = n.docker("ps", "--format", "{{.Status}}", "--filter", "id=" + a).strip()
    assert re.fullmatch(r"Up (Less than a second|\d+ seconds?)", up)
    assert re.fullmatch(r"Exited \(137\) (Less than a second|\d+ seconds?) ago", n.docker("ps", "-a", "--format", "{{.Status}}", "--filter", "id=" + b).strip())
    n.docker("pause", a)
    assert "(Paused)" in n.docker("ps", "--format", "{{.Status}}", "--filter", "id=" + a)
    assert n.api("POST", f"/containers/{a}/pause")[0] == 409
    assert n.api("POST", f"/containers/{a}/start")[0] == 409
    assert n.api("POST", f"/containers/{a}/exec", {"Cmd": ["ls"]})[0] == 409
    n.docker("unpause", a)
    assert n.api("POST", f"/containers/{a}/unpause")[0] == 409
    assert n.api("POST", f"/containers/{a}/start")[0] == 304
    status, reply = n.api("DELETE", f"/containers/{a}")
    assert (status, reply["message"]) == (409, f"You cannot remove a running container {a}. Stop the container before attempting removal or force remove")
    for method, path in (("POST", "create"), ("POST", f"{a}/rename?name=x"), ("POST", f"{a}/update"), ("GET", f"{a}/archive?path=/"), ("GET", f"{a}/export"),
                         ("GET", f"{a}/changes")):
        status, reply = n.api(method, "/containers/" + path, {} if method == "POST" else None)
        assert status == 501 and "not supported" in reply["message"], (path, reply)
    assert n.api("POST", "/containers/prune?filters=" + json_filter(until=["1h"]))[1] == {"ContainersDeleted": [], "SpaceReclaimed": 0}
    pruned = n.api("POST", "/containers/prune")[1]
    assert pruned["ContainersDeleted"] == [b] and pruned["SpaceReclaimed"] > 0
    r = run(DOCKER, "run", "busybox", "true", check=False, env=n.env())
    assert r.returncode == 125 and "create a service" in r.stderr
