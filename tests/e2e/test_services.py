"""Services beyond the walk: rolling updates, rollback, restart policies, constraints, history, ports, logs."""
import json
import re

import pytest
from shoaltest import table, wait_for


def inspect(node, service):
    return json.loads(node.docker("service", "inspect", service))[0]


def test_rolling_update_and_rollback(manager):
    manager.docker("service", "create", "--name", "web", "--replicas", "3", "--update-delay", "0s", "--update-monitor", "100ms",
                   "--rollback-monitor", "100ms", "--env", "A=1", "whoami:latest")
    first = {t["ID"] for t in manager.wait_running("web", 3)}
    manager.docker("service", "update", "--env-add", "B=2", "web")  # returns when UpdateStatus says completed
    second = {t["ID"] for t in manager.wait_running("web", 3)}
    assert not first & second
    s = inspect(manager, "web")
    assert s["UpdateStatus"]["State"] == "completed" and s["UpdateStatus"]["Message"] == "update completed"
    assert s["PreviousSpec"]["TaskTemplate"]["ContainerSpec"]["Env"] == ["A=1"]
    manager.docker("service", "rollback", "web")
    wait_for(lambda: inspect(manager, "web")["Spec"]["TaskTemplate"]["ContainerSpec"]["Env"] == ["A=1"], what="the old spec")
    assert len(manager.wait_running("web", 3)) == 3


def test_labels_and_scale_disturb_no_task(manager):
    manager.docker("service", "create", "--name", "web", "--replicas", "2", "--detach", "whoami:latest")
    before = {t["ID"] for t in manager.wait_running("web", 2)}
    manager.docker("service", "update", "--detach", "--label-add", "x=y", "web")
    manager.docker("service", "scale", "--detach", "web=3")
    after = {t["ID"] for t in manager.wait_running("web", 3)}
    assert before < after and "UpdateStatus" not in inspect(manager, "web")


def test_failed_update_pauses(manager):
    manager.docker("service", "create", "--name", "web", "--replicas", "2", "--detach", "whoami:latest")
    manager.wait_running("web", 2)
    r = manager.docker("service", "update", "--args", "-no-such-flag", "--update-monitor", "1s", "web", check=False)
    assert r.returncode == 1 and "service update paused" in r.stderr + r.stdout
    assert inspect(manager, "web")["UpdateStatus"]["State"] == "paused"


@pytest.mark.parametrize("condition,code,restarts", [("none", 3, False), ("on-failure", 0, False), ("any", 0, True)])
def test_restart_condition(manager, condition, code, restarts):
    manager.load("busybox")
    manager.docker("service", "create", "--name", "job", "--detach", "--restart-condition", condition, "--restart-delay", "10ms",
                   "--restart-max-attempts", "2", "busybox:latest", "sh", "-c", f"exit {code}")

    def tasks():
        return [t for t in manager.api("GET", "/tasks")[1] if t["Status"]["State"] in ("complete", "failed")]

    wait_for(lambda: len(tasks()) == (3 if restarts else 1), what="the tasks of the policy")
    assert all(t["Status"]["ContainerStatus"]["ExitCode"] == code for t in tasks())


def test_history_keeps_five(manager):
    manager.load("busybox")
    manager.docker("service", "create", "--name", "job", "--detach", "--restart-delay", "1ms", "busybox:latest", "sh", "-c", "exit 1")

    def newest():
        return max(t["CreatedAt"] for t in manager.api("GET", "/tasks")[1])

    seen = set()
    wait_for(lambda: (seen.add(newest()), len(seen) > 12)[1], what="many restarts")
    wait_for(lambda: len(manager.api("GET", "/tasks")[1]) <= 6, what="the history's limit")
    manager.docker("service", "rm", "job")
    wait_for(lambda: manager.api("GET", "/tasks")[1] == [], what="no task left")


def test_placement_says_why_not(manager):
    manager.docker("service", "create", "--name", "nowhere", "--detach", "--constraint", "node.labels.rack==7", "whoami:latest")
    manager.docker("service", "create", "--name", "huge", "--detach", "--reserve-memory", "900g", "whoami:latest")
    wait_for(lambda: "no suitable node (scheduling constraints not satisfied on 1 node)" in manager.docker(
        "service", "ps", "--no-trunc", "nowhere"), what="the constraint's reason")
    wait_for(lambda: "no suitable node (insufficient resources on 1 node)" in manager.docker("service", "ps", "--no-trunc", "huge"),
             what="the reservation's reason")
    me = json.loads(manager.docker("info", "--format", "{{json .Swarm}}"))["NodeID"]
    manager.docker("node", "update", "--label-add", "rack=7", me)
    manager.wait_running("nowhere", 1)
    manager.docker("node", "update", "--availability", "drain", me)
    wait_for(lambda: manager.running("nowhere") == [], what="a drained node")
    manager.docker("node", "update", "--availability", "active", me)
    manager.wait_running("nowhere", 1)


def test_ports_keep_the_clients_address(manager):
    h = manager.host
    manager.docker("service", "create", "--name", "web", "--replicas", "2", "--detach", "-p", "8000:8000",
                   "-p", "mode=host,published=9000,target=8000", "whoami:latest", check=False)
    # Two replicas cannot have one host port on one node: one waits and says why.
    wait_for(lambda: "host-mode port already in use on 1 node" in manager.docker("service", "ps", "--no-trunc", "web"), what="the reason")
    manager.docker("service", "scale", "--detach", "web=1")
    manager.wait_running("web", 1)
    for port in (8000, 9000):
        wait_for(lambda p=port: "ostname" in h.curl(f"http://{h.ip}:{p}/"), what=f"port {port} from outside")
        assert h.client_ip in h.curl(f"http://{h.ip}:{port}/")
        assert "ostname" in h.curl(f"http://127.0.0.1:{port}/", where="inside")
        assert "ostname" in h.curl(f"http://{h.ip}:{port}/", where="inside")
    taken = manager.docker("service", "create", "--name", "other", "--detach", "-p", "8000:80", "whoami:latest", check=False)
    assert taken.returncode == 1 and "port '8000' is already in use by service 'web'" in taken.stderr


def test_logs_follow_and_tail(manager):
    manager.load("busybox")
    manager.docker("service", "create", "--name", "talk", "--detach", "busybox:latest", "sh", "-c",
                   "for i in 1 2 3 4 5; do echo line $i; done; echo oops >&2; exec sleep 1000")
    manager.wait_running("talk", 1)
    wait_for(lambda: "line 5" in manager.docker("service", "logs", "talk"), what="the lines")
    r = manager.docker("service", "logs", "--raw", "--tail", "2", "talk", check=False)
    assert r.stdout + r.stderr and r.stdout.splitlines()[-1:] == ["line 5"] and "oops" in r.stderr
    r = manager.docker("service", "logs", "--timestamps", "talk", check=False)
    assert re.search(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z talk\.1\.\w+@\S+ +\| line 1", r.stdout)
    c = table(manager.docker("ps"))[0]["CONTAINER ID"]
    assert manager.docker("logs", c).splitlines() == [f"line {i}" for i in range(1, 6)]


def test_global_service(manager):
    manager.docker("service", "create", "--name", "agent", "--mode", "global", "whoami:latest")
    assert table(manager.docker("service", "ls"))[0]["REPLICAS"] == "1/1"


def test_health_check_gates_running(manager):
    manager.load("busybox")
    manager.docker("service", "create", "--name", "slow", "--detach", "--health-cmd", "test -e /tmp/ok", "--health-interval", "200ms",
                   "--health-retries", "1000", "busybox:latest", "sh", "-c", "sleep 1; touch /tmp/ok; exec sleep 1000")
    wait_for(lambda: "Starting" in manager.docker("service", "ps", "slow"), what="a task that starts")
    manager.wait_running("slow", 1)
    assert "(healthy)" in manager.docker("ps")


def test_templates(manager):
    manager.load("busybox")
    bad = manager.docker("service", "create", "--name", "bad", "--detach", "--env", "A={{.Nope}}", "busybox:latest", check=False)
    assert bad.returncode == 1 and "Nope" in bad.stderr
    manager.docker("service", "create", "--name", "t", "--detach", "--hostname", "{{.Service.Name}}-{{.Task.Slot}}", "--label", "a=b",
                   "--env", "N={{.Node.Hostname}}", "--env", 'L={{index .Service.Labels "a"}}', "busybox:latest", "sh", "-c",
                   "hostname; echo $N $L; exec sleep 1000")
    (task,) = manager.wait_running("t", 1)
    node = manager.api("GET", "/nodes")[1][0]["Description"]["Hostname"]
    wait_for(lambda: manager.docker("service", "logs", "--raw", "t").splitlines() == ["t-1", node + " b"], what="the expanded values")
    assert task["Spec"]["ContainerSpec"]["Hostname"] == "{{.Service.Name}}-{{.Task.Slot}}"
