"""Free ports on loopback, kept free until their server listens."""

from __future__ import annotations

import socket
import sys
from collections.abc import Generator
from contextlib import ExitStack, contextmanager

LOOPBACK = "127.0.0.1"


@contextmanager
def reserved_ports(count: int) -> Generator[tuple[int, ...]]:
    """That many ports, chosen by the operating system.

    On Linux they stay bound, without listening, until the context ends: a server that sets SO_REUSEADDR (Go's all do)
    may listen on them meanwhile, but nobody is given one as a free port. Elsewhere they are free again at once.
    """
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind((LOOPBACK, 0))
        ports = tuple(one.getsockname()[1] for one in sockets)
        if sys.platform != "linux":
            held.close()
        yield ports


def listens(port: int) -> bool:
    """Whether anybody accepts connections there."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((LOOPBACK, port)) == 0
