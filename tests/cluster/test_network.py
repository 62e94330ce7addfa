"""Addresses of this node."""

from __future__ import annotations

import socket

import pytest

from cluster.errors import ClusterError
from cluster.network import address_of, is_loopback


def test_the_address_of_an_interface() -> None:
    """Every machine has the loopback."""
    assert "127.0.0.1" == address_of("lo")


def test_an_interface_that_is_not_there() -> None:
    """The error names those that are, and the key to change."""
    with pytest.raises(ClusterError) as error:
        address_of("ib7")
    names = ", ".join(name for _, name in socket.if_nameindex())
    assert (
        f"{socket.gethostname()} has no interface 'ib7' with an IPv4 address (it has {names}): "
        "set `interface` in the profile to one that every node has"
    ) == str(error.value)


@pytest.mark.parametrize(
    ("address", "expected"), [("127.0.1.1:6379", True), ("10.9.0.5:1", False), ("[::1]:1", True)]
)
def test_addresses_that_only_this_node_can_reach(address: str, expected: bool) -> None:
    """All of 127.0.0.0/8 is: Debian gives the host's name 127.0.1.1."""
    assert expected == is_loopback(address)
