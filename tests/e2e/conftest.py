"""Fixtures of the end-to-end tests: real daemons, real containers, the real docker client."""
import os
import sys

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "lib"))

import shoaltest  # noqa: E402


@pytest.fixture
def node():
    """A daemon that is in no swarm."""
    host = shoaltest.Host()
    n = shoaltest.Node(host)
    try:
        n.start()
        yield n
    finally:
        text = n.log_text() if os.path.exists(n.log_path) else ""
        n.close()
        host.close()
        if text:
            print("--- shoald's log\n" + text[-20000:])


@pytest.fixture
def manager(node):
    """A swarm of one node that has whoami:latest."""
    node.init()
    node.load("whoami")
    return node
