"""kill -9 of the daemon disturbs no container and loses no acknowledged write; what happened meanwhile is reported truly."""
import json
import os
import signal
import subprocess
import threading

from shoaltest import children, wait_for


def container_of(task):
    return task["Status"]["ContainerStatus"]["ContainerID"]


def test_containers_live_through_kill_9(manager):
    manager.docker("service", "create", "--name", "web", "--replicas", "3", "-p", "8000:8000", "whoami:latest")
    before = {container_of(t): t["Status"]["ContainerStatus"]["PID"] for t in manager.wait_running("web", 3)}
    manager.kill9()
    for pid in before.values():
        os.kill(pid, 0)
    # The data plane goes on without the daemon.
    assert "ostname" in manager.host.curl(f"http://{manager.host.ip}:8000/")
    manager.start()
    after = {container_of(t): t["Status"]["ContainerStatus"]["PID"] for t in manager.wait_running("web", 3)}
    assert after == before
    assert "ostname" in manager.host.curl(f"http://{manager.host.ip}:8000/")
    # And is in its hands again.
    manager.docker("service", "scale", "--detach", "web=4")
    assert before.keys() <= {container_of(t) for t in manager.wait_running("web", 4)}


def test_exit_while_the_daemon_is_down(manager):
    manager.load("busybox")
    manager.docker("service", "create", "--name", "job", "--restart-condition", "none", "--detach", "busybox:latest", "sh", "-c",
                   "trap 'exit 7' USR1; while :; do sleep 0.1; done")
    (task,) = manager.wait_running("job", 1)
    pid = task["Status"]["ContainerStatus"]["PID"]
    manager.kill9()
    os.kill(pid, signal.SIGUSR1)
    wait_for(lambda: not os.path.exists(f"/proc/{pid}"), what="the container's end")
    manager.start()

    def ended():
        status, t = manager.api("GET", "/tasks/" + task["ID"])
        return t if status == 200 and t["Status"]["State"] == "failed" else None

    t = wait_for(ended, what="the task's true end")
    assert t["Status"]["ContainerStatus"]["ExitCode"] == 7 and "non-zero exit (7)" in t["Status"]["Err"]


def test_no_acknowledged_write_is_lost(manager):
    """Clients create configs as fast as they can; the daemon is killed again and again; what was answered 201 is there."""
    acknowledged, lock, stop = [], threading.Lock(), threading.Event()

    def writer(k):
        i = 0
        while not stop.is_set():
            name = f"c{k}-{i}"
            i += 1
            code, body = manager.api("POST", "/configs/create", {"Name": name, "Data": "eA=="}, timeout=5)
            if code == 201:
                with lock:
                    acknowledged.append((name, body["ID"]))

    threads = [threading.Thread(target=writer, args=(k,)) for k in range(8)]
    for t in threads:
        t.start()
    try:
        for round_ in range(8):
            seen = len(acknowledged)
            wait_for(lambda: len(acknowledged) >= seen + 25 + 17 * round_, what="writes under way")
            manager.kill9()
            manager.start()
            wait_for(lambda: manager.api("GET", "/configs")[0] == 200, what="a manager that answers")
    finally:
        stop.set()
        for t in threads:
            t.join()
    code, configs = manager.api("GET", "/configs")
    assert code == 200
    have = {c["Spec"]["Name"]: c["ID"] for c in configs}
    missing = [n for n, id_ in acknowledged if have.get(n) != id_]
    assert not missing, f"{len(missing)} of {len(acknowledged)} acknowledged writes are gone: {missing[:5]}"
    assert len(acknowledged) > 200


def test_second_daemon_is_refused(manager):
    r = subprocess.run(manager.host.inside(*[a if a != "unix://" + manager.socket else "unix://" + manager.socket + "2" for a in manager.argv()]),
                       capture_output=True, text=True, timeout=20)
    assert r.returncode == 1 and "another shoald (pid" in r.stderr and manager.data_root in r.stderr


def test_planned_restart_keeps_everything(manager):
    manager.docker("service", "create", "--name", "web", "--replicas", "2", "whoami:latest")
    before = {container_of(t) for t in manager.wait_running("web", 2)}
    node_id = json.loads(manager.docker("info", "--format", "{{json .Swarm}}"))["NodeID"]
    assert manager.terminate() == 0
    manager.start()
    assert {container_of(t) for t in manager.wait_running("web", 2)} == before
    assert json.loads(manager.docker("info", "--format", "{{json .Swarm}}"))["NodeID"] == node_id
    # conmon and the container's process are the same as before, one each.
    assert len(manager.conmons()) == 2 and all(len(children(p)) == 1 for p in manager.conmons())
