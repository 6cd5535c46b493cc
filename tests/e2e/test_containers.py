"""Containers of this node through the docker client and docker-py: exec, stop, kill, wait, stats, top, events, inspect."""
import json
import subprocess

import docker as docker_py
import pytest
from shoaltest import DOCKER, table, wait_for


@pytest.fixture
def sleeper(manager):
    """A node with one busybox container; its id."""
    manager.load("busybox")
    manager.docker("service", "create", "--name", "s", "--detach", "--restart-delay", "10ms", "--label", "a=b", "busybox:latest", "sh", "-c",
                   "echo hello; trap 'exit 5' TERM; while :; do sleep 0.1; done")
    (task,) = manager.wait_running("s", 1)
    manager.task = task
    manager.cid = task["Status"]["ContainerStatus"]["ContainerID"]
    return manager


def test_exec(sleeper):
    n, c = sleeper, sleeper.cid
    assert n.docker("exec", c, "echo", "hi").strip() == "hi"
    r = n.docker("exec", c, "sh", "-c", "echo out; echo err >&2; exit 42", check=False)
    assert (r.returncode, r.stdout, r.stderr) == (42, "out\n", "err\n")
    assert n.docker("exec", "-i", c, "cat", input="through stdin\n") == "through stdin\n"
    assert n.docker("exec", "-e", "X=1", "-w", "/tmp", c, "sh", "-c", "echo $X; pwd").split() == ["1", "/tmp"]
    assert n.docker("exec", "-u", "65534", c, "id", "-u").strip() == "65534"
    p = subprocess.run(["script", "-qec", f"{DOCKER} exec -it {c} sh -c 'test -t 0 && echo is a tty'", "/dev/null"],
                       capture_output=True, text=True, env=n.env(), timeout=30)
    assert "is a tty" in p.stdout
    r = n.docker("exec", c, "/no/such/thing", check=False)
    assert r.returncode in (126, 127)
    n.docker("exec", "-d", c, "touch", "/tmp/detached")
    wait_for(lambda: n.docker("exec", c, "ls", "/tmp/detached", check=False).returncode == 0, what="the detached process")


def test_inspect_top_stats(sleeper):
    n, c = sleeper, sleeper.cid
    j = json.loads(n.docker("inspect", c))[0]
    assert j["State"]["Running"] and j["State"]["Pid"] > 0 and j["Config"]["Image"] == "busybox:latest"
    labels = j["Config"]["Labels"]
    assert labels["com.docker.swarm.service.name"] == "s" and labels["com.docker.swarm.task.id"] == sleeper.task["ID"]
    assert "sleep" in n.docker("top", c)
    row = table(n.docker("stats", "--no-stream", c))[0]
    assert row["PIDS"] != "0" and row["MEM USAGE / LIMIT"]
    assert json.loads(n.docker("inspect", "s"))[0]["Spec"]["Name"] == "s"


def test_stop_reports_the_true_exit(sleeper):
    n, c = sleeper, sleeper.cid
    assert n.docker("stop", c).strip() == c
    assert json.loads(n.docker("inspect", c))[0]["State"]["ExitCode"] == 5
    assert n.docker("wait", c).strip() == "5"
    wait_for(lambda: [t for t in n.running("s") if t["ID"] != sleeper.task["ID"]], what="a replacement")


def test_events(sleeper):
    n = sleeper
    n.docker("kill", n.cid)
    wait_for(lambda: [t for t in n.running("s") if t["ID"] != sleeper.task["ID"]], what="a replacement")
    want = {"service create", "container create", "container start", "container kill", "container die"}

    def seen():
        # The client cuts "now" down to whole seconds.
        out = n.docker("events", "--since", "1h", "--until", "0s", "--format", "{{.Type}} {{.Action}}").splitlines()
        assert want <= set(out), (want - set(out), out)
        return True

    wait_for(seen, timeout=10, what="the events")


def test_docker_py(sleeper):
    n = sleeper
    client = docker_py.DockerClient(base_url="unix://" + n.socket, version="auto")
    try:
        assert client.ping() and client.version()["ApiVersion"]
        (service,) = client.services.list()
        assert service.name == "s" and service.attrs["Spec"]["Labels"] == {"a": "b"}
        assert service.scale(2)
        n.wait_running("s", 2)
        c = client.containers.get(n.cid)
        code, out = c.exec_run(["sh", "-c", "echo from py; exit 3"])
        assert (code, out) == (3, b"from py\n")
        assert c.logs() == b"hello\n"
        assert "busybox:latest" in [t for i in client.images.list() for t in i.tags]
        fresh = client.services.create("whoami:latest", name="py", mode={"Replicated": {"Replicas": 1}})
        n.wait_running("py", 1)
        assert b"".join(service.logs(stdout=True, stderr=True)).count(b"hello") == 2
        fresh.remove()
        assert client.swarm.attrs["JoinTokens"]["Worker"].startswith("SWMTKN-1-")
        assert client.nodes.list()[0].attrs["Status"]["State"] == "ready"
        secret = client.secrets.create(name="pw", data=b"x")
        assert client.secrets.get(secret.id).name == "pw"
    finally:
        client.close()


def test_configs_and_secrets(manager):
    n = manager
    cid = n.docker("config", "create", "--label", "a=b", "c1", "-", input="some data").strip()
    sid = n.docker("secret", "create", "s1", "-", input="hush").strip()
    assert json.loads(n.docker("config", "inspect", "c1"))[0]["Spec"]["Data"] == "c29tZSBkYXRh"
    assert "Data" not in json.loads(n.docker("secret", "inspect", "s1"))[0]["Spec"]
    assert [r["ID"] for r in table(n.docker("config", "ls"))] == [cid] and [r["ID"] for r in table(n.docker("secret", "ls"))] == [sid]
    dup = n.docker("config", "create", "c1", "-", input="x", check=False)
    assert dup.returncode == 1 and "config c1 already exists" in dup.stderr
    used = n.docker("service", "create", "--name", "x", "--detach", "--secret", "s1", "whoami:latest", check=False)
    assert used.returncode == 1 and "Secrets" in used.stderr
    n.docker("config", "rm", "c1")
    n.docker("secret", "rm", "s1")
    assert table(n.docker("config", "ls")) == []


def test_nothing_secret_on_disk(manager):
    n = manager
    n.docker("secret", "create", "s1", "-", input="a-very-recognisable-secret")
    n.terminate()
    r = subprocess.run(["grep", "-rl", "a-very-recognisable-secret", n.data_root], capture_output=True, text=True)
    assert r.stdout == ""
    n.start()
