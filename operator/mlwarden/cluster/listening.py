"""Sockets to listen on: every address of both families, unless one is named. A pod of a cluster that knows only IPv6 has no other."""

import contextlib
import os
import socket

from mlwarden.errors import InputError


def listen(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """Returns a bound socket; an empty host is every address. `shared`: other processes may listen there, too.

    Raises:
        InputError: the address is taken, or not this machine's.
    """
    if not host:
        with contextlib.suppress(OSError):  # a kernel without IPv6
            return _bound(socket.AF_INET6, "::", port, shared=shared)
        host = "0.0.0.0"  # noqa: S104 -- a pod's
    try:
        return _bound(socket.AF_INET6 if ":" in host else socket.AF_INET, host, port, shared=shared)
    except OSError as error:
        raise InputError(
            f"cannot listen on {host}:{port}: {os.strerror(error.errno or 0)}", hint="choose another --host or --port"
        ) from error


def _bound(family: socket.AddressFamily, host: str, port: int, *, shared: bool) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared and hasattr(socket, "SO_REUSEPORT"):
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        made.bind((host, port))
    except OSError:
        made.close()
        raise
    return made
