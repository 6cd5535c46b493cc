"""swarm init's addresses, leaving and beginning again, what swarm update takes."""
import json

import pytest
from shoaltest import run, table, wait_for


def ready(node):
    return wait_for(lambda: table(node.docker("node", "ls"))[0]["STATUS"] == "Ready", what="the node ready")


@pytest.mark.parametrize("flags,shown", [
    (["--advertise-addr", "198.51.100.7"], "198.51.100.7:2377"),  # of a NAT in front: nothing here answers there
    (["--advertise-addr", "eth0:2400", "--listen-addr", "eth0:2399"], "10.231.7.1:2400"),
    (["--listen-addr", "127.0.0.1:3377"], "127.0.0.1:3377"),
    ([], "10.231.7.1:2377"),
])
def test_addresses(node, flags, shown):
    assert f" {shown}\n" in node.docker("swarm", "init", *flags)
    ready(node)
    assert node.docker("node", "inspect", "self", "-f", "{{.ManagerStatus.Addr}}").strip() == shown
    node.restart(hard=True)
    ready(node)


def test_leave_and_begin_again(manager):
    """The network that containers had here is no address to advertise."""
    manager.docker("service", "create", "-d", "--name", "web", "-p", "8000:8000", "whoami")
    manager.wait_running("web", 1)
    assert manager.docker("swarm", "leave", "--force") == "Node left the swarm.\n"
    assert manager.docker("ps", "-aq") == "" and manager.conmons() == []
    r = manager.docker("node", "ls", check=False)
    assert r.returncode == 1 and "This node is not a swarm manager" in r.stderr
    assert "Swarm initialized" in manager.docker("swarm", "init")
    assert manager.docker("service", "ls", "-q") == ""
    manager.docker("service", "create", "-d", "--name", "web", "-p", "8000:8000", "whoami")
    manager.wait_running("web", 1)
    assert "Hostname" in manager.host.curl(f"http://{manager.host.ip}:8000/")


def test_two_addresses(node):
    run("ip", "-n", node.host.name, "addr", "add", "10.99.0.1/24", "dev", "eth0")
    r = node.docker("swarm", "init", check=False)
    assert r.returncode == 1 and "could not choose an IP address to advertise" in r.stderr and "10.99.0.1" in r.stderr
    assert "--advertise-addr" in r.stderr
    r = node.docker("swarm", "init", "--advertise-addr", "nosuch0", check=False)
    assert r.returncode == 1 and "nosuch0" in r.stderr
    node.docker("swarm", "init", "--advertise-addr", "10.99.0.1")
    ready(node)


def test_update(manager):
    manager.docker("swarm", "update", "--task-history-limit", "2", "--dispatcher-heartbeat", "3s", "--cert-expiry", "2h")
    status, swarm = manager.api("GET", "/swarm")
    assert status == 200
    spec = swarm["Spec"]
    assert spec["Orchestration"]["TaskHistoryRetentionLimit"] == 2 and spec["Dispatcher"]["HeartbeatPeriod"] == 3_000_000_000
    assert spec["CAConfig"]["NodeCertExpiry"] == 7_200_000_000_000
    for flag in (["--autolock"], ["--snapshot-interval", "5"], ["--max-snapshots", "1"], ["--external-ca", "protocol=cfssl,url=https://x"]):
        r = manager.docker("swarm", "update", *flag, check=False)
        assert r.returncode == 1 and "not supported" in r.stderr, r
    r = manager.docker("swarm", "update", "--cert-expiry", "10m", check=False)
    assert r.returncode == 1 and "minimum certificate expiry time must be 1h0m0s" in r.stderr
    assert manager.api("GET", "/swarm")[1]["Spec"] == spec
    old = manager.docker("swarm", "join-token", "-q", "worker")
    new = manager.docker("swarm", "join-token", "-q", "--rotate", "worker")
    assert new != old and new.rsplit("-", 1)[0] == old.rsplit("-", 1)[0] and manager.docker("swarm", "join-token", "-q", "worker") == new
    status, answer = manager.api("POST", "/swarm/update?version=1", spec)
    assert status == 500 and "update out of sequence" in answer["message"]
    assert "TaskHistoryRetentionLimit" in json.dumps(spec)
