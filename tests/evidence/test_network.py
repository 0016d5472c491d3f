import asyncio
import socket
import threading
from typing import Any

import pytest

from mlwarden.evidence.network import GuardedResolver, forbidden, private


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",
        "[fe80::1%eth0]",
        "fe80::1",
        "0.0.0.0",
        "::",
        "224.0.0.1",
        "127.0.0.1",
        "::1",
        "::ffff:169.254.169.254",
        "::ffff:127.0.0.1",
        "2002:a9fe:a9fe::",
        "64:ff9b::169.254.169.254",
        "fd00:ec2::254",
        "100.100.100.200",
        "168.63.129.16",
        "fd20:ce::254",
        "2852039166",
        "0xa9fea9fe",
        "0xA9.0xFE.0xA9.0xFE",
        "0251.0376.0251.0376",
        "025177524776",
        "169.254.43518",
        "169.16689662",
        "169.254.169.254.",
        "127.1",
        "0",
        "metadata.0x7f",
    ],
)
def test_no_registry_is_at_metadata_services_or_on_this_machine(address: str) -> None:
    assert forbidden(address)


@pytest.mark.parametrize(
    "address",
    [
        "10.0.0.5",
        "192.168.1.2",
        "fd12::1",
        "8.8.8.8",
        "2001:db8::1",
        "registry.example",
        "registry.example.",
        "0xcafe.example",
        "1.example",
        "x0",
        "example.0xg",
        "",
    ],
)
def test_private_networks_and_names_are_where_registries_are(address: str) -> None:
    assert not forbidden(address)


def test_loopback_is_allowed_where_the_administrator_listed_the_host() -> None:
    assert not forbidden("127.0.0.1", loopback=True)
    assert forbidden("169.254.169.254", loopback=True)


@pytest.mark.parametrize("address", ["10.0.0.5", "192.168.1.2", "172.16.0.1", "100.64.0.1", "fd12::1", "::ffff:10.0.0.5", "127.0.0.1"])
def test_where_a_registry_leads_is_no_private_network(address: str) -> None:
    assert forbidden(address, public=True)
    assert not any(forbidden(each, public=True) for each in ("8.8.8.8", "2606:4700::1", "registry.example"))


def test_an_address_of_a_private_network_is_told_from_the_others() -> None:
    assert all(map(private, ("10.0.0.5", "192.168.1.2", "100.64.0.1", "fd12::1", "fe80::1%eth0")))
    assert not any(map(private, ("8.8.8.8", "2606:4700::1", "127.0.0.1", "::1", "", "registry.example")))


async def test_names_whose_servers_do_not_answer_keep_no_other_name_from_being_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as six verified digests have repositories. No name server here hangs, so the system's function does."""
    over, ask = threading.Event(), socket.getaddrinfo

    def slow(host: str, *args: Any, **asked: Any) -> Any:
        if host.endswith(".invalid"):
            over.wait(60)
            raise socket.gaierror(socket.EAI_AGAIN, "no answer")
        return ask(host, *args, **asked)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    resolver = GuardedResolver(frozenset({"localhost:5000"}))
    hanging = [asyncio.create_task(resolver.resolve(f"{number}.invalid", 443)) for number in range(96)]
    try:
        await asyncio.sleep(0)
        async with asyncio.timeout(30):
            assert await resolver.resolve("localhost", 5000)
        assert not any(task.done() for task in hanging)
    finally:
        over.set()
        await asyncio.gather(*hanging, return_exceptions=True)
        await resolver.close()
