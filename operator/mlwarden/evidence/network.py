"""Which addresses the registry client may connect to.

Whoever writes a manifest chooses the host, so the scanner would connect anywhere it is told: to the metadata service of the cloud, to
itself, to the node. A NetworkPolicy says the same; this is for clusters that do not enforce one. Private networks are allowed to whom an
image names, because that is where many registries are, and to where these lead; not to where a public registry that nobody listed leads.
Resolving a name once for the check and once for the connection was rejected: the answer may differ (DNS rebinding), so the check is inside
the resolver that the connection uses.
"""

import asyncio
import re
import socket
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Any, cast

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

_METADATA = frozenset(
    map(ip_address, ("fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254", "fd00:c1::a9fe:a9fe", "100.100.100.200", "168.63.129.16"))
)
"""Metadata services outside the link-local ranges: AWS (EC2, EKS), Google and Oracle over IPv6, Alibaba Cloud, Azure's wire server."""

_NAT64 = IPv6Network("64:ff9b::/96")
_NUMBER = re.compile(r"(?:.*\.)?(?:[0-9]+|0[xX][0-9a-fA-F]*)\.?")
"""A host whose last label is a number is an address to inet_aton and to every browser, however it is spelled: no domain ends in one."""


_THREADS = 256
"""Names that are asked for at the same time: more than all questions of a scanner together have repositories."""


class ForbiddenAddressError(OSError):
    """The name leads to an address that no registry has."""


def forbidden(address: str, *, loopback: bool = False, public: bool = False) -> bool:
    """Whether no registry may be there.

    `loopback`: the administrator listed this host, so that loopback is meant. `public`: a private network is not meant.

    Names are not forbidden: they are judged by what they resolve to. An address in another spelling than its own (decimal, hexadecimal,
    octal, short, with a dot behind it) is: HTTP libraries take some of these for addresses, and ask no resolver.
    """
    try:
        ip: IPv4Address | IPv6Address = ip_address(address.strip("[]").partition("%")[0])
    except ValueError:
        return _NUMBER.fullmatch(address) is not None
    if isinstance(ip, IPv6Address) and (inner := _embedded(ip)) is not None:
        ip = inner
    if ip.is_loopback:
        return not loopback
    if public and not ip.is_global:
        return True
    return ip.is_link_local or ip.is_multicast or ip.is_unspecified or ip in _METADATA


def private(address: str) -> bool:
    """Whether an address that was connected to is in a private network. This machine is none: it is reached where it is listed."""
    try:
        ip = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    return not ip.is_global and not ip.is_loopback


def _embedded(ip: IPv6Address) -> IPv4Address | None:
    """The IPv4 address that an IPv6 address carries: mapped, 6to4, Teredo, NAT64."""
    if ip in _NAT64:
        return IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)


class _Names:
    """Asks the system for names, in threads of its own.

    A name whose servers do not answer holds a thread for half a minute, and anybody may name such names: in the few threads of the event
    loop they would keep every other name, and everything else that needs a thread, waiting.
    """

    def __init__(self) -> None:
        self.threads = ThreadPoolExecutor(_THREADS, "names")

    async def getaddrinfo(self, host: str, port: int, **asked: int) -> list[Any]:
        """As an event loop's."""
        return await asyncio.get_running_loop().run_in_executor(self.threads, partial(socket.getaddrinfo, host, port, **asked))

    async def getnameinfo(self, address: tuple[Any, ...], flags: int) -> tuple[str, str]:
        """As an event loop's."""
        return await asyncio.get_running_loop().run_in_executor(self.threads, socket.getnameinfo, address, flags)


class GuardedResolver(AbstractResolver):
    """Resolves names, and refuses a name as a whole when one of its addresses is forbidden.

    Args:
        listed: hosts, as `host` or `host:port`, that may be on loopback. One port of this machine says nothing of its others.
        public: the others may not be in a private network, either.
    """

    def __init__(self, listed: frozenset[str], *, public: bool = False) -> None:
        self._names = _Names()
        self._inner = ThreadedResolver(cast("asyncio.AbstractEventLoop", self._names))
        self._listed, self._public = listed, public

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> list[ResolveResult]:
        """Raises ForbiddenAddressError beside what resolving raises."""
        found = await self._inner.resolve(host, port, family)
        listed = f"{host}:{port}" in self._listed or (port in {80, 443} and host in self._listed)
        if any(forbidden(result["host"], loopback=listed, public=self._public and not listed) for result in found):
            raise ForbiddenAddressError(f"{host} leads to an address where no registry may be")
        return found

    async def close(self) -> None:
        """Waits for no name."""
        await self._inner.close()
        self._names.threads.shutdown(wait=False, cancel_futures=True)
