"""Every field of a service's ContainerSpec, seen from inside the container; and what a node does with a bad one."""
import base64
import json
import shutil

import pytest
import shoaltest
from shoaltest import wait_for


@pytest.fixture
def busybox(node):
    node.init()
    node.load("busybox")
    return node


def create(node, name, task=None, status=201, **container):
    spec = {"Name": name, "TaskTemplate": {"ContainerSpec": {"Image": "busybox", **container}, "RestartPolicy": {"Condition": "none"}, **(task or {})}}
    code, answer = node.api("POST", "/services/create", spec)
    assert code == status, answer
    return answer.get("message") or answer["ID"]


def tasks(node, name):
    return node.api("GET", "/tasks?filters=" + shoaltest.json_filter(service=[name]))[1]


def ended(node, name):
    """The only task of a service when it is at its end."""
    def check():
        t = tasks(node, name)[0]
        return t if t["Status"]["State"] in ("complete", "failed", "rejected") else None
    return wait_for(check, what=f"the end of {name}")


def output(node, name, script, task=None, **container):
    """What a shell script says in a container with these fields."""
    create(node, name, task, Command=["sh", "-c", script], **container)
    t = ended(node, name)
    text = node.docker("service", "logs", "--raw", name)
    assert t["Status"]["State"] == "complete", (t["Status"], text)
    return text


def test_process(busybox):
    node = busybox
    text = output(node, "process", "id; pwd; env; cat /proc/self/oom_score_adj; grep -E '^(NoNewPrivs|Seccomp|CapBnd|PPid):' /proc/self/status; "
                  "cat /proc/self/limits; cat /proc/sys/net/core/somaxconn /proc/sys/net/ipv4/ip_unprivileged_port_start",
                  User="1000:2000", Groups=["3000"], Dir="/tmp/made/here", Env=["A=1", "B=x y", "EMPTY=", "GONE", "PATH=/bin"],
                  OomScoreAdj=123, Init=True, Privileges={"NoNewPrivileges": True, "Seccomp": {"Mode": "unconfined"}},
                  CapabilityAdd=["CAP_NET_ADMIN"], CapabilityDrop=["CAP_CHOWN"], Sysctls={"net.core.somaxconn": "1024"},
                  Ulimits=[{"Name": "nofile", "Soft": 100, "Hard": 200}, {"Name": "core", "Soft": -1, "Hard": -1}])
    lines = text.splitlines()
    assert lines[0] == "uid=1000 gid=2000 groups=2000,3000" and lines[1] == "/tmp/made/here"
    assert {"A=1", "B=x y", "EMPTY=", "PATH=/bin", "HOME=/"} < set(lines) and not any(line.startswith("GONE") for line in lines)
    values = {k: v for k, _, v in (line.partition(":\t") for line in lines)}
    assert values["NoNewPrivs"] == "1" and values["Seccomp"] == "0" and values["PPid"] != "0"
    caps = int(values["CapBnd"], 16)
    assert caps >> 12 & 1 and not caps & 1  # NET_ADMIN, CHOWN
    assert "123" in lines and lines[-2:] == ["1024", "0"]
    assert any(line.split()[:5] == ["Max", "open", "files", "100", "200"] for line in lines)
    assert any(line.split()[:6] == ["Max", "core", "file", "size", "unlimited", "unlimited"] for line in lines)


def test_defaults_of_the_process(node):
    """What a container is without a word in its spec does not depend on what the daemon is."""
    node.terminate()
    argv = node.argv
    node.argv = lambda: ["choom", "-n", "300", "--", *argv()]
    node.start()
    node.init()
    node.load("busybox")
    text = output(node, "defaults", "cat /proc/self/oom_score_adj; grep -E '^(CapBnd|Seccomp|NoNewPrivs):' /proc/self/status; mount")
    lines = text.splitlines()
    assert lines[:4] == ["0", "CapBnd:\t00000000a80425fb", "NoNewPrivs:\t0", "Seccomp:\t2"]
    shown = {line.split()[2]: line for line in lines[4:]}
    assert "(ro," in shown["/sys"] and "(ro," in shown["/proc/sys"] and "nosuid" in shown["/dev/shm"]


def test_names_and_files(busybox):
    node = busybox
    text = output(node, "names", "hostname; cat /etc/hosts; cat /etc/resolv.conf; mount", Hostname="{{.Service.Name}}-{{.Task.Slot}}",
                  Hosts=["1.2.3.4 foo bar", "::1 six"], ReadOnly=True,
                  DNSConfig={"Nameservers": ["9.9.9.9"], "Search": ["example.com"], "Options": ["timeout:3"]})
    lines = text.splitlines()
    assert lines[0] == "names-1" and "1.2.3.4\tfoo bar" in lines and "::1\tsix" in lines and any(line.endswith("\tnames-1") for line in lines)
    assert {"nameserver 9.9.9.9", "search example.com", "options timeout:3"} < set(lines)
    shown = {line.split()[2]: line for line in lines if " on /" in line}
    for read_only in ("/", "/etc/hosts", "/etc/resolv.conf", "/etc/hostname"):
        assert "(ro," in shown[read_only], shown[read_only]
    assert "(rw," in shown["/dev/shm"]


def test_templates(busybox):
    node = busybox
    label = {"Name": "tmpl", "Labels": {"k": "v"}, "TaskTemplate": {"RestartPolicy": {"Condition": "none"}, "ContainerSpec": {
        "Image": "busybox", "Command": ["env"], "Env": ['T={{join "-" .Service.Name .Task.Slot (index .Service.Labels "k")}}', "N={{.Node.Hostname}}"]}}}
    assert node.api("POST", "/services/create", label)[0] == 201
    ended(node, "tmpl")
    lines = node.docker("service", "logs", "--raw", "tmpl").splitlines()
    assert "T=tmpl-1-v" in lines and "N=" + node.docker("info", "-f", "{{.Name}}").strip() in lines
    assert "Hostname" in create(node, "bad1", status=400, Hostname="{{.Node.Nope}}")
    assert "Env" in create(node, "bad2", status=400, Env=["A={{.Node"])


def test_mounts(busybox):
    node = busybox
    text = output(node, "mounts", "mount; touch /limited/x; head -c 2000000 /dev/zero > /limited/y; ls -l /limited/y; touch /host/x || echo refused",
                  Mounts=[{"Type": "tmpfs", "Target": "/limited", "TmpfsOptions": {"SizeBytes": 1 << 20, "Mode": 0o700}},
                          {"Type": "tmpfs", "Target": "/readonly", "ReadOnly": True},
                          {"Type": "bind", "Source": node.host.dir, "Target": "/host", "ReadOnly": True}])
    shown = {line.split()[2]: line for line in text.splitlines() if " on /" in line}
    assert "size=1024k" in shown["/limited"] and "mode=700" in shown["/limited"] and "(ro," in shown["/readonly"]
    assert "1048576" in text and "refused" in text


def test_limits(busybox):
    node = busybox
    limits = {"Resources": {"Limits": {"MemoryBytes": 20 << 20, "NanoCPUs": 500000000, "Pids": 4}}}
    create(node, "oom", limits, Command=["sh", "-c", "tail /dev/zero"])
    t = ended(node, "oom")
    assert t["Status"]["Err"] == "task: non-zero exit (137): out of memory" and t["Status"]["ContainerStatus"]["ExitCode"] == 137
    assert json.loads(node.docker("inspect", t["Status"]["ContainerStatus"]["ContainerID"]))[0]["State"]["OOMKilled"]
    create(node, "forks", limits, Command=["sh", "-c", "for i in 1 2 3 4 5 6; do sleep 9 & done; wait"])
    assert "non-zero exit" in ended(node, "forks")["Status"]["Err"]
    assert "can't fork" in node.docker("service", "logs", "--raw", "forks", check=False).stderr


def test_seccomp(busybox):
    node = busybox
    profile = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]}
    custom = {"Seccomp": {"Mode": "custom", "Profile": base64.b64encode(json.dumps(profile).encode()).decode()}}
    assert "refused" in output(node, "custom", "mkdir /x || echo refused; unshare -U true", Privileges=custom)
    assert "refused" in output(node, "default", "mkdir /x; unshare -U true || echo refused")


def test_all_capabilities(busybox):
    text = output(busybox, "caps", "grep CapEff /proc/self/status", CapabilityAdd=["ALL"])
    with open("/proc/self/status") as f:
        own = next(line for line in f if line.startswith("CapBnd"))
    assert text.split()[1] == own.split()[1]
    assert output(busybox, "none", "grep CapEff /proc/self/status", CapabilityDrop=["ALL"]).split()[1].strip("0") == ""


@pytest.mark.parametrize("name,fields,words", [
    ("user", {"User": "nosuch"}, "unable to find user nosuch"),
    ("group", {"Groups": ["nosuch"]}, "unable to find group nosuch"),
    ("program", {"Command": ["/nosuch"]}, "/nosuch"),
    ("directory", {"Command": ["/etc"]}, 'exec: "/etc": '),
    ("dir", {"Dir": "etc"}, "'etc' is invalid"),
    ("bind", {"Mounts": [{"Type": "bind", "Source": "/nosuch/x", "Target": "/x"}]}, "bind source path does not exist: /nosuch/x"),
    ("sysctl", {"Sysctls": {"kernel.panic": "1"}}, "kernel.panic"),
    ("capability", {"CapabilityAdd": ["CAP_NOPE"]}, "CAP_NOPE"),
    ("ulimit", {"Ulimits": [{"Name": "nope", "Soft": 1, "Hard": 1}]}, "nope"),
    ("seccomp", {"Privileges": {"Seccomp": {"Mode": "custom", "Profile": "Z2FyYmFnZQ=="}}}, "seccomp"),
    ("image", {"Image": "127.0.0.1:1/none"}, "No such image: 127.0.0.1:1/none:latest: "),
])
def test_bad_ones(busybox, name, fields, words):
    create(busybox, name, **{"Command": ["true"], **fields})
    t = ended(busybox, name)
    assert t["Status"]["State"] in ("rejected", "failed") and words in t["Status"]["Err"], t["Status"]
    # 20.10's table has the same words.
    assert t["Status"]["Err"] in busybox.docker("service", "ps", "--no-trunc", name)


def test_another_runtime_after_a_restart(node):
    """A container belongs to the runtime that made it: exec and health checks go on."""
    if shutil.which("crun") is None or shutil.which("runc") is None:
        pytest.skip("it takes two runtimes: scripts/deps --install test")
    node.terminate()
    node.flags = ["--runtime", "crun"]
    node.start()
    node.init()
    node.load("busybox")
    create(node, "a", Command=["sleep", "1000"])
    node.wait_running("a", 1)
    cid = node.docker("ps", "-q").strip()
    for runtime in ("runc", "crun"):
        node.terminate()
        node.flags = ["--runtime", runtime]
        node.start()
        assert node.docker("exec", cid, "echo", "here").strip() == "here"
        assert node.docker("inspect", "-f", "{{.HostConfig.Runtime}}", cid).strip() == "crun"
