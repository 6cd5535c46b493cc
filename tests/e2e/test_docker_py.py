"""Debian's docker-py: swarm, services, tasks, logs, events, objects."""
import time

import pytest
from shoaltest import wait_for

docker = pytest.importorskip("docker")


@pytest.fixture
def client(manager):
    manager.load("busybox")
    c = docker.DockerClient(base_url="unix://" + manager.socket)
    yield c
    c.close()


def running(service):
    return [t for t in service.tasks() if t["Status"]["State"] == t["DesiredState"] == "running"]


def test_swarm_and_nodes(client):
    assert client.swarm.attrs["Spec"]["Name"] == "default"
    client.swarm.update(task_history_retention_limit=7)
    client.swarm.reload()
    assert client.swarm.attrs["Spec"]["Orchestration"]["TaskHistoryRetentionLimit"] == 7
    (node,) = client.nodes.list(filters={"role": "manager"})
    node.update({**node.attrs["Spec"], "Labels": {"x": "y"}})
    node.reload()
    assert node.attrs["Spec"]["Labels"] == {"x": "y"}


def test_services(client):
    types = docker.types
    s = client.services.create(
        "busybox", ["sh", "-c", "echo hello; sleep 1000"], name="py", env=["A=1"], labels={"l": "1"}, container_labels={"c": "1"},
        constraints=["node.role==manager"], preferences=[("spread", "node.labels.x")], maxreplicas=5, platforms=[("amd64", "linux"), ("arm64", "linux")],
        endpoint_spec=types.EndpointSpec(ports={8100: 80}), mode=types.ServiceMode("replicated", replicas=2),
        resources=types.Resources(cpu_limit=500000000, mem_limit=50 << 20), restart_policy=types.RestartPolicy(condition="any", delay=1),
        update_config=types.UpdateConfig(parallelism=1, delay=1), mounts=["/tmp:/host:ro"], log_driver="json-file", log_driver_options={"max-size": "1m"},
        healthcheck=types.Healthcheck(test=["CMD", "true"], interval=500000000), hosts={"h": "1.2.3.4"}, dns_config=types.DNSConfig(nameservers=["8.8.8.8"]),
        stop_grace_period=10**8, user="0", groups=["1"], workdir="/tmp", tty=False, init=True, cap_add=["NET_ADMIN"], cap_drop=["CHOWN"], read_only=True,
        stop_signal="SIGTERM", hostname="pyh", open_stdin=False)
    wait_for(lambda: len(running(s)) == 2, what="two tasks")
    s.reload()
    assert s.scale(3)
    wait_for(lambda: len(running(s)) == 3, what="three tasks")
    before = {t["ID"] for t in running(s)}
    s.reload()
    s.scale(2)
    wait_for(lambda: len(running(s)) == 2, what="two tasks again")
    assert {t["ID"] for t in running(s)} < before  # a spec that was read and written back restarts nothing
    s.reload()
    assert s.update(env=["B=2"]) == {"Warnings": None}
    wait_for(lambda: len(running(s)) == 2 and not {t["ID"] for t in running(s)} & before, what="the update")
    container = client.containers.list(filters={"label": "com.docker.swarm.service.name=py"})[0]
    assert container.exec_run(["sh", "-c", "echo $B"]) == (0, b"2\n")
    assert container.exec_run(["sh", "-c", "echo o; echo e >&2; exit 3"], demux=True) == (3, (b"o\n", b"e\n"))
    assert b"hello" in b"".join(s.logs(stdout=True, stderr=True))
    assert container.stats(stream=False)["memory_stats"]["limit"] == 50 << 20
    assert [x.name for x in client.services.list(filters={"name": "py"})] == ["py"]
    s.remove()
    with pytest.raises(docker.errors.NotFound):
        client.services.get("py")


def test_events_of_the_past(client):
    """Every chunk ends with a line's end, or docker-py cannot tell that the last one is whole."""
    begin = int(time.time()) - 1
    s = client.services.create("busybox", ["sleep", "1000"], name="ev")
    wait_for(lambda: len(running(s)) == 1, what="a task")
    s.remove()
    wait_for(lambda: not client.containers.list(all=True), what="no container")
    seen = [(e["Type"], e["Action"]) for e in client.events(since=begin, until=int(time.time()) + 1, decode=True)]
    for one in (("service", "create"), ("container", "create"), ("container", "start"), ("service", "remove"), ("container", "die"), ("container", "destroy")):
        assert one in seen, seen


def test_objects(client):
    secret = client.secrets.create(name="s", data=b"xx", labels={"a": "b"})
    assert [x.name for x in client.secrets.list(filters={"name": ["s"]})] == ["s"]
    secret.remove()
    config = client.configs.create(name="c", data=b"xx")
    assert client.configs.get(config.id).attrs["Spec"]["Data"] == "eHg="
    config.remove()
    assert len({n.short_id for n in client.networks.list()}) == 3 and client.volumes.list() == []
    for call in (lambda: client.services.create("busybox", name="bad", networks=["x"]), lambda: client.containers.run("busybox")):
        with pytest.raises(docker.errors.APIError) as e:
            call()
        assert e.value.response.status_code == 501 and "not supported by this version" in e.value.explanation
