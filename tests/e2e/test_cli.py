"""The shoal client: every command against a real node, what it prints, and how it ends."""
import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time

import pytest

from shoaltest import BUILD, image_archive, run, table, wait_for
from test_images import Registry, needs_registry

SHOAL = os.path.join(BUILD, "shoal")


def fails(node, *args, status=1, **kw):
    """stderr of a command that must end with this status."""
    r = node.shoal(*args, check=False, **kw)
    assert r.returncode == status, (args, r)
    return r.stderr


def lines(node, *args):
    return node.shoal(*args).splitlines()


def create(node, *args):
    """A service without the wait for its stability."""
    return node.shoal("service", "create", "-d", *args).strip()


def spec(node, name):
    return json.loads(node.shoal("service", "inspect", "-f", "json", name))["Spec"]


@pytest.fixture
def busybox(manager):
    """A manager with a service "box" of one busybox that sleeps; .box is its container's id."""
    manager.load("busybox")
    create(manager, "--name", "box", "busybox:latest", "sleep", "1d")
    manager.wait_running("box", 1)
    manager.box = lines(manager, "ps", "-q", "--filter", "label=com.docker.swarm.service.name=box")[0]
    return manager


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, node, *args, size=(33, 111)):
        self.master, slave = pty.openpty()
        self.resize(*size)
        self.proc = subprocess.Popen([SHOAL, *args], stdin=slave, stdout=slave, stderr=slave, env=node.env(), start_new_session=True,
                                     preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
        os.close(slave)
        self.text = ""

    def resize(self, rows, columns):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def send(self, text):
        os.write(self.master, text.encode())

    def read_until(self, part, timeout=20):
        end = time.monotonic() + timeout
        while part not in self.text:
            assert time.monotonic() < end, f"{part!r} is not in {self.text!r}"
            if select.select([self.master], [], [], 0.2)[0]:
                try:
                    self.text += os.read(self.master, 65536).decode(errors="replace")
                except OSError:
                    assert part in self.text, self.text
        return self.text

    def wait(self, timeout=20):
        """The exit status; reads on meanwhile, as a full terminal would stop the command."""
        end = time.monotonic() + timeout
        while self.proc.poll() is None:
            assert time.monotonic() < end, self.text
            if select.select([self.master], [], [], 0.05)[0]:
                try:
                    self.text += os.read(self.master, 65536).decode(errors="replace")
                except OSError:
                    pass
        os.close(self.master)
        return self.proc.returncode


def test_swarm_commands(node):
    assert "This node is not a swarm manager" in fails(node, "service", "ls")
    out = node.shoal("swarm", "init", "--advertise-addr", node.host.ip, "--task-history-limit", "3")
    assert "Swarm initialized: current node (" in out and f"shoal swarm join --token SWMTKN-1-" in out
    assert f" {node.host.ip}:2377" in out
    assert "already part of a swarm" in fails(node, "swarm", "init")
    worker = node.shoal("swarm", "join-token", "-q", "worker").strip()
    manager = node.shoal("swarm", "join-token", "-q", "manager").strip()
    assert worker != manager and worker.split("-")[2] == manager.split("-")[2]
    assert worker in node.shoal("swarm", "join-token", "worker")
    assert "Successfully rotated worker join token." in node.shoal("swarm", "join-token", "--rotate", "worker")
    assert node.shoal("swarm", "join-token", "-q", "worker").strip() != worker
    assert node.shoal("swarm", "join-token", "-q", "manager").strip() == manager
    assert "worker" in fails(node, "swarm", "join-token", "boss", status=125)
    limit = ("swarm", "inspect", "-f", "{{.Spec.Orchestration.TaskHistoryRetentionLimit}}")
    assert node.shoal(*limit).strip() == "3"
    assert node.shoal("swarm", "update", "--task-history-limit", "1", "--cert-expiry", "48h").strip() == "Swarm updated."
    assert node.shoal(*limit).strip() == "1"
    assert "SWMTKN" not in node.shoal("swarm", "inspect")
    fails(node, "swarm", "update", status=125)
    assert "--force" in fails(node, "swarm", "leave")
    assert node.shoal("swarm", "leave", "--force").strip() == "Node left the swarm."


def test_node_commands(manager):
    rows = table(manager.shoal("node", "ls"))
    assert len(rows) == 1 and rows[0]["STATUS"] == "Ready" and rows[0]["MANAGER STATUS"] == "Leader" and rows[0]["ID"].endswith(" *")
    node_id = manager.shoal("node", "ls", "-q").strip()
    assert rows[0]["ID"] == node_id + " *"
    assert manager.shoal("node", "ls", "--filter", "role=worker", "-q") == ""
    assert manager.shoal("node", "inspect", "-f", "{{.ID}} {{.Status.State}}", "self").strip() == node_id + " ready"
    pretty = manager.shoal("node", "inspect", "--pretty", "self")
    assert " Availability:          Active" in pretty and "BEGIN CERTIFICATE" in pretty
    assert manager.shoal("node", "update", "--label-add", "zone=a", "--availability", "drain", node_id).strip() == node_id
    got = json.loads(manager.shoal("node", "inspect", "self"))[0]["Spec"]
    assert got["Labels"] == {"zone": "a"} and got["Availability"] == "drain"
    manager.shoal("node", "update", "--label-rm", "zone", "--availability", "active", node_id)
    assert "has no label" in fails(manager, "node", "update", "--label-rm", "zone", node_id)
    assert "last manager" in fails(manager, "node", "demote", node_id)
    fails(manager, "node", "rm", "--force", node_id)
    assert "not found" in fails(manager, "node", "inspect", "nosuch")


def test_service_life(manager):
    out = manager.shoal("service", "create", "--name", "web", "--replicas", "2", "-p", "8000:8000", "--update-monitor", "100ms",
                        "whoami:latest")
    service = out.splitlines()[0]
    assert "overall progress: 2 out of 2 tasks" in out and f"verify: Service {service} converged" in out
    assert table(manager.shoal("service", "ls")) == [{"ID": service[:12], "NAME": "web", "MODE": "replicated", "REPLICAS": "2/2",
                                                      "IMAGE": "whoami:latest", "PORTS": "*:8000->8000/tcp"}]
    assert manager.shoal("service", "ls", "-q").strip() == service
    assert manager.shoal("service", "ls", "--format", "{{.Name}}:{{.Replicas}}").strip() == "web:2/2"
    assert table(manager.shoal("service", "ls", "--format", "table {{.Name}}\\t{{.Mode}}")) == [{"NAME": "web", "MODE": "replicated"}]
    assert json.loads(manager.shoal("service", "ls", "--format", "json"))["Name"] == "web"
    assert "there is no field .Nope; there are: ID" in fails(manager, "service", "ls", "--format", "{{.Nope}}")
    assert manager.shoal("service", "ls", "--filter", "name=nosuch", "-q") == ""

    rows = table(manager.shoal("service", "ps", "web"))
    assert [r["NAME"] for r in rows] == ["web.1", "web.2"]
    assert all(r["CURRENT STATE"].startswith("Running ") and r["DESIRED STATE"] == "Running" for r in rows)
    assert "no such service: nosuch" in fails(manager, "service", "ps", "nosuch")

    out = manager.shoal("service", "scale", "web=3")
    assert out.startswith("web scaled to 3\n") and "overall progress: 3 out of 3 tasks" in out and "converged" in out
    assert "SERVICE=REPLICAS" in fails(manager, "service", "scale", "web", status=125)
    assert "not found" in fails(manager, "service", "scale", "nosuch=2")

    out = manager.shoal("service", "update", "--env-add", "A=1", "--env-add", "B=2", "--update-parallelism", "0", "web")
    assert out.startswith("web\n") and "converged" in out or "3 out of 3" in out
    assert spec(manager, "web")["TaskTemplate"]["ContainerSpec"]["Env"] == ["A=1", "B=2"]
    manager.wait_running("web", 3)
    history = manager.shoal("service", "ps", "web")
    assert history.count(" \\_ web.") == 3
    assert manager.shoal("service", "ps", "-q", "-f", "desired-state=running", "web").count("\n") == 3

    manager.shoal("service", "update", "-d", "--env-rm", "A", "--replicas", "1", "--publish-rm", "8000", "--publish-add",
                  "8001:8000", "--limit-memory", "32m", "web")
    got = spec(manager, "web")
    assert got["TaskTemplate"]["ContainerSpec"]["Env"] == ["B=2"] and got["Mode"]["Replicated"]["Replicas"] == 1
    assert [p["PublishedPort"] for p in got["EndpointSpec"]["Ports"]] == [8001]
    assert got["TaskTemplate"]["Resources"]["Limits"]["MemoryBytes"] == 32 << 20
    manager.shoal("service", "rollback", "-d", "web")
    assert spec(manager, "web")["TaskTemplate"]["ContainerSpec"]["Env"] == ["A=1", "B=2"]
    manager.shoal("service", "update", "-d", "--force", "web")
    assert spec(manager, "web")["TaskTemplate"]["ForceUpdate"] == 1
    assert manager.shoal("service", "rm", "web").strip() == "web"
    assert "not found" in fails(manager, "service", "rm", "web")
    assert manager.shoal("service", "ls", "-q") == ""


def test_service_flags_arrive(manager):
    """Flags end in the spec, and the spec in the container."""
    manager.load("busybox")
    env_file = os.path.join(manager.host.dir, "env")
    with open(env_file, "w") as f:
        f.write("# a comment\nFROM_FILE=yes\n")
    create(manager, "--name", "all", "--label", "tier=a", "--container-label", "own=b", "-e", "X=1", "--env-file", env_file, "--user",
           "1000:1000", "--workdir", "/tmp", "--hostname", "inside", "--read-only", "--mount", "type=tmpfs,target=/scratch,tmpfs-size=1m",
           "--mount", f"type=bind,source={manager.host.dir},target=/host,readonly", "--limit-memory", "64m", "--limit-pids", "50",
           "--limit-cpu", "0.5", "--ulimit", "nofile=100:200", "--cap-drop", "ALL", "--cap-add", "NET_ADMIN", "--host", "db:10.9.8.7",
           "--stop-signal", "KILL", "--stop-grace-period", "3s", "--restart-condition", "on-failure", "--restart-max-attempts", "2",
           "--constraint", "node.role==manager", "--log-opt", "max-size=1m", "--log-driver", "json-file", "--group", "7", "--init",
           "--dns", "192.0.2.53", "--sysctl", "net.ipv4.ip_unprivileged_port_start=0", "--entrypoint", "sleep", "busybox:latest", "1d")
    manager.wait_running("all", 1)
    box = lines(manager, "ps", "-q")[0]

    def inside(command):
        return manager.shoal("exec", box, "sh", "-c", command).strip()

    assert inside("echo $X $FROM_FILE; pwd; hostname") == "1 yes\n/tmp\ninside"
    assert inside("id -u; id -G; ulimit -n") == "1000\n1000 7\n100"
    assert "10.9.8.7" in inside("cat /etc/hosts") and "192.0.2.53" in inside("cat /etc/resolv.conf")
    assert inside("touch /x 2>/dev/null || echo fixed; touch /scratch/x && echo free; touch /host/x 2>/dev/null || echo fixed") == "fixed\nfree\nfixed"
    assert inside("tr '\\0' ' ' </proc/1/cmdline").split()[0] != "sleep"  # an init
    labels = json.loads(manager.shoal("inspect", "-f", "{{json .Config.Labels}}", box))
    assert labels["own"] == "b" and "tier" not in labels
    pretty = manager.shoal("service", "inspect", "--pretty", "all")
    for part in (" Image:                 busybox:latest", " - tier=a", "  Memory:               64MiB", " Condition:             on-failure",
                 " Constraints:           node.role==manager", " CapabilityAdd:         CAP_NET_ADMIN", "  Type:                 tmpfs"):
        assert part in pretty, part


def test_service_progress_of_failures(manager):
    """What does not come up is told as it happens; Ctrl-C leaves it to the cluster."""
    r = manager.host.popen([SHOAL, "service", "create", "--name", "bad", "whoami:latest", "--no-such-flag"], env=manager.env(),
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: "bad" in manager.shoal("service", "ls"), what="the service")
    time.sleep(0.3)
    r.send_signal(signal.SIGINT)
    out, err = r.communicate(timeout=10)
    assert r.returncode == 130 and "Operation continuing in background." in err
    manager.load("busybox")
    t = Terminal(manager, "service", "create", "--name", "shown", "--replicas", "2", "--update-monitor", "1s", "busybox:latest", "sleep", "1d")
    t.read_until("verify: Waiting 1 seconds")
    assert t.wait() == 0
    assert "2/2: running   [====" in t.text and "converged" in t.text
    out = manager.shoal("service", "create", "-q", "--update-monitor", "10ms", "--name", "quiet", "busybox:latest", "sleep", "1d")
    assert out.count("\n") == 1


def test_update_that_fails_pauses(manager):
    manager.load("busybox")
    create(manager, "--name", "u", "--update-monitor", "500ms", "--restart-condition", "none", "busybox:latest", "sleep", "1d")
    manager.wait_running("u", 1)
    err = fails(manager, "service", "update", "--args", "false", "--entrypoint", "sh -c", "u")
    assert "service update paused: update paused due to failure or early termination of task" in err


def test_service_logs(manager):
    manager.load("busybox")
    create(manager, "--name", "talk", "--replicas", "2", "busybox:latest", "sh", "-c", "echo to-out; echo to-err >&2; sleep 1d")
    manager.wait_running("talk", 2)
    r = wait_for(lambda: (lambda r: r if r.stdout.count("to-out") == 2 and r.stderr.count("to-err") == 2 else None)(
        manager.shoal("service", "logs", "talk", check=False)), what="lines of both tasks")
    names = {line.split("@")[0].rsplit(".", 1)[0] for line in r.stdout.splitlines()}
    assert names == {"talk.1", "talk.2"} and "    | to-out" in r.stdout
    assert manager.shoal("service", "logs", "--raw", "talk").splitlines() == ["to-out", "to-out"]
    assert manager.shoal("service", "logs", "--tail", "0", "talk") == ""
    stamped = manager.shoal("service", "logs", "-t", "talk").splitlines()[0]
    assert stamped.startswith("20") and "Z talk." in stamped
    task = lines(manager, "service", "ps", "-q", "talk")[0]
    assert task[:12] in manager.shoal("service", "logs", task)
    assert task in manager.shoal("service", "logs", "--no-trunc", "talk")
    assert "no such task or service: nosuch" in fails(manager, "service", "logs", "nosuch")
    follower = manager.host.popen([SHOAL, "service", "logs", "-f", "talk"], env=manager.env(), stdout=subprocess.PIPE,
                                  stderr=subprocess.DEVNULL, text=True)
    assert "to-out" in follower.stdout.readline()
    assert "to-out" in follower.stdout.readline()
    follower.kill()
    follower.wait()
    follower.stdout.close()


def test_exec(busybox):
    box = busybox.box
    assert busybox.shoal("exec", box, "echo", "hello") == "hello\n"
    r = busybox.shoal("exec", box, "sh", "-c", "echo out; echo err >&2; exit 7", check=False)
    assert (r.returncode, r.stdout, r.stderr) == (7, "out\n", "err\n")
    assert busybox.shoal("exec", "-e", "A=b", "-w", "/tmp", "-u", "1000", box, "sh", "-c", "echo $A; pwd; id -u") == "b\n/tmp\n1000\n"
    for program, status, part in (("nosuch", 127, "not found"), ("/etc/passwd", 126, "denied")):
        r = busybox.shoal("exec", box, program, check=False)
        assert r.returncode == status and part in r.stdout + r.stderr
    assert "No such container" in fails(busybox, "exec", "nosuch", "ls")
    fails(busybox, "exec", box, status=125)
    data = os.urandom(2_000_000)
    r = subprocess.run([SHOAL, "exec", "-i", box, "cat"], input=data, capture_output=True, env=busybox.env(), timeout=30)
    assert r.returncode == 0 and r.stdout == data
    busybox.shoal("exec", "-d", box, "touch", "/tmp/done")
    wait_for(lambda: busybox.shoal("exec", box, "ls", "/tmp").strip() == "done", what="the detached process")
    # Without a terminal of ours, -t alone is fine, -it is not.
    assert "terminal" in fails(busybox, "exec", "-it", box, "sh", input="", status=125)


def test_exec_on_a_terminal(busybox):
    t = Terminal(busybox, "exec", "-it", busybox.box, "sh")
    t.read_until("# ")
    t.send("stty size\n")
    t.read_until("33 111")
    t.resize(44, 99)
    # The size travels on a connection of its own: it may take a moment.
    for _ in range(50):
        t.send("stty size\n")
        try:
            t.read_until("44 99", timeout=0.3)
            break
        except AssertionError:
            continue
    t.read_until("44 99")
    t.send("sleep 100\n")
    wait_for(lambda: "sleep 100" in busybox.shoal("top", busybox.box), what="the process")
    t.send("\x03")  # Ctrl-C is the process's, not ours
    t.send("echo $((6*7))\n")
    t.read_until("42")
    t.send("exit 5\n")
    assert t.wait() == 5


def test_containers(busybox):
    box = busybox.box
    row = table(busybox.shoal("ps"))[0]
    assert row["CONTAINER ID"] == box and row["IMAGE"] == "busybox:latest" and row["STATUS"].startswith("Up ")
    assert row["COMMAND"] == '"sleep 1d"' and row["NAMES"].startswith("box.1.")
    assert busybox.shoal("ps", "--format", '{{.Label "com.docker.swarm.service.name"}} {{.State}}').strip() == "box running"
    assert len(lines(busybox, "ps", "-q", "--no-trunc")[0]) == 64
    assert "label" in busybox.shoal("ps", "--help")
    assert busybox.shoal("inspect", "-f", "{{.State.Status}} {{.ID}}", box).startswith("running " + box)
    assert busybox.shoal("inspect", "--type", "service", "-f", "{{.Spec.Name}}", "box").strip() == "box"
    r = busybox.shoal("inspect", "nosuch", check=False)
    assert r.returncode == 1 and r.stdout == "[]\n" and "No such object: nosuch" in r.stderr
    assert "sleep 1d" in busybox.shoal("top", box)
    titles = table(busybox.shoal("top", box, "-o", "pid,args"))
    assert titles and set(titles[0]) == {"PID", "COMMAND"}
    stats = table(busybox.shoal("stats", "--no-stream"))
    assert len(stats) == 1 and stats[0]["CONTAINER ID"] == box and stats[0]["CPU %"].endswith("%") and int(stats[0]["PIDS"]) >= 1
    assert busybox.shoal("stats", "--no-stream", "--format", "{{.Name}}", box).startswith("box.1.")
    assert "No such container" in fails(busybox, "stats", "--no-stream", "nosuch")

    waiter = busybox.host.popen([SHOAL, "wait", box], env=busybox.env(), stdout=subprocess.PIPE, text=True)
    assert busybox.shoal("kill", "-s", "TERM", "nosuch", check=False).returncode == 1
    assert busybox.shoal("kill", box).strip() == box
    assert waiter.communicate(timeout=20)[0].strip() == "137"
    other = wait_for(lambda: [i for i in lines(busybox, "ps", "-q") if i != box], what="the replacement")[0]
    assert box in lines(busybox, "ps", "-aq")
    assert busybox.shoal("stop", "-t", "0", other).strip() == other
    rows = table(busybox.shoal("service", "ps", "--no-trunc", "box"))
    assert any("non-zero exit (137)" in r["ERROR"] for r in rows)


def test_container_logs(busybox):
    create(busybox, "--name", "say", "busybox:latest", "sh", "-c", "echo one; echo two >&2; sleep 1d")
    busybox.wait_running("say", 1)
    say = lines(busybox, "ps", "-q", "--filter", "label=com.docker.swarm.service.name=say")[0]
    r = wait_for(lambda: (lambda r: r if r.stdout and r.stderr else None)(busybox.shoal("logs", say, check=False)), what="its lines")
    assert (r.stdout, r.stderr) == ("one\n", "two\n")
    assert busybox.shoal("logs", "--since", "0s", say) == ""
    assert busybox.shoal("logs", "-t", say).endswith("Z one\n")
    assert "not a time" in fails(busybox, "logs", "--since", "yesterday", say)
    assert "--tail" in fails(busybox, "logs", "--tail", "some", say)


def test_images(node):
    assert node.shoal("image", "load", "-i", image_archive("whoami")).strip() == "Loaded image: whoami:latest"
    with open(image_archive("busybox"), "rb") as f:
        r = subprocess.run([SHOAL, "load"], stdin=f, capture_output=True, text=True, env=node.env(), timeout=30)
    assert "Loaded image: busybox:latest" in r.stdout
    rows = {r["REPOSITORY"]: r for r in table(node.shoal("images"))}
    assert set(rows) == {"whoami", "busybox"} and rows["whoami"]["TAG"] == "latest" and rows["whoami"]["SIZE"].endswith("B")
    node.shoal("tag", "whoami", "who:2")
    assert node.shoal("image", "ls", "--format", "{{.Repository}}:{{.Tag}}", "who").strip() == "who:2"
    assert "whoami:latest" in json.loads(node.shoal("image", "inspect", "who:2"))[0]["RepoTags"]
    assert node.shoal("rmi", "who:2").strip() == "Untagged: who:2"
    assert "No such image" in fails(node, "rmi", "who:2")
    out = node.shoal("image", "prune", "-af")
    assert "Deleted: sha256:" in out and "Total reclaimed space: " in out
    assert node.shoal("image", "ls", "-q") == ""
    assert "cannot open /nosuch: No such file" in fails(node, "load", "-i", "/nosuch")
    bad = os.path.join(node.host.dir, "bad.tar")
    with open(bad, "wb") as f:
        f.write(b"no archive at all " * 10000)
    assert "Error" in fails(node, "load", "-i", bad)


@needs_registry
def test_registry(manager):
    registry = Registry(manager.host, user="me", password="s3cret/+?")
    registry.push("whoami", "private/app:1")
    name = f"127.0.0.1:{registry.port}/private/app:1"
    err = fails(manager, "pull", name)
    assert "Error" in err
    import base64
    with open(os.path.join(manager.docker_config, "config.json"), "w") as f:
        auth = base64.b64encode(b"me:s3cret/+?").decode()
        json.dump({"auths": {f"127.0.0.1:{registry.port}": {"auth": auth}}}, f)
    out = manager.shoal("pull", name)
    assert "Pulling from" in out and "Status: Downloaded newer image" in out and out.endswith(name + "\n")
    assert "Status: Image is up to date" in manager.shoal("image", "pull", name)
    service = create(manager, "--name", "app", "--with-registry-auth", name)
    manager.wait_running("app", 1)
    # The digest that the tag stood for is in the spec.
    assert spec(manager, service)["TaskTemplate"]["ContainerSpec"]["Image"].startswith(name + "@sha256:")
    assert table(manager.shoal("service", "ls"))[0]["IMAGE"] == name
    with open(os.path.join(manager.docker_config, "config.json"), "w") as f:
        json.dump({"credHelpers": {f"127.0.0.1:{registry.port}": "pass"}}, f)
    assert "credential helper" in fails(manager, "pull", name)


def test_system(manager):
    assert "Version:      " in manager.shoal("version")
    assert manager.shoal("version", "-f", "{{.Client.Version}} {{.Server.Version}}").split()[0]
    assert " Swarm: active" in manager.shoal("info")
    assert manager.shoal("info", "--format", "{{.Swarm.LocalNodeState}} {{.NCPU}}").split()[0] == "active"
    assert [r["TYPE"] for r in table(manager.shoal("system", "df"))] == ["Images", "Containers", "Local Volumes"]
    names = {r["NAME"]: r for r in table(manager.shoal("network", "ls"))}
    assert {"bridge", "host", "none"} <= set(names)
    assert json.loads(manager.shoal("network", "inspect", "bridge"))[0]["Name"] == "bridge"
    assert manager.shoal("volume", "ls").split() == ["DRIVER", "VOLUME", "NAME"]


def test_events(manager):
    watcher = manager.host.popen([SHOAL, "events", "--filter", "type=service", "--format", "{{.Action}} {{.Actor.Attributes.name}}"],
                                 env=manager.env(), stdout=subprocess.PIPE, text=True)
    # Events before it listens are not seen: go on until one is.
    made = iter(range(100))

    def seen():
        create(manager, "--name", f"e{next(made)}", "--replicas", "0", "whoami:latest")
        return select.select([watcher.stdout], [], [], 0.2)[0]

    wait_for(seen, what="an event")
    assert watcher.stdout.readline().startswith("create e")
    watcher.kill()
    watcher.wait()
    watcher.stdout.close()
    past = manager.shoal("events", "--since", "5m", "--until", "0s", "--filter", "event=create")
    assert " service create " in past and "(name=e" in past


@pytest.mark.parametrize("kind", ["config", "secret"])
def test_configs_and_secrets(manager, kind):
    made = manager.shoal(kind, "create", "-l", "stage=test", "greeting", "-", input="hello\n").strip()
    assert manager.shoal(kind, "ls", "-q").strip() == made
    row = table(manager.shoal(kind, "ls"))[0]
    assert row["NAME"] == "greeting" and row["CREATED"].endswith(" ago")
    pretty = manager.shoal(kind, "inspect", "--pretty", "greeting")
    assert " - stage=test" in pretty and ("hello" in pretty) == (kind == "config")
    assert manager.shoal(kind, "inspect", "-f", "{{.Spec.Name}}", made).strip() == "greeting"
    path = os.path.join(manager.host.dir, "file")
    with open(path, "w") as f:
        f.write("x" * 2_000_000)
    assert "too large" in fails(manager, kind, "create", "big", path)
    assert "already exists" in fails(manager, kind, "create", "greeting", "-", input="x")
    assert manager.shoal(kind, "rm", "greeting").strip() == "greeting"
    assert manager.shoal(kind, "ls", "-q") == ""


def test_mistakes(node):
    assert "did you mean --replicas?" in fails(node, "service", "create", "--replcas", "1", "x", status=125)
    assert "See 'shoal service create --help'." in fails(node, "service", "create", status=125)
    assert "is not a command" in fails(node, "frobnicate", status=125)
    assert "Is shoald running?" in fails(node, "-H", "unix:///nosuch.sock", "ps")
    assert "is not understood" in fails(node, "-H", "ssh://host", "ps")
    assert "Cannot connect to the Shoal daemon at tcp://127.0.0.1:1" in fails(node, "-H", "tcp://127.0.0.1:1", "ps")
    env = {k: v for k, v in node.env().items() if k != "SHOAL_HOST"}
    assert "Client:" in run(SHOAL, "version", env=env).stdout  # by DOCKER_HOST
    env["SHOAL_HOST"] = "unix:///nosuch.sock"
    assert run(SHOAL, "ps", env=env, check=False).returncode == 1


def test_help_of_every_command(node):
    """Help names every flag, has an example, and ends with 0; the examples parse."""

    def walk(path):
        r = run(SHOAL, *path, "--help")
        assert r.stderr == "" and "Usage: shoal" in r.stdout and "Examples:" in r.stdout and "--help" in r.stdout, path
        subs, on = [], False
        for line in r.stdout.splitlines():
            if line in ("Commands:", "Command groups:"):
                on = True
            elif not line.startswith("  "):
                on = False
            elif on and line[2] != " ":
                subs.append(line.split()[0])
        return 1 + sum(walk([*path, s]) for s in subs)

    assert walk([]) > 70


def test_completion(busybox):
    def candidates(*words):
        return [line.split("\t")[0] for line in busybox.shoal("__complete", *words).splitlines()]

    assert "service" in candidates("") and "swarm" in candidates("sw") and "__complete" not in candidates("")
    assert candidates("service", "cr") == ["create"]
    assert "--replicas" in candidates("service", "create", "--re")
    assert candidates("service", "create", "--mode", "glo") == ["global", "global-job"]
    assert candidates("service", "create", "--mode=replicated-") == ["--mode=replicated-job"]
    assert candidates("service", "rm", "") == ["box"]
    assert candidates("service", "create", "bus") == ["busybox:latest"]
    assert candidates("kill", "") == [busybox.box]
    assert candidates("image", "load", "-i", "") == [":file"]
    assert candidates("-H", "unix:///nosuch.sock", "service", "rm", "") == []
    script = f"source <({SHOAL} completion bash); COMP_WORDS=(shoal service upd); COMP_CWORD=2; COMP_LINE='shoal service upd'; " \
             "COMP_POINT=${#COMP_LINE}; _shoal; echo \"${COMPREPLY[@]}\""
    env = {**busybox.env(), "PATH": f"{BUILD}:{os.environ['PATH']}"}
    assert run("bash", "-c", script, env=env).stdout.strip() == "update"
    script = script.replace("shoal service upd", "shoal service create --mode=glob").replace("COMP_CWORD=2", "COMP_CWORD=5").replace(
        "COMP_WORDS=(shoal service create --mode=glob)", "COMP_WORDS=(shoal service create --mode = glob)")
    assert run("bash", "-c", script, env=env).stdout.split() == ["global", "global-job"]
    assert "compdef" in busybox.shoal("completion", "zsh")


def test_start_up_is_quick():
    """No heavy libraries: they would cost more than most commands take."""
    libraries = run("ldd", SHOAL).stdout
    for heavy in ("libcurl", "libssl", "libcrypto", "libprotobuf", "libnghttp2"):
        assert heavy not in libraries
