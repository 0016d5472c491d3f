import pytest

from mlwarden.evidence.network import forbidden


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
    ],
)
def test_no_registry_is_at_metadata_services_or_on_this_machine(address: str) -> None:
    assert forbidden(address)


@pytest.mark.parametrize("address", ["10.0.0.5", "192.168.1.2", "fd12::1", "8.8.8.8", "2001:db8::1", "registry.example", ""])
def test_private_networks_and_names_are_where_registries_are(address: str) -> None:
    assert not forbidden(address)


def test_loopback_is_allowed_where_the_administrator_listed_the_host() -> None:
    assert not forbidden("127.0.0.1", loopback=True)
    assert forbidden("169.254.169.254", loopback=True)
