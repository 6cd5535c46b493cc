"""What nobody but root may read stays so: files, logs, command lines."""
import base64
import os
import shutil
import stat

import pytest
from shoaltest import Node, run, wait_for
from test_images import Registry


def everything(*roots):
    """(path, bytes) of all files, images' own content aside."""
    for root in roots:
        for at, dirs, files in os.walk(root):
            dirs[:] = [d for d in dirs if d not in ("diff", "upper", "rootfs", "netns")]
            for name in files:
                path = os.path.join(at, name)
                if os.path.isfile(path) and not os.path.islink(path):
                    with open(path, "rb") as f:
                        yield path, f.read()


def readable_by_others(root):
    """Files that someone else gets at: every directory on the way lets them through."""
    found = []
    for at, dirs, files in os.walk(root):
        dirs[:] = [d for d in dirs if os.lstat(os.path.join(at, d)).st_mode & stat.S_IXOTH and d not in ("diff", "upper", "rootfs", "netns")]
        found += [name for name in files if stat.S_ISREG(os.lstat(os.path.join(at, name)).st_mode) and os.lstat(os.path.join(at, name)).st_mode & stat.S_IROTH]
    return found


@pytest.mark.skipif(not shutil.which("docker-registry"), reason="docker-registry is missing: scripts/deps --install test")
def test_secrets_stay_secret(node):
    node.terminate()
    node.log_level = "debug"
    node.start()
    node.init()
    registry = Registry(node.host, user="bob", password="pa55w0rd")
    registry.push("whoami", "private/app:1")
    image = f"127.0.0.1:{registry.port}/private/app:1"
    node.docker("login", "-u", "bob", "--password-stdin", f"127.0.0.1:{registry.port}", input="pa55w0rd")
    node.docker("service", "create", "-d", "--name", "app", "--with-registry-auth", "--env", "PASSWORD=in-the-env", image)
    node.wait_running("app", 1)
    node.docker("secret", "create", "s", "-", input="value-of-the-secret")
    cid = node.docker("ps", "-q").strip()
    node.docker("exec", "-e", "PASSWORD=of-the-exec", cid, "/none", check=False)
    tokens = [node.docker("swarm", "join-token", "-q", role).strip().rsplit("-", 1)[1] for role in ("worker", "manager")]
    # With the copy of the agent's database written.
    wait_for(lambda: os.path.exists(os.path.join(node.data_root, "agent.db.saved")), what="the copy")
    nowhere = ["pa55w0rd", base64.b64encode(b"bob:pa55w0rd").decode(), "eyJ1c2VybmFtZSI6", "value-of-the-secret",
               base64.b64encode(b"value-of-the-secret").decode(), "of-the-exec", *tokens]
    for path, content in everything(node.data_root, node.exec_root, os.path.dirname(node.log_path)):
        if path.startswith((node.docker_config, registry.dir)):
            continue
        for word in nowhere:
            assert word.encode() not in content, f"{word} in {path}"
        if b"in-the-env" in content:
            assert not os.stat(path).st_mode & 0o077, f"{path} shows the environment of containers"
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as f:
                line = f.read()
        except OSError:
            continue
        if node.host.dir.encode() in line:
            assert not any(w.encode() in line for w in [*nowhere, "in-the-env"]), line
    # A container's /etc files must be readable in it, certificates are public.
    assert set(readable_by_others(node.data_root)) <= set()
    assert set(readable_by_others(node.exec_root)) <= {"hosts", "hostname", "resolv.conf"}
    assert stat.S_IMODE(os.stat(node.socket).st_mode) & 0o007 == 0


def test_second_daemon_is_refused(node):
    node.init()
    other = Node(node.host)
    other.socket = os.path.join(node.host.dir, "other.sock")
    r = run(*node.host.inside(*other.argv()), check=False)
    assert r.returncode != 0 and node.data_root in r.stderr + r.stdout and "another" in r.stderr + r.stdout, r
    assert "Ready" in node.docker("node", "ls")
