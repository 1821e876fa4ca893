"""An address where connections are never answered."""

from __future__ import annotations

import socket
from contextlib import ExitStack


def listens_without_answering(stack: ExitStack, port: int) -> str:
    """An address that never answers on this port, since its backlog is full; as long as the stack."""
    listener = stack.enter_context(socket.create_server(("127.0.0.8", port), backlog=0))
    for _ in range(8):
        waiting = stack.enter_context(socket.socket())
        waiting.settimeout(0.2)
        try:
            waiting.connect(listener.getsockname())
        except TimeoutError:
            break
    return "127.0.0.8"
