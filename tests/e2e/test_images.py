"""Images with the real clients and a real registry (Debian's docker-registry) inside the node's network."""
import base64
import json
import os
import shutil
import socket
import subprocess
import warnings

import pytest
import shoaltest
from shoaltest import image_archive, run, table, wait_for

needs_registry = pytest.mark.skipif(not shutil.which("docker-registry"), reason="docker-registry is missing: scripts/deps --install test")
PORT = 5000


class Registry:
    """docker-registry on every address of the node's network; with TLS (a CA of its own) or basic auth when asked."""

    def __init__(self, host, port=PORT, user=None, password=None, tls=False):
        self.host, self.port, self.user, self.password, self.tls = host, port, user, password, tls
        self.dir = os.path.join(host.dir, f"registry{port}")
        os.makedirs(self.dir)
        self.ca = os.path.join(self.dir, "ca.crt")
        lines = ["version: 0.1", "log: {level: error, accesslog: {disabled: true}}",
                 f"storage: {{filesystem: {{rootdirectory: {self.dir}/data}}, delete: {{enabled: true}}}}", "http:",
                 f"  addr: :{port}"]
        if tls:
            self.make_certificates()
            lines += ["  tls:", f"    certificate: {self.dir}/server.crt", f"    key: {self.dir}/server.key"]
        if user:
            with open(os.path.join(self.dir, "htpasswd"), "w") as f:
                f.write(f"{user}:{bcrypt(password)}\n")
            lines += ["auth:", f"  htpasswd: {{realm: test, path: {self.dir}/htpasswd}}"]
        with open(os.path.join(self.dir, "config.yml"), "w") as f:
            f.write("\n".join(lines) + "\n")
        self.start()

    def start(self):
        self.proc = self.host.popen(self.host.inside("docker-registry", "serve", os.path.join(self.dir, "config.yml")),
                                    stdout=subprocess.DEVNULL, stderr=open(os.path.join(self.dir, "log"), "ab"))
        wait_for(lambda: run(*self.host.inside("curl", "-sk", "-o", os.devnull, "-w", "%{http_code}", self.url("/v2/")), check=False).stdout
                 in ("200", "401"), what="the registry")

    def stop(self):
        self.proc.kill()
        self.proc.wait()

    def url(self, path):
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}{path}"

    def make_certificates(self):
        def openssl(*args):
            run("openssl", *args, cwd=self.dir)
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=test ca",
                "-keyout", "ca.key", "-out", "ca.crt")
        openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=registry", "-keyout", "server.key",
                "-out", "server.csr")
        with open(os.path.join(self.dir, "ext"), "w") as f:
            f.write(f"subjectAltName=IP:{self.host.ip},IP:127.0.0.1\n")
        openssl("x509", "-req", "-in", "server.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "ext",
                "-out", "server.crt")

    def push(self, image, name):
        creds = ["--dest-creds", f"{self.user}:{self.password}"] if self.user else []
        run(*self.host.inside("skopeo", "copy", "-q", "--insecure-policy", "--dest-tls-verify=false", *creds,
                              "docker-archive:" + image_archive(image), f"docker://127.0.0.1:{self.port}/{name}"))


def bcrypt(password):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import crypt
    return crypt.crypt(password, "$2b$05$abcdefghijklmnopqrstuu")


@pytest.fixture
def registry(node):
    return Registry(node.host)


def left_behind(node):
    """What a failed load or pull might have left."""
    found = []
    for sub in ("images/tmp", "images/configs", "layers"):
        path = os.path.join(node.data_root, sub)
        found += [os.path.join(sub, n) for n in os.listdir(path)]
    return found


def nothing_left(node):
    assert left_behind(node) == []
    return True


def images(node):
    return table(node.docker("images", "--digests"))


# --- archives ----------------------------------------------------------------------------------------------

def test_load_list_tag_remove(node):
    out = node.docker("load", "-i", image_archive("busybox"))
    assert out.strip() == "Loaded image: busybox:latest"
    rows = images(node)
    assert rows[0]["REPOSITORY"] == "busybox" and rows[0]["TAG"] == "latest" and rows[0]["DIGEST"] == "<none>"
    image_id = rows[0]["IMAGE ID"]
    info = json.loads(node.docker("image", "inspect", "busybox"))[0]
    assert info["Id"].startswith("sha256:" + image_id) and info["Config"]["Cmd"] == ["sh"] and info["Os"] == "linux"
    assert info["RepoTags"] == ["busybox:latest"] and len(info["RootFS"]["Layers"]) == 1 and info["Size"] > 1000000
    assert "scripts/mkimage" in node.docker("history", "busybox")
    assert node.docker("tag", "busybox", "example.com:5000/some/box:1") == ""
    assert {r["REPOSITORY"] for r in images(node)} == {"busybox", "example.com:5000/some/box"}
    r = node.docker("rmi", image_id, check=False)
    assert r.returncode == 1 and "image is referenced in multiple repositories" in r.stderr
    assert node.docker("rmi", "busybox").splitlines() == ["Untagged: busybox:latest"]
    out = node.docker("rmi", "example.com:5000/some/box:1")
    assert out.splitlines()[0] == "Untagged: example.com:5000/some/box:1" and "Deleted: sha256:" + image_id in out
    assert images(node) == []
    wait_for(lambda: nothing_left(node), what="nothing left of the image")
    r = node.docker("image", "inspect", "busybox", check=False)
    assert r.returncode == 1 and "No such image: busybox" in r.stderr


@pytest.mark.parametrize("form,how", [("docker", "none"), ("docker", "gzip"), ("docker", "zstd"), ("oci", "gzip"), ("oci", "zstd"), ("oci", "none")])
def test_forms_of_archives(node, tmp_path, form, how):
    path = str(tmp_path / "image.tar")
    run(os.path.join(shoaltest.ROOT, "scripts", "mkimage"), "test-layers", "-o", path, "--format", form, "--compress", how)
    assert "Loaded image: test-layers:latest" in node.docker("load", "-i", path)
    # The same image whatever it came in: the id is that of the config.
    plain = json.loads(node.docker("image", "inspect", "test-layers"))[0]["Id"]
    node.docker("load", "-i", image_archive("test-layers"))
    assert json.loads(node.docker("image", "inspect", "test-layers"))[0]["Id"] == plain
    assert len(images(node)) == 1


def test_filters_and_prune(node):
    for name in ("busybox", "whoami", "test-user"):
        node.load(name)
    node.docker("tag", "busybox", "repo/one:1")
    assert [r["REPOSITORY"] for r in table(node.docker("images", "repo/*"))] == ["repo/one"]
    assert [r["REPOSITORY"] for r in table(node.docker("images", "--filter", "label=org.opencontainers.image.title=whoami"))] == ["whoami"]
    assert table(node.docker("images", "--filter", "dangling=true")) == []
    status, answer = node.api("GET", "/images/json?filters=%7B%22nope%22%3A%5B%22x%22%5D%7D")
    assert status == 400 and "nope" in answer["message"]
    # A tag that moves leaves an image without one.
    node.docker("tag", "whoami", "repo/one:1")
    node.docker("tag", "whoami", "busybox:latest")
    assert [r["REPOSITORY"] for r in table(node.docker("images", "--filter", "dangling=true"))] == ["<none>"]
    out = node.docker("image", "prune", "--force")
    assert "deleted: sha256:" in out.lower() and "Total reclaimed space:" in out
    assert table(node.docker("images", "--filter", "dangling=true")) == []
    node.docker("image", "prune", "--all", "--force")
    assert images(node) == []
    wait_for(lambda: nothing_left(node), what="nothing left of the images")


def test_bad_archives(node, tmp_path):
    with open(image_archive("busybox"), "rb") as f:
        good = f.read()
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 1
    manifest = good.replace(b'"Layers":["', b'"Layers":["x')
    cases = {"empty": (b"", "empty"), "junk": (os.urandom(5000), "archive"), "cut": (good[:len(good) // 2], "cut short"),
             "flipped": (bytes(flipped), "layer 1 of 1"), "nolayer": (manifest, "manifest")}
    for name, (data, words) in cases.items():
        path = tmp_path / name
        path.write_bytes(data)
        r = node.docker("load", "-i", str(path), check=False)
        assert r.returncode == 1 and words in r.stderr, (name, r.stderr)
        wait_for(lambda: nothing_left(node), what=f"nothing left of the archive {name}")
    assert images(node) == [] and node.api("GET", "/_ping")[0] == 200


def test_client_that_goes_away(node):
    for size in (0, 1000, 1 << 20):
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(node.socket)
            s.sendall(b"POST /images/load HTTP/1.1\r\nHost: d\r\nContent-Length: 999999999\r\n\r\n" + b"x" * size)
    wait_for(lambda: nothing_left(node), what="nothing left of the uploads")
    node.load("whoami")
    assert len(images(node)) == 1


def test_full_disk(tmp_path):
    host = shoaltest.Host()
    node = shoaltest.Node(host)
    try:
        os.makedirs(node.data_root)
        run("mount", "-t", "tmpfs", "-o", "size=24m", "shoal-test", node.data_root)
        node.start()
        r = node.docker("load", "-i", image_archive("redis"), check=False)
        assert r.returncode == 1 and "No space left on device" in r.stderr, r.stderr
        wait_for(lambda: nothing_left(node), what="nothing left of the image")
        node.load("whoami")
        assert [r["REPOSITORY"] for r in images(node)] == ["whoami"]
    finally:
        node.close()
        run("umount", "-l", node.data_root, check=False)
        host.close()


def test_files_as_the_image_has_them(manager):
    """Whiteouts, links, owners and bits, seen from inside a container."""
    for name in ("test-layers", "test-files", "test-user"):
        manager.load(name)
    for name in ("test-layers", "test-files", "test-user"):
        manager.docker("service", "create", "--detach", "--stop-grace-period", "1s", "--name", name, name, "sleep", "1000")

    def inside(service, script):
        (task,) = manager.wait_running(service, 1)
        return manager.docker("exec", task["Status"]["ContainerStatus"]["ContainerID"], "sh", "-c", script).strip()

    assert inside("test-layers", "cd / && find d opaque turn whole -type f | sort | tr '\\n' ' '") == \
        "d/keep d/over opaque/new turn/dir turn/file/inside whole/y"
    assert inside("test-layers", "cat /d/over /turn/dir /turn/file/inside /whole/y") == "2\nnow a file\nnow a directory\nback"
    assert inside("test-files", "cd /t && stat -c '%n %a %u:%g' setuid setgid sticky fifo") == \
        "setuid 4755 0:0\nsetgid 2755 7:8\nsticky 1777 0:0\nfifo 620 0:0"
    assert inside("test-files", "cd /t && stat -c %i hard-a hard-b | uniq | wc -l") == "1"
    assert inside("test-files", "cd /t && cat abs rel && readlink dangling && cat up | head -n 1 | cut -d: -f1") == \
        "shared\nshared\n/nowhere/at/all\nroot"
    assert inside("test-user", "id -un; id -u; id -g; id -G | tr ' ' '\\n' | sort -n | tr '\\n' ' '; pwd; cat hello") == \
        "app\n1234\n2345\n10 2345 3456 /srv/app\nhello"


# --- registries --------------------------------------------------------------------------------------------

@needs_registry
def test_pull(node, registry):
    registry.push("test-layers", "t/layers:1")
    registry.push("busybox", "t/box:1")
    name = f"127.0.0.1:{PORT}/t/layers:1"
    out = node.docker("pull", name)
    assert "1: Pulling from t/layers" in out and out.count(": Pull complete") == 5
    assert f"Status: Downloaded newer image for {name}" in out and out.rstrip().endswith(name)
    digest = next(line.split()[1] for line in out.splitlines() if line.startswith("Digest: "))
    rows = images(node)
    assert rows[0]["DIGEST"] == digest and rows[0]["TAG"] == "1"
    out = node.docker("pull", name)
    assert f"Status: Image is up to date for {name}" in out and "Pull complete" not in out
    # Its only layer is here already.
    out = node.docker("pull", f"127.0.0.1:{PORT}/t/box:1")
    assert "Already exists" in out and "Pull complete" not in out
    by_digest = f"127.0.0.1:{PORT}/t/layers@{digest}"
    registry.stop()
    assert "Image is up to date" in node.docker("pull", by_digest)
    r = node.docker("pull", name, check=False)
    assert r.returncode == 1 and "connection refused" in r.stderr
    registry.start()
    r = node.docker("pull", f"127.0.0.1:{PORT}/t/layers:nope", check=False)
    assert r.returncode == 1 and f"manifest for 127.0.0.1:{PORT}/t/layers:nope not found" in r.stderr
    r = node.docker("pull", "--all-tags", f"127.0.0.1:{PORT}/t/layers", check=False)
    assert r.returncode == 1 and "all tags" in r.stderr
    out = node.docker("rmi", name)
    assert f"Untagged: {name}" in out and f"Untagged: {by_digest}" in out


@needs_registry
def test_pull_with_credentials(node):
    registry = Registry(node.host, user="me", password="s3cret/+?")
    registry.push("whoami", "private/app:1")
    name = f"127.0.0.1:{PORT}/private/app:1"
    r = node.docker("pull", name, check=False)
    assert r.returncode == 1 and "pull access denied for private/app" in r.stderr
    r = node.docker("login", "-u", "me", "--password-stdin", f"127.0.0.1:{PORT}", check=False, input="wrong")
    assert r.returncode == 1 and "unauthorized" in r.stderr
    assert "Login Succeeded" in node.docker("login", "-u", "me", "--password-stdin", f"127.0.0.1:{PORT}", input="s3cret/+?")
    assert "Downloaded newer image" in node.docker("pull", name)
    secret = base64.b64encode(b"me:s3cret/+?").decode()
    for folder, _, files in os.walk(os.path.join(node.data_root, "images")):
        for f in files:
            with open(os.path.join(folder, f), "rb") as h:
                text = h.read()
            assert secret.encode() not in text and b"s3cret" not in text
    assert "s3cret" not in node.log_text() and secret not in node.log_text()


@needs_registry
def test_service_from_private_registry(manager):
    registry = Registry(manager.host, user="me", password="pw")
    registry.push("whoami", "app:1")
    name = f"127.0.0.1:{PORT}/app:1"
    manager.docker("login", "-u", "me", "--password-stdin", f"127.0.0.1:{PORT}", input="pw")
    manager.docker("service", "create", "--name", "app", "--with-registry-auth", "--detach", name)
    manager.wait_running("app", 1)
    spec = manager.api("GET", "/services/app")[1]["Spec"]
    # The client asked the registry which digest the tag stands for.
    assert spec["TaskTemplate"]["ContainerSpec"]["Image"].startswith(name + "@sha256:")
    assert "pw" not in json.dumps(manager.api("GET", "/services/app")[1])


@needs_registry
def test_tls(tmp_path):
    """A registry that is not on the loopback is spoken to with TLS only, and believed only with a known CA."""
    for flags, env, fine in (([], {}, False), (["--insecure-registry", "10.231.7.0/24"], {}, True), ([], {"ca": True}, True)):
        host = shoaltest.Host()
        try:
            registry = Registry(host, tls=True)
            registry.push("whoami", "app:1")
            node = shoaltest.Node(host, *flags)
            if env:
                os.environ["SSL_CERT_FILE"] = registry.ca
            try:
                node.start()
            finally:
                os.environ.pop("SSL_CERT_FILE", None)
            try:
                r = node.docker("pull", f"{host.ip}:{PORT}/app:1", check=False)
                assert (r.returncode == 0) == fine, r.stderr
                if not fine:
                    assert "certificate" in r.stderr
            finally:
                node.close()
        finally:
            host.close()


@needs_registry
def test_plain_http_is_refused_but_on_the_loopback(node, registry):
    registry.push("whoami", "app:1")
    r = node.docker("pull", f"{node.host.ip}:{PORT}/app:1", check=False)
    assert r.returncode == 1 and "--insecure-registry" in r.stderr


@needs_registry
def test_distribution(node, registry):
    registry.push("whoami", "app:1")
    status, answer = node.api("GET", f"/distribution/127.0.0.1:{PORT}/app:1/json")
    assert status == 200 and answer["Descriptor"]["digest"].startswith("sha256:") and answer["Descriptor"]["size"] > 0
    assert answer["Platforms"][0]["os"] == "linux"
    assert node.api("GET", f"/distribution/127.0.0.1:{PORT}/app:2/json")[0] == 404


def test_what_is_refused_says_so(node):
    node.load("whoami")
    for args in (("push", "whoami"), ("save", "whoami", "-o", os.path.join(node.host.dir, "x.tar")), ("search", "whoami")):
        r = node.docker(*args, check=False)
        assert r.returncode == 1 and "not supported" in r.stderr, r.stderr
    status, answer = node.api("POST", "/images/create?fromSrc=-")
    assert status == 501 and "not supported" in answer["message"]
    r = node.docker("pull", "--platform", "plan9/vax", "x", check=False)
    assert r.returncode == 1 and "plan9/vax" in r.stderr


@needs_registry
def test_docker_py(node, registry):
    docker = pytest.importorskip("docker")
    registry.push("whoami", "app:1")
    client = docker.DockerClient(base_url="unix://" + node.socket, version="auto")
    try:
        name = f"127.0.0.1:{PORT}/app"
        image = client.images.pull(name, tag="1")
        assert image.tags == [name + ":1"] and image.attrs["RepoDigests"][0].startswith(name + "@sha256:")
        with open(image_archive("busybox"), "rb") as f:
            (box,) = client.images.load(f)
        assert box.tags == ["busybox:latest"]
        assert box.tag("other", "2") and client.images.get("other:2").id == box.id
        assert {i.id for i in client.images.list()} == {box.id, image.id}
        with pytest.raises(docker.errors.ImageNotFound):
            client.images.get("nothere")
        with pytest.raises(docker.errors.NotFound):
            client.images.pull(name, tag="nope")
        assert client.images.get_registry_data(name + ":1").id.startswith("sha256:")
        client.images.remove("other:2")
        client.images.prune(filters={"dangling": False})
        assert client.images.list() == []
    finally:
        client.close()


@needs_registry
def test_restart_keeps_images(node, registry):
    registry.push("test-layers", "t/layers:1")
    node.docker("pull", f"127.0.0.1:{PORT}/t/layers:1")
    node.load("whoami")
    before = images(node)
    node.restart(hard=True)
    assert images(node) == before
    assert "up to date" in node.docker("pull", f"127.0.0.1:{PORT}/t/layers:1")


@needs_registry
def test_killed_while_pulling(node, registry):
    """Whatever the moment, the next start has the whole image or nothing of it."""
    registry.push("redis", "redis:1")
    name = f"127.0.0.1:{PORT}/redis:1"
    for delay in ("0.05", "0.15", "0.3", "0.6"):
        client = subprocess.Popen([shoaltest.DOCKER, "pull", name], env=node.env(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        run("sleep", delay)  # a moment in the middle; which one does not matter
        node.restart(hard=True)
        client.wait(timeout=30)
        if images(node) == []:
            wait_for(lambda: nothing_left(node), what="nothing left of the pull")
        else:
            # Killed between image and name it has none yet; its content is whole either way.
            node.docker("rmi", images(node)[0]["IMAGE ID"])
            wait_for(lambda: nothing_left(node), what="nothing left of the image")
    assert "Downloaded newer image" in node.docker("pull", name)


# --- disk usage --------------------------------------------------------------------------------------------

def test_disk_usage(manager):
    manager.load("busybox")
    manager.docker("service", "create", "-d", "--name", "b", "busybox", "sh", "-c", "head -c 1000000 /dev/zero > /big; sleep 1000")
    manager.wait_running("b", 1)
    wait_for(lambda: "1MB (virtual 2.9" in manager.docker("ps", "-s"), what="the size of a container")
    rows = {r["TYPE"]: r for r in table(manager.docker("system", "df"))}
    assert (rows["Images"]["TOTAL"], rows["Images"]["ACTIVE"]) == ("2", "1") and rows["Containers"]["SIZE"].startswith("1.0")
    assert rows["Images"]["RECLAIMABLE"].startswith("8")  # whoami's 800 kB
    status, answer = manager.api("GET", "/system/df")
    assert status == 200 and {i["RepoTags"][0]: i["Containers"] for i in answer["Images"]} == {"busybox:latest": 1, "whoami:latest": 0}
    status, answer = manager.api("GET", "/system/df?type=volume&type=image")
    assert status == 200 and sorted(answer) == ["Images", "LayersSize", "Volumes"]
    status, answer = manager.api("GET", "/system/df?type=nope")
    assert status == 400 and "nope" in answer["message"]
    assert "Total reclaimed space: 0B" in manager.docker("system", "prune", "-f")
