"""What a node has in the kernel and on disk, against what it says it has: nothing may be missing, nothing may be left.

    c = Census(node, ids)      ids: container ids (or their first 12 digits) that ever were; others on this machine are
                               not looked at
    c.problems(services)       a list of sentences; empty when reality is as declared. services: name -> replicas
"""
import collections
import glob
import hashlib
import http.client
import json
import os
import socket
import subprocess
import urllib.parse

from shoaltest import children, run


class UnixHTTP(http.client.HTTPConnection):
    """An HTTP connection to a unix socket."""

    def __init__(self, path, timeout):
        super().__init__("shoal", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def api(node, method, path, body=None, timeout=20):
    """(status, decoded body). OSError or HTTPException when there was no answer: what was asked may have happened or not."""
    c = UnixHTTP(node.socket, timeout)
    try:
        c.request(method, path, body=None if body is None else json.dumps(body), headers={"Content-Type": "application/json"})
        r = c.getresponse()
        text = r.read()
    finally:
        c.close()
    try:
        return r.status, json.loads(text) if text else None
    except ValueError:
        return r.status, text.decode(errors="replace")


def rss_kib(pid):
    with open(f"/proc/{pid}/status") as f:
        return int(next(line for line in f if line.startswith("VmRSS")).split()[1])


def open_files(pid):
    """What kinds of descriptors a process has, counted."""
    kinds = collections.Counter()
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            target = os.readlink(f"/proc/{pid}/fd/{fd}")
        except OSError:
            continue
        kinds[target if target.startswith("/") else target.split(":")[0]] += 1
    return kinds


def _names(path):
    try:
        return os.listdir(path)
    except FileNotFoundError:
        return []


class Census:
    def __init__(self, node, ids=()):
        self.node = node
        self.ids = set(i[:12] for i in ids)
        self.tag = hashlib.sha256(node.data_root.encode()).hexdigest()[:4]
        self.cgroups = [d for d in glob.glob("/sys/fs/cgroup/*/shoal") + ["/sys/fs/cgroup/shoal"] if os.path.isdir(d)]

    def conmons(self):
        """Container id -> pids of its monitors (not of execs)."""
        found = collections.defaultdict(list)
        for p in self.node.conmons():
            try:
                with open(f"/proc/{p}/cmdline", "rb") as f:
                    argv = f.read().decode().split("\0")
            except OSError:
                continue
            if "-c" in argv and "-e" not in argv:
                found[argv[argv.index("-c") + 1]].append(p)
        return found

    def processes_of_containers(self):
        """Container id -> pids in its control group."""
        found = collections.defaultdict(set)
        for base in self.cgroups:
            for d in glob.glob(base + "/*/cgroup.procs"):
                id_ = d.split("/")[-2]
                if id_[:12] in self.ids:
                    try:
                        with open(d) as f:
                            found[id_] |= {int(x) for x in f.read().split()}
                    except OSError:
                        pass
        return found

    def links(self):
        r = run("ip", "-n", self.node.host.name, "-j", "link", check=False)
        return [x["ifname"] for x in json.loads(r.stdout or "[]") if x["ifname"].startswith(f"sh{self.tag}")]

    def chains(self):
        r = run("nsenter", f"--net=/run/netns/{self.node.host.name}", "nft", "-j", "list", "chains", check=False)
        out = [x["chain"]["name"] for x in json.loads(r.stdout or '{"nftables":[]}')["nftables"] if "chain" in x
               and x["chain"]["table"] == f"shoal_{self.tag}"]
        return [c for c in out if c.startswith(("tcp-", "udp-"))]

    def mounts(self):
        with open("/proc/self/mountinfo") as f:
            points = [line.split()[4] for line in f]
        return [p for p in points if p.startswith(self.node.host.dir + "/")]

    def containers(self):
        code, cs = api(self.node, "GET", "/containers/json?all=1")
        assert code == 200, (code, cs)
        self.ids |= {c["Id"][:12] for c in cs}
        return {c["Id"]: c for c in cs}

    def problems(self, services):
        n, bad = self.node, []
        code, tasks = api(n, "GET", "/tasks")
        code2, have = api(n, "GET", "/services")
        if code != 200 or code2 != 200:
            return [f"the manager answers {code} {tasks}"]
        names = {s["ID"]: s["Spec"]["Name"] for s in have}
        if set(names.values()) != set(services):
            bad.append(f"services are {sorted(names.values())}, not {sorted(services)}")
        wanted = {}
        for t in tasks:
            state, service = t["Status"]["State"], names.get(t["ServiceID"], t["ServiceID"])
            if t["ServiceID"] not in names:
                bad.append(f"task {t['ID']} of a service that is gone is {state}")
            elif state == "running" and t["DesiredState"] == "running":
                wanted.setdefault(service, []).append(t)
            elif t["DesiredState"] == "running" or state not in ("complete", "shutdown", "failed", "rejected", "orphaned"):
                bad.append(f"task {t['ID']} of {service} is {state}, should be {t['DesiredState']}: {t['Status'].get('Err', '')}")
        for name, replicas in services.items():
            if len(wanted.get(name, [])) != replicas:
                bad.append(f"{name} has {len(wanted.get(name, []))} running tasks, not {replicas}")
            slots = [t.get("Slot") for t in wanted.get(name, [])]
            if len(set(slots)) != len(slots):
                bad.append(f"{name} has two tasks in a slot: {slots}")
        all_ = self.containers()
        running = {i for i, c in all_.items() if c["State"] == "running"}
        of_tasks = {t["Status"]["ContainerStatus"]["ContainerID"]: t["ID"] for ts in wanted.values() for t in ts}
        if running != set(of_tasks):
            bad.append(f"containers {sorted(i[:12] for i in running ^ set(of_tasks))} run without a running task, or the other way round")
        known = {t["ID"] for t in tasks}
        per_task = collections.Counter()
        for i, c in all_.items():
            task = c["Labels"].get("com.docker.swarm.task.id")
            per_task[task] += 1
            if task not in known:
                bad.append(f"container {i[:12]} ({c['State']}) belongs to task {task}, which is gone")
        bad += [f"task {t} has {k} containers" for t, k in per_task.items() if k > 1]
        bad += self.leftovers(set(all_), running)
        published = {p["PublishedPort"] for s in have for p in s["Spec"].get("EndpointSpec", {}).get("Ports", [])
                     if p.get("PublishMode", "ingress") == "ingress"}
        chains = {int(c.split("-")[1]) for c in self.chains()}
        if published != chains:
            bad.append(f"packet filter has chains of ports {sorted(chains)}, services publish {sorted(published)}")
        if sorted(_names(n.exec_root + "/net/s")) != sorted(s["ID"] for s in have if s["Spec"].get("EndpointSpec", {}).get("Ports")):
            bad.append(f"the network remembers services {sorted(_names(n.data_root + '/net/s'))}")
        return bad

    def leftovers(self, records, running):
        """What the kernel and the disk have; `records` and `running` are the ids that should be."""
        n, bad = self.node, []
        monitors = self.conmons()
        for i in running:
            pids = monitors.get(i, [])
            if len(pids) != 1 or len(children(pids[0])) != 1:
                bad.append(f"container {i[:12]} has monitors {pids} with children {[children(p) for p in pids]}")
        bad += [f"monitor {p} of {i[:12]}, which does not run" for i, p in monitors.items() if i not in running]

        def same(what, found, expected):
            found, expected = set(found), set(expected)
            if found - expected:
                bad.append(f"{what} too much: {sorted(x[:24] for x in found - expected)}")
            if expected - found:
                bad.append(f"{what} missing: {sorted(x[:20] for x in expected - found)}")

        same("directories of containers", _names(n.data_root + "/containers"), records)
        same("bundles", _names(n.exec_root + "/containers"), running)
        same("runtime state", [x for x in _names(n.exec_root + "/runtime") if not x.startswith(".")], running)
        same("exit files", _names(n.exec_root + "/exits"), [])
        same("execs", _names(n.exec_root + "/execs"), [])
        same("probes", [x for x in _names(n.exec_root) if x.startswith("probe-")], [])
        same("network records", _names(n.exec_root + "/net/c"), running)
        netns = _names(n.exec_root + "/netns")
        if len(netns) != len(running):
            bad.append(f"{len(netns)} network namespaces for {len(running)} containers")
        mounts = [m for m in self.mounts() if m != n.data_root and m != n.exec_root]
        if len(mounts) > len(running) + 1:
            bad.append(f"{len(mounts)} mounts: {mounts}")
        links = [x for x in self.links() if "-" in x]
        if len(links) != len(running):
            bad.append(f"{len(links)} links for {len(running)} containers: {links}")
        for id_, pids in self.processes_of_containers().items():
            if id_ not in running:
                bad.append(f"control group of {id_[:12]}, which does not run, with processes {sorted(pids)}")
        return bad


def cpu_ms(pid):
    """Processor time that a process has used."""
    with open(f"/proc/{pid}/stat") as f:
        v = f.read().rsplit(")", 1)[1].split()
    return (int(v[11]) + int(v[12])) * 1000 // os.sysconf("SC_CLK_TCK")


def sanitizer_reports(node):
    """The parts of the log that a sanitizer wrote."""
    return [p for p in node.log_text().split("\n") if "ERROR: AddressSanitizer" in p or "ERROR: LeakSanitizer" in p or "runtime error:" in p]


def query(**kw):
    return urllib.parse.urlencode(kw)


__all__ = ["Census", "api", "rss_kib", "open_files", "cpu_ms", "sanitizer_reports", "query", "subprocess"]
