"""Nothing grows: memory, descriptors, control groups and directories after many containers and many objects.

SOAK_CYCLES (default 200) containers are started and stopped, SOAK_CONFIGS (default 4000) configs created and removed.
What counts is the second half: the first one fills caches.
"""
import os
import threading

from census import Census, api, cpu_ms, open_files, rss_kib
from shoaltest import BUILD, wait_for

CYCLES = int(os.environ.get("SOAK_CYCLES", "200"))
CONFIGS = int(os.environ.get("SOAK_CONFIGS", "4000"))
AT_ONCE = 20
# A sanitizer keeps freed memory in quarantine.
SANITIZED = "asan" in BUILD


def quiet(node):
    """Descriptors when nothing is under way."""
    wait_for(lambda: not node.conmons(), what="no container")
    last = []

    def same():
        last.append(sum(open_files(node.proc.pid).values()))
        return len(last) > 5 and len(set(last[-5:])) == 1

    wait_for(same, what="descriptors that stay the same", interval=0.1)
    return open_files(node.proc.pid)


def test_containers_leave_no_growth(manager):
    manager.load("busybox")
    spec = {"Name": "cycle", "TaskTemplate": {"ContainerSpec": {"Image": "busybox:latest", "Command": ["sleep", "1000"], "StopSignal": "KILL"}},
            "Mode": {"Replicated": {"Replicas": 0}}, "EndpointSpec": {"Ports": [{"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 8000}]}}
    assert api(manager, "POST", "/services/create", spec)[0] == 201
    pid = manager.proc.pid

    def scale(n):
        spec["Mode"]["Replicated"]["Replicas"] = n
        while True:  # the manager writes to services, too
            _, s = api(manager, "GET", "/services/cycle")
            code, body = api(manager, "POST", f"/services/cycle/update?version={s['Version']['Index']}", spec)
            if code == 200:
                break
            assert "update out of sequence" in body["message"], body
        if n:
            wait_for(lambda: len([t for t in api(manager, "GET", "/tasks")[1] if t["Status"]["State"] == "running"]) == n,
                     60, f"{n} tasks")
        else:
            wait_for(lambda: not api(manager, "GET", "/containers/json?all=1")[1], 60, "no container")

    def rounds(n):
        for _ in range(n):
            scale(AT_ONCE)
            scale(0)

    n = max(CYCLES // AT_ONCE, 4)
    rounds(n // 2)
    files, rss, cpu = quiet(manager), rss_kib(pid), cpu_ms(pid)
    rounds(n - n // 2)
    after, rss_after = quiet(manager), rss_kib(pid)
    done = (n - n // 2) * AT_ONCE
    print(f"soak: {done} containers: rss {rss} -> {rss_after} KiB ({(rss_after - rss) * 1024 / done:.0f} bytes each), "
          f"{sum(files.values())} -> {sum(after.values())} descriptors, {(cpu_ms(pid) - cpu) / done:.1f} ms of shoald each")
    assert sum(after.values()) <= sum(files.values()) + 2, after - files
    if not SANITIZED:
        # Raft's log is in memory until the next snapshot: some KiB a container, at most 8 MiB.
        assert rss_after - rss < min(1024 + 4 * done, 12 * 1024)
    assert not Census(manager).leftovers(set(), set())


def test_objects_leave_no_growth(manager):
    pid = manager.proc.pid
    errors = []

    def client(k, n):
        try:
            for i in range(n):
                code, c = api(manager, "POST", "/configs/create", {"Name": f"c{k}-{i}", "Data": "eHh4" * 50})
                assert code == 201, c
                code, body = api(manager, "DELETE", "/configs/" + c["ID"])
                assert code == 204, body
        except Exception as e:  # noqa: BLE001
            errors.append(repr(e))

    def go(n):
        threads = [threading.Thread(target=client, args=(k, n // 4)) for k in range(4)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert not errors, errors

    go(CONFIGS // 2)
    files, rss, cpu = quiet(manager), rss_kib(pid), cpu_ms(pid)
    go(CONFIGS // 2)
    after, rss_after = quiet(manager), rss_kib(pid)
    done = CONFIGS // 2
    disk = sum(os.path.getsize(os.path.join(d, f)) for d, _, fs in os.walk(manager.data_root) for f in fs)
    print(f"soak: {done} configs: rss {rss} -> {rss_after} KiB ({(rss_after - rss) * 1024 / done:.0f} bytes each), "
          f"{sum(files.values())} -> {sum(after.values())} descriptors, {(cpu_ms(pid) - cpu) / done * 1000:.0f} us each, "
          f"{disk >> 20} MiB on disk")
    assert sum(after.values()) <= sum(files.values()) + 2, after - files
    if not SANITIZED:
        assert rss_after - rss < min(1024 + done // 2, 12 * 1024)
    assert disk < 200 << 20
