"""The book's walk with Debian's docker client, line by line, with the output that a Swarm user knows."""
import re

from shoaltest import table, wait_for


def replicas(node, name):
    rows = [r for r in table(node.docker("service", "ls")) if r["NAME"] == name]
    return rows[0]["REPLICAS"] if rows else None


def test_docker_walk(node):
    out = node.init()
    assert "Swarm initialized: current node (" in out and "is now a manager." in out
    assert re.search(r"docker swarm join --token SWMTKN-1-[0-9a-z]{50}-[0-9a-z]{25} 10\.231\.7\.1:2377", out)

    rows = table(node.docker("node", "ls"))
    assert len(rows) == 1
    assert rows[0]["STATUS"] == "Ready" and rows[0]["AVAILABILITY"] == "Active" and rows[0]["MANAGER STATUS"] == "Leader"

    assert "Loaded image: whoami:latest" in node.load("whoami")
    out = node.docker("service", "create", "--name", "simple-server", "-p", "8000:8000", "whoami:latest")
    assert "verify: Service converged" in out
    rows = table(node.docker("service", "ls"))
    assert rows[0]["NAME"] == "simple-server" and rows[0]["MODE"] == "replicated" and rows[0]["REPLICAS"] == "1/1"
    assert rows[0]["IMAGE"] == "whoami:latest" and rows[0]["PORTS"] == "*:8000->8000/tcp"
    assert "ostname" in node.host.curl(f"http://{node.host.ip}:8000/")

    out = node.docker("service", "scale", "simple-server=3")
    assert "simple-server scaled to 3" in out
    wait_for(lambda: replicas(node, "simple-server") == "3/3", what="three replicas")
    ps = table(node.docker("ps"))
    assert len(ps) == 3 and all(r["IMAGE"] == "whoami:latest" and r["STATUS"].startswith("Up ") for r in ps)
    names = {r["NAMES"].rsplit(".", 1)[0] for r in ps}
    assert names == {"simple-server.1", "simple-server.2", "simple-server.3"}

    victim = ps[0]["CONTAINER ID"]
    assert node.docker("kill", victim).strip() == victim
    three_others = wait_for(
        lambda: (lambda p: p if len(p) == 3 and victim not in [r["CONTAINER ID"] for r in p] else None)(table(node.docker("ps"))),
        what="a replacement of the killed container")
    assert len(three_others) == 3
    ps = node.docker("service", "ps", "simple-server")
    assert "Shutdown" in ps and "Failed" in ps and "non-zero exit (137)" in ps

    answers = set()
    wait_for(lambda: answers.add(re.search(r"(?im)^hostname:?\s*(\S+)", node.host.curl(f"http://{node.host.ip}:8000/")).group(1))
             or len(answers) == 3, what="an answer of each replica")
    logs = node.docker("service", "logs", "simple-server")
    assert re.search(r"simple-server\.\d\.\w+@\S+ +\| ", logs) and "GET /" in logs

    assert node.docker("service", "rm", "simple-server").strip() == "simple-server"
    assert table(node.docker("service", "ls")) == []
    wait_for(lambda: table(node.docker("ps", "-a")) == [], what="no container left")
    refused = node.docker("swarm", "leave", check=False)
    assert refused.returncode == 1 and "--force" in refused.stderr
    assert node.docker("swarm", "leave", "--force").strip() == "Node left the swarm."
    gone = node.docker("node", "ls", check=False)
    assert gone.returncode == 1 and "This node is not a swarm manager" in gone.stderr
