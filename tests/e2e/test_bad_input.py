"""Bad input: the error names the thing, nothing is left behind, the daemon lives."""
import os
import subprocess

import pytest
from shoaltest import image_archive, run, table, wait_for


@pytest.mark.parametrize("method,path,body,status,text", [
    ("POST", "/services/create", "{", 400, ""),
    ("POST", "/services/create", '{"Name":"x"} trailing', 400, ""),
    ("POST", "/services/create", '{"Name":"x"}', 400, "TaskTemplate"),
    ("POST", "/services/create", '{"Name":"-x-","TaskTemplate":{"ContainerSpec":{"Image":"a"}}}', 400, "name must be valid"),
    ("POST", "/services/create", '{"Name":"x","TaskTemplate":{"ContainerSpec":{"Image":"A B"}}}', 400, "A B"),
    ("POST", "/services/create", '{"Name":"x","TaskTemplate":{"ContainerSpec":{"Image":"a","TTY":"yes"}}}', 400, "TTY"),
    ("POST", "/services/create", '{"Name":"x","TaskTemplate":{"ContainerSpec":{"Image":"a"},"Placement":{"Constraints":["what"]}}}', 500, "what"),
    ("POST", "/services/create", '{"Name":"x","TaskTemplate":{"ContainerSpec":{"Image":"a","Mounts":[{"Type":"volume","Source":"v","Target":"/v"}]}}}', 501, "volume"),
    ("POST", "/services/create", '{"Name":"x","TaskTemplate":{"ContainerSpec":{"Image":"a","Secrets":[{"SecretID":"a","SecretName":"b"}]}}}', 501, "Secrets"),
    ("GET", "/services?filters=%7B%22nope%22%3A%5B%22x%22%5D%7D", None, 400, "nope"),
    ("GET", "/services?filters=nope", None, 400, ""),
    ("GET", "/services/nothere", None, 404, "service nothere not found"),
    ("GET", "/tasks?filters=%7B%22service%22%3A%5B%22nothere%22%5D%7D", None, 404, "nothere"),
    ("GET", "/v1.99/services", None, 400, "1.99"),
    ("GET", "/v1.12/services", None, 400, ""),
    ("GET", "/no/such/route", None, 404, "page not found"),
    ("POST", "/configs/create", '{"Name":"c","Data":"not base64!"}', 400, "Data"),
    ("POST", "/secrets/create", '{"Name":"s","Data":""}', 400, "secret data"),
])
def test_refusals(manager, method, path, body, status, text):
    code, answer = manager.api(method, path, body)
    message = answer["message"] if isinstance(answer, dict) else str(answer)
    assert code == status and text in message, (code, message)
    assert manager.api("GET", "/services")[1] == []


def test_oversized_body(manager):
    code, answer = manager.api("POST", "/services/create", '{"Name":"' + "x" * (5 << 20) + '"}')
    assert code == 413, answer
    assert manager.api("GET", "/_ping")[0] == 200


def test_stale_version(manager):
    manager.docker("service", "create", "--name", "web", "--detach", "whoami:latest")
    manager.wait_running("web", 1)
    s = manager.api("GET", "/services/web")[1]
    code, answer = manager.api("POST", "/services/web/update?version=1", s["Spec"])
    assert code == 500 and "update out of sequence" in answer["message"]
    code, answer = manager.api("POST", "/services/web/update?version=x", s["Spec"])
    assert code == 400 and "version" in answer["message"]


def error_of(node, service):
    return wait_for(lambda: next((t["Status"]["Err"] for t in node.api("GET", "/tasks")[1]
                                  if t["Status"].get("Err") and t["Status"]["State"] in ("rejected", "failed")), None),
                    what=f"the error of {service}")


@pytest.mark.parametrize("flags,image,args,words", [
    ([], "nothere.invalid/x:1", [], ["nothere.invalid"]),
    (["--user", "nobodyhere"], "busybox:latest", ["true"], ["nobodyhere"]),
    ([], "busybox:latest", ["/no/such/program"], ["/no/such/program"]),
    (["--mount", "type=bind,source=/no/such/dir,target=/x"], "busybox:latest", ["true"], ["bind source path does not exist: /no/such/dir"]),
])
def test_task_errors(manager, flags, image, args, words):
    manager.load("busybox")
    manager.docker("service", "create", "--name", "bad", "--detach", "--no-resolve-image", "--restart-condition", "none", *flags, image, *args)
    err = error_of(manager, "bad")
    assert all(w in err for w in words), err
    manager.docker("service", "rm", "bad")
    wait_for(lambda: manager.api("GET", "/containers/json?all=1")[1] == [], what="nothing left")
    assert manager.conmons() == []


def test_corrupt_images(node):
    good = image_archive("whoami")
    size = os.path.getsize(good)
    with open(good, "rb") as f:
        data = f.read()
    for name, bad in (("truncated", data[:size // 2]), ("noise", os.urandom(100000)), ("flipped", data[:size // 2] + b"XXXXXXXX" + data[size // 2 + 8:])):
        path = os.path.join(node.host.dir, name + ".tar")
        with open(path, "wb") as f:
            f.write(bad)
        r = node.docker("load", "-i", path, check=False)
        assert r.returncode != 0 or "rror" in r.stdout + r.stderr, (name, r.stdout, r.stderr)
        assert table(node.docker("images")) == []
    left = subprocess.run(["find", os.path.join(node.data_root, "layers"), "-mindepth", "1"], capture_output=True, text=True).stdout
    assert left == ""
    assert "Loaded image" in node.load("whoami")


def test_full_disk_while_loading(node):
    node.terminate()
    run("mkdir", "-p", node.data_root)
    run("mount", "-t", "tmpfs", "-o", "size=12m,mode=755", "tmpfs", node.data_root)
    try:
        node.start()
        r = node.docker("load", "-i", image_archive("nginx"), check=False, timeout=120)
        assert r.returncode != 0 or "rror" in r.stdout + r.stderr
        assert "o space left" in r.stdout + r.stderr
        assert table(node.docker("images")) == []
        assert "Loaded image" in node.load("whoami")
    finally:
        node.terminate()
        run("umount", "-l", node.data_root)
