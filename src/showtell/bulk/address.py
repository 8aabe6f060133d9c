"""Whether Ray can be at an address, asked before anything is begun: Ray itself would wait for minutes."""

from __future__ import annotations

import contextlib
import os
import socket

from showtell.errors import UsageError

_PATIENCE = 5.0  # seconds that a cluster may take to answer


def check_address(address: str) -> None:
    """Does nothing where Ray may answer.

    Args:
        address: HOST:PORT, or "auto" for a cluster on this machine.

    Raises:
        UsageError: it is no address, nobody listens there, or somebody else.
    """
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or "://" in address:
        raise UsageError(f"--ray-address must be HOST:PORT, as 10.0.0.1:6379, or auto. Received: {address!r}")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE) as connection:
            if not _speaks_http2(connection):
                raise UsageError(
                    f"--ray-address {address}: what answers there is not Ray's own port. Give the one that "
                    "`ray start --head` prints (6379 if none was chosen), not the dashboard's."
                )
    except (OSError, OverflowError, ValueError) as error:  # or: too high a port, a name that cannot be
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(
            f"--ray-address {address}: nobody answers there ({reason}). Start Ray on that machine (ray start --head), "
            "or leave the option out to start it here."
        ) from None


def _speaks_http2(connection: socket.socket) -> bool:
    """Returns whether the other side greets as Ray does, whose gRPC is spoken over HTTP/2 (RFC 9113, 3.4)."""
    if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
        return True  # it would have to be greeted otherwise; Ray finds out by itself
    settings = bytes(3) + b"\x04" + bytes(5)  # an empty frame of type 4, with which both sides begin
    answer = b""
    with contextlib.suppress(OSError):  # it is silent, or hangs up
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings)
        while len(answer) < len(settings) and (more := connection.recv(len(settings) - len(answer))):
            answer += more
    return len(answer) == len(settings) and answer[3] == settings[3]
