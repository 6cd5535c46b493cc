"""A node on Debian 12's own kernel with control groups v2, in a virtual machine: what the machine that runs the tests cannot show
when it has another kernel or another layout."""
import contextlib
import json
import os
import re
import time
import urllib.request

import pytest
import vm as machine
from shoaltest import wait_for

MB = 1 << 20


@pytest.fixture(scope="module")
def initrd(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("vm") / "initrd")
    if not os.path.exists(machine.QEMU):
        pytest.skip(f"{machine.QEMU} is not installed")
    try:
        machine.initramfs(path)
    except machine.Unavailable as e:
        pytest.skip(str(e))
    yield path
    os.unlink(path)


@contextlib.contextmanager
def guest(initrd, runtimes=("crun", "runc"), **kw):
    """A shoald that serves, alone in a virtual machine."""
    vm = machine.VM(initrd, **kw)
    n = machine.GuestNode(vm)
    try:
        for r in {"crun", "runc"} - set(runtimes):
            vm.run(f"rm $(which {r})")
        yield n.start()
    except BaseException:
        print("--- console\n" + vm.console()[-4000:])
        with contextlib.suppress(Exception):
            print("--- shoald's log\n" + vm.run(f"tail -c 12000 {n.log_path}", check=False, timeout=5)[1])
        raise
    finally:
        n.close()
        vm.close()


_start = time.monotonic()


def step(what):
    print(f"PASS {time.monotonic() - _start:6.1f} s  {what}", flush=True)


def container_of(task):
    return task["Status"]["ContainerStatus"]["ContainerID"]


def pids_of(tasks):
    return {container_of(t): t["Status"]["ContainerStatus"]["PID"] for t in tasks}


def answers(vm, n):
    """Host names of n answers of the published port, and the client's addresses that the containers saw."""
    names, clients = set(), set()
    for _ in range(n):
        with urllib.request.urlopen(f"http://127.0.0.1:{vm.port}/", timeout=10) as r:
            text = r.read().decode()
        names.add(re.search(r"(?im)^hostname: *(\S+)", text).group(1))
        clients.add(re.search(r"(?im)^remoteaddr: *([\d.]+)", text).group(1))
    return names, clients


def test_systemd(initrd):
    """Debian 12 as it is: shoald as a unit, control groups v2, both runtimes installed."""
    with guest(initrd) as n:
        check_choice(n, "crun", "v2")
        tasks = deploy(n, 3)
        check_ports(n.vm, 3)
        check_limits(n.vm, tasks, "v2")
        check_life(n, tasks, "v2")
        check_oom(n)
        check_restart(n, tasks)
        check_stop(n, n.wait_running("web", 3))
        check_end(n)


@pytest.mark.parametrize("cgroups,runtime", [("v2", "runc"), ("v1", "crun")])
def test_without_systemd(initrd, cgroups, runtime):
    with guest(initrd, init="sh", cgroups=cgroups, runtimes=[runtime]) as n:
        check_choice(n, runtime, cgroups)
        tasks = deploy(n, 2)
        check_ports(n.vm, 2)
        check_limits(n.vm, tasks, cgroups)
        check_life(n, tasks, cgroups)
        check_oom(n)
        check_end(n)


def check_choice(n, runtime, cgroups):
    """Which runtime, and what the node says of itself."""
    chosen = re.search(r"runtime chosen name=(\S+) cgroups=(\S+)", n.log_text())
    assert chosen and chosen.groups() == (runtime, cgroups), n.log_text()
    info = n.api("GET", "/info")[1]
    assert info["CgroupVersion"] == cgroups[1] and info["KernelVersion"].startswith("6.1."), info
    assert info["MemoryLimit"] and info["PidsLimit"] and info["CpuCfsQuota"] and info["SwapLimit"], info
    step(f"starts, chooses {runtime} on control groups {cgroups}")


def deploy(n, replicas):
    n.init()
    n.load("whoami")
    n.load("busybox")
    n.docker("service", "create", "--name", "web", "--detach", "--replicas", replicas, "-p", "8000:8000", "--limit-memory", "32m",
             "--limit-cpu", "0.5", "--limit-pids", "20", "whoami:latest")
    tasks = n.wait_running("web", replicas, timeout=60)
    step(f"{replicas} replicas run")
    return tasks


def check_ports(vm, replicas):
    names, clients = wait_for(lambda: (lambda a: a if len(a[0]) == replicas else None)(answers(vm, 12)), 30, "answers of every replica")
    assert clients == {machine.HOST_ADDRESS}
    for address in ("127.0.0.1", machine.ADDRESS):
        assert "ostname" in vm.run(f"printf 'GET / HTTP/1.0\\r\\n\\r\\n' | socat -t10 - TCP:{address}:8000")
    step("the published port reaches every replica, from outside and inside, with the client's address")


# Controller, file, value for 32 MiB of memory and no swap, half a processor, 20 processes.
LIMITS = {
    "v2": {("", "memory.max"): str(32 * MB), ("", "memory.swap.max"): "0", ("", "cpu.max"): "50000 100000", ("", "pids.max"): "20"},
    "v1": {("memory", "memory.limit_in_bytes"): str(32 * MB), ("memory", "memory.memsw.limit_in_bytes"): str(32 * MB),
           ("cpu,cpuacct", "cpu.cfs_quota_us"): "50000", ("pids", "pids.max"): "20"},
}


def check_limits(vm, tasks, cgroups):
    for cid, pid in pids_of(tasks).items():
        for (controller, name), value in LIMITS[cgroups].items():
            d = f"/sys/fs/cgroup/{controller}/shoal/{cid}"
            assert vm.read(f"{d}/{name}") == value, name
            assert str(pid) in vm.read(f"{d}/cgroup.procs").split()
    step("limits are in the control groups")


def check_life(n, tasks, cgroups):
    """exec, stats, top, pause of one container."""
    n.docker("service", "create", "--name", "sleeper", "--detach", "busybox:latest", "sh", "-c", "while :; do sleep 0.2; done")
    cid = container_of(n.wait_running("sleeper", 1, timeout=60)[0])
    assert n.docker("exec", "-i", cid, "cat", input="through stdin\n") == "through stdin\n"
    r = n.docker("exec", cid, "sh", "-c", "echo out; exit 42", check=False)
    assert (r.returncode, r.stdout) == (42, "out\n")
    if cgroups == "v2":  # its own group is the root of what it sees
        assert n.docker("exec", cid, "cat", "/proc/self/cgroup").strip() == "0::/"
        assert "memory.max" in n.docker("exec", cid, "ls", "/sys/fs/cgroup")
        assert n.docker("exec", cid, "sh", "-c", "echo 1 >/sys/fs/cgroup/pids.max", check=False).returncode != 0
    stats = n.api("GET", f"/containers/{cid}/stats?stream=false", timeout=60)[1]
    assert stats["cpu_stats"]["cpu_usage"]["total_usage"] > 0 and stats["memory_stats"]["usage"] > 0 and stats["pids_stats"]["current"] > 0
    assert stats["cpu_stats"]["system_cpu_usage"] > 0 and stats["memory_stats"]["stats"]
    assert stats["networks"]["eth0"]["rx_bytes"] >= 0
    limited = n.api("GET", f"/containers/{container_of(tasks[0])}/stats?stream=false", timeout=60)[1]
    assert limited["memory_stats"]["limit"] == 32 * MB and limited["pids_stats"]["limit"] == 20
    assert limited["networks"]["eth0"]["rx_bytes"] > 0 and limited["networks"]["eth0"]["tx_bytes"] > 0
    assert "sleep 0.2" in n.docker("top", cid)
    n.docker("pause", cid)
    assert json.loads(n.docker("inspect", cid))[0]["State"]["Status"] == "paused"
    n.docker("unpause", cid)
    assert n.docker("exec", cid, "echo", "on").strip() == "on"
    n.docker("service", "rm", "sleeper")
    step("exec, stats, top and pause work")


def check_oom(n):
    n.docker("service", "create", "--name", "eater", "--detach", "--restart-condition", "none", "--limit-memory", "24m", "busybox:latest",
             "tail", "/dev/zero")

    def ended():
        tasks = [t for t in n.api("GET", "/tasks")[1] if t["Status"]["State"] in ("failed", "complete")]
        return tasks[0] if tasks else None

    t = wait_for(ended, 60, "the eater's end", interval=0.2)
    c = json.loads(n.docker("inspect", container_of(t)))[0]
    assert c["State"]["OOMKilled"] and c["State"]["ExitCode"] == 137 and t["Status"]["State"] == "failed", (t, c["State"])
    assert "out of memory" in t["Status"]["Err"], t["Status"]
    n.docker("service", "rm", "eater")
    step(f"an OOM kill is told: {t['Status']['Err']}")


def check_restart(n, tasks):
    before = pids_of(tasks)
    n.kill9()
    assert len(answers(n.vm, 6)[0]) == 3, "the data plane goes on without the daemon"
    n.start()
    assert pids_of(n.wait_running("web", 3, timeout=60)) == before
    step("containers live through kill -9 of the daemon")
    n.vm.run(f"kill -9 {list(before.values())[0]}")
    after = wait_for(lambda: (lambda p: p if len(p) == 3 and p != before else None)(pids_of(n.running("web"))), 60, "a replacement", interval=0.2)
    assert len(before.keys() & after.keys()) == 2
    wait_for(lambda: len(answers(n.vm, 6)[0]) == 3, 30, "the replacement behind the port")
    step("a killed container is replaced")


def check_stop(n, tasks):
    """A planned stop leaves containers and their limits as they are; the unit can be started again."""
    before = pids_of(tasks)
    n.terminate()
    n.vm.run("systemctl daemon-reload")
    check_limits(n.vm, tasks, "v2")
    assert len(answers(n.vm, 6)[0]) == 3
    n.start()
    assert pids_of(n.wait_running("web", 3, timeout=60)) == before
    step("containers live through a stop and start of the unit")


def check_end(n):
    n.docker("service", "rm", "web")
    wait_for(lambda: n.api("GET", "/containers/json?all=1")[1] == [], 60, "the containers' end", interval=0.2)
    n.docker("swarm", "leave", "--force")
    n.terminate()
    left = n.vm.run("find /sys/fs/cgroup -type d -path '*/shoal/*'; grep /var/lib/shoal/ /proc/mounts; ip -o link | grep shoal; "
                    "ps -e | grep -E '[c]onmon|[w]hoami'", check=False)[1]
    assert left == ""
    step("nothing is left")
