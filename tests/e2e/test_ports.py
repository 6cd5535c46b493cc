"""Published ports that other programs or services have."""
import subprocess

from shoaltest import wait_for


def listen(host, port):
    p = host.popen(host.inside("python3", "-c", f"import socket,time; s=socket.create_server(('0.0.0.0', {port})); print('up', flush=True); time.sleep(600)"),
                   stdout=subprocess.PIPE, text=True)
    assert p.stdout.readline() == "up\n"
    return p


def test_a_port_that_a_program_has(manager):
    """Tasks say so; when the program is gone the port is the service's."""
    program = listen(manager.host, 7777)
    manager.docker("service", "create", "-d", "--name", "web", "-p", "7777:8000", "whoami")
    words = "port 7777/tcp is already in use by another program on this host"
    wait_for(lambda: words in manager.docker("service", "ps", "--no-trunc", "web"), what="the reason in service ps")
    manager.wait_running("web", 1)
    program.kill()
    program.wait()
    wait_for(lambda: "Hostname" in manager.host.curl(f"http://{manager.host.ip}:7777/"), what="the port")
    wait_for(lambda: words not in manager.docker("service", "ps", "--no-trunc", "web"), what="no reason in service ps")


def test_a_host_port_that_a_program_has(manager):
    program = listen(manager.host, 7778)
    manager.docker("service", "create", "-d", "--name", "web", "--restart-delay", "300ms", "-p", "mode=host,published=7778,target=8000", "whoami")
    wait_for(lambda: "port 7778/tcp is already in use by another program on this host" in manager.docker("service", "ps", "--no-trunc", "web"), what="the reason")
    program.kill()
    program.wait()
    manager.wait_running("web", 1)
    assert "Hostname" in manager.host.curl(f"http://{manager.host.ip}:7778/")


def test_ports_of_other_services(manager):
    manager.docker("service", "create", "-d", "--name", "one", "-p", "8080:8000", "whoami")
    for port in ("8080:8000", "mode=host,published=8080,target=8000"):
        r = manager.docker("service", "create", "-d", "--name", "two", "-p", port, "whoami", check=False)
        assert r.returncode == 1 and "port '8080' is already in use by service 'one'" in r.stderr and "as an ingress port" in r.stderr
    # Another protocol is another port; host ports of two services meet on a node only.
    manager.docker("service", "create", "-d", "--name", "udp", "-p", "8080:8000/udp", "whoami")
    manager.docker("service", "create", "-d", "--name", "h1", "--replicas", "2", "-p", "mode=host,published=9001,target=8000", "whoami")
    wait_for(lambda: "no suitable node (host-mode port already in use on 1 node)" in manager.docker("service", "ps", "--no-trunc", "h1"), what="the reason")
    manager.wait_running("h1", 1)
    ports = manager.docker("service", "ps", "h1")
    assert "*:9001->8000/tcp" in ports
