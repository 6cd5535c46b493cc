"""A node under faults: clients that create, scale, update and remove services all at once, containers and their monitors
killed from outside, and the daemon killed with SIGKILL again and again. When the faults stop, what is declared and what
is there must be the same within a deadline, with nothing left over and no acknowledged write lost.

CHAOS_SECONDS (default 25) is how long the faults last, CHAOS_SEED replays the decisions of a run (each actor decides
from a generator of its own; how their steps interleave is up to the machine). The seed is printed.
"""
import collections
import http.client
import os
import random
import signal
import threading
import time

from census import Census, api, sanitizer_reports
from shoaltest import BUILD, children, wait_for

SECONDS = float(os.environ.get("CHAOS_SECONDS", "25"))
CLIENTS = 3
NO_ANSWER = (OSError, http.client.HTTPException)
SETTLE = 90 if "asan" in BUILD else 45


class Chaos:
    def __init__(self, node, seed):
        self.node, self.seed = node, seed
        self.stop = threading.Event()
        self.log, self.errors = [], []
        self.counts = collections.Counter()
        self.t0 = time.monotonic()
        self.lock = threading.Lock()
        self.marks = os.path.join(node.host.dir, "marks")
        self.container_of = {}  # task -> container ids ever seen for it
        self.restart_ms, self.stop_ms = [], []
        os.mkdir(self.marks)
        os.chmod(self.marks, 0o777)

    def rng(self, who):
        return random.Random(f"{self.seed}/{who}")

    def say(self, who, what):
        with self.lock:
            self.log.append(f"{time.monotonic() - self.t0:8.3f} {who}: {what}")
            self.counts[what.split()[0]] += 1

    def actor(self, fn, who, *args):
        def body():
            try:
                while not self.stop.is_set():
                    fn(who, *args)
            except BaseException as e:  # noqa: BLE001
                self.errors.append(f"{who}: {e!r}")
                self.stop.set()
        t = threading.Thread(target=body, name=who)
        t.start()
        return t

    def spec(self, name, gen, replicas, port):
        s = {"Name": name, "Labels": {"gen": str(gen)},
             "TaskTemplate": {
                 "ContainerSpec": {
                     "Image": "busybox:latest", "Env": [f"GEN={gen // 2}"],
                     "Command": ["sh", "-c", "trap 'exit 0' TERM; : > /marks/$(hostname).$(cat /proc/sys/kernel/random/uuid); "
                                             "sleep 1000 & wait"],
                     "StopGracePeriod": 2_000_000_000,
                     "Mounts": [{"Type": "bind", "Source": self.marks, "Target": "/marks"}]},
                 "RestartPolicy": {"Condition": "any", "Delay": 100_000_000, "MaxAttempts": 0}},
             "Mode": {"Replicated": {"Replicas": replicas}},
             "UpdateConfig": {"Parallelism": 0, "Monitor": 100_000_000, "FailureAction": "continue", "MaxFailureRatio": 1},
             "RollbackConfig": {"Parallelism": 0, "Monitor": 100_000_000}}
        if port:
            s["EndpointSpec"] = {"Ports": [{"Protocol": "tcp", "TargetPort": 80, "PublishedPort": port}]}
        return s

    def look_up(self, name, until_stop=True):
        """(state, service): state is (gen, replicas) or None. Waits for a daemon that answers."""
        deadline = time.monotonic() + 60
        while True:
            try:
                code, s = api(self.node, "GET", "/services/" + name)
                if code == 200:
                    return (int(s["Spec"]["Labels"]["gen"]), s["Spec"]["Mode"]["Replicated"]["Replicas"]), s
                if code == 404:
                    return None, None
                why = (code, s)
            except NO_ANSWER as e:
                why = e
            if until_stop and self.stop.is_set():
                return "stopped", None
            assert time.monotonic() < deadline, f"no answer about {name} for 60 s: {why}"
            time.sleep(0.01)

    def attempt(self, who, what, *request):
        """True: acknowledged. False: refused, or nobody knows."""
        try:
            code, body = api(self.node, *request)
        except NO_ANSWER as e:
            if isinstance(e, TimeoutError):
                raise AssertionError(f"{what}: no answer within 20 s") from e
            self.say(who, f"{what} -> no answer")
            return False
        self.say(who, f"{what} -> {code}")
        if code >= 500 and code != 503 and "update out of sequence" not in str(body) and "cancelled" not in str(body):
            raise AssertionError(f"{what}: {code} {body}")
        return code in (200, 201, 204)


class Client:
    """Owns some services and configs; knows for each which states are possible by what was acknowledged."""

    def __init__(self, chaos, k):
        self.c, self.who, self.k = chaos, f"client{k}", k
        self.rng = chaos.rng(self.who)
        self.services = {f"s{k}-{i}": [None] for i in range(3)}
        self.configs = {f"c{k}-{i}": [False] for i in range(5)}
        self.gen = 0

    def settle(self, name, until_stop=True):
        state, s = self.c.look_up(name, until_stop)
        if state != "stopped":
            assert state in self.services[name], f"acknowledged write lost: {name} is {state}, possible were {self.services[name]}"
            self.services[name] = [state]
        return state, s

    def step(self, who):
        if self.rng.random() < 0.3:
            self.config_step()
        else:
            self.service_step()
        time.sleep(self.rng.random() * 0.15)

    def config_step(self):
        name = self.rng.choice(sorted(self.configs))
        have = self.config_settle(name)
        if have == "stopped":
            return
        if have:
            ok = self.c.attempt(self.who, f"remove-config {name}", "DELETE", "/configs/" + name)
        else:
            ok = self.c.attempt(self.who, f"create-config {name}", "POST", "/configs/create", {"Name": name, "Data": "eA=="})
        self.configs[name] = [not have] if ok else [True, False]

    def config_settle(self, name, until_stop=True):
        while True:
            try:
                code, _ = api(self.c.node, "GET", "/configs/" + name)
            except NO_ANSWER:
                code = 0
            if code in (200, 404):
                have = code == 200
                assert have in self.configs[name], f"acknowledged write lost: config {name} is {have}, not {self.configs[name]}"
                self.configs[name] = [have]
                return have
            if until_stop and self.c.stop.is_set():
                return "stopped"
            time.sleep(0.01)

    def service_step(self):
        name = self.rng.choice(sorted(self.services))
        what, replicas = self.rng.choice(["scale", "scale", "update", "label", "remove"]), self.rng.randint(0, 4)
        state, s = self.settle(name)
        if state == "stopped":
            return
        self.gen += 2
        port = 7000 + 10 * self.k + int(name[-1]) if name[-1] != "0" else 0
        if state is None:
            new = (self.gen, replicas)
            ok = self.c.attempt(self.who, f"create {name} {new}", "POST", "/services/create", self.c.spec(name, *new, port))
        elif what == "remove":
            new = None
            ok = self.c.attempt(self.who, f"remove {name}", "DELETE", "/services/" + name)
        else:
            # An odd generation changes a label only, and must disturb no container.
            gen = self.gen if what == "update" else state[0] | 1 if what == "label" else state[0]
            new = (gen, replicas if what == "scale" else state[1])
            ok = self.c.attempt(self.who, f"{what} {name} {new}", "POST", f"/services/{name}/update?version={s['Version']['Index']}",
                                self.c.spec(name, *new, port))
        self.services[name] = [new] if ok else [state, new]


def kill_containers(chaos, rng):
    def step(who):
        time.sleep(rng.random() * 0.5)
        what, pick = rng.choice(["kill", "kill-process", "kill-monitor", "term"]), rng.random()
        monitors = sorted(chaos.node.conmons())
        if not monitors:
            return
        pid = monitors[int(pick * len(monitors))]
        if what in ("kill", "term"):
            try:
                code, cs = api(chaos.node, "GET", "/containers/json")
                for c in cs if code == 200 else []:
                    with chaos.lock:
                        chaos.container_of.setdefault(c["Labels"]["com.docker.swarm.task.id"], set()).add(c["Id"])
                if code == 200 and cs:
                    c = sorted(cs, key=lambda x: x["Names"][0])[int(pick * len(cs))]
                    code, _ = api(chaos.node, "POST", f"/containers/{c['Id']}/kill?signal={'KILL' if what == 'kill' else 'TERM'}")
                    chaos.say(who, f"{what} {c['Names'][0]} -> {code}")
            except NO_ANSWER:
                pass
            return
        victims = children(pid) if what == "kill-process" else [pid]
        for v in victims:
            try:
                os.kill(v, signal.SIGKILL)
                chaos.say(who, f"{what} {v}")
            except ProcessLookupError:
                pass
    return step


def kill_daemon(chaos, rng):
    def step(who):
        wait, hard, pause = rng.uniform(0.05, 2.5), rng.random() < 0.8, rng.choice([0, 0, 0.3])
        chaos.stop.wait(wait)
        if chaos.node.proc.poll() is not None:
            raise AssertionError(f"shoald ended by itself with {chaos.node.proc.returncode}")
        t = time.monotonic()
        if hard:
            chaos.say(who, "SIGKILL shoald")
            chaos.node.kill9()
        else:
            chaos.say(who, "SIGTERM shoald")
            code = chaos.node.terminate()
            ms = (time.monotonic() - t) * 1000
            chaos.stop_ms.append(ms)
            assert code == 0, f"shoald ended with {code} on SIGTERM"
        time.sleep(pause)
        t = time.monotonic()
        chaos.node.start()
        chaos.restart_ms.append((time.monotonic() - t) * 1000)
    return step


def test_faults_stop_and_everything_is_as_declared(manager):
    seed = os.environ.get("CHAOS_SEED") or str(random.SystemRandom().randrange(1 << 32))
    print(f"CHAOS_SEED={seed}")
    manager.load("busybox")
    chaos = Chaos(manager, seed)
    clients = [Client(chaos, k) for k in range(CLIENTS)]
    threads = [chaos.actor(c.step, c.who) for c in clients]
    threads += [chaos.actor(kill_containers(chaos, chaos.rng("killer")), "killer"),
                chaos.actor(kill_daemon(chaos, chaos.rng("reaper")), "reaper")]
    chaos.stop.wait(SECONDS)
    chaos.stop.set()
    for t in threads:
        t.join()
    try:
        check(manager, chaos, clients)
    except BaseException:
        print("\n".join(chaos.log))
        raise


def check(node, chaos, clients):
    assert not chaos.errors, chaos.errors
    assert chaos.node.proc.poll() is None
    services = {}
    for c in clients:
        for name in c.services:
            state, _ = c.settle(name, until_stop=False)
            if state:
                services[name] = state[1]
        for name in c.configs:
            c.config_settle(name, until_stop=False)
    started = [m.split(".")[0] for m in os.listdir(chaos.marks)]
    census = Census(node, started)

    def none(what):
        last = []

        def look():
            last[:] = census.problems(services)
            return not last
        try:
            wait_for(look, SETTLE, what, interval=0.1)
        except AssertionError:
            raise AssertionError(f"{what}: still\n  " + "\n  ".join(last)) from None

    t = time.monotonic()
    none("as declared after the faults")
    settled = time.monotonic() - t
    pids = {c["Id"]: c["Names"] for c in census.containers().values() if c["State"] == "running"}
    # A container's program leaves one mark each time it is started; a task has one container.
    twice = [i for i, n in collections.Counter(m.split(".")[0] for m in os.listdir(chaos.marks)).items() if n > 1]
    assert not twice, f"containers {twice} were started more than once"
    assert all(len(ids) == 1 for ids in chaos.container_of.values()), chaos.container_of
    # The records on disk are the same: a daemon that reads them again finds nothing to do.
    assert node.terminate() == 0
    node.start()
    none("as declared after a restart")
    assert pids == {c["Id"]: c["Names"] for c in census.containers().values() if c["State"] == "running"}
    for name in list(services):
        assert api(node, "DELETE", "/services/" + name)[0] == 200
        del services[name]
    none("nothing after the removal of all services")
    started = set(m.split(".")[0] for m in os.listdir(chaos.marks))
    assert node.terminate() == 0
    assert not census.links() and not census.leftovers(set(), set())
    assert not sanitizer_reports(node)
    print(f"chaos: {SECONDS:.0f} s, {dict(chaos.counts)}, {len(started)} containers, settled in {settled:.1f} s; "
          f"restart max {max(chaos.restart_ms, default=0):.0f} ms; planned stop max {max(chaos.stop_ms, default=0):.0f} ms")
    node.start()
