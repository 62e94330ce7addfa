"""The address at which this node is reached by the others."""

from __future__ import annotations

import fcntl
import ipaddress
import socket
import struct

from cluster.errors import ClusterError

_SIOCGIFADDR = 0x8915
"""netdevice(7)"""


def address_of(interface: str) -> str:
    """The IPv4 address of a network interface of this node. Raises ClusterError naming those there are."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            answer = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, struct.pack("256s", interface.encode()[:15]))
        except OSError as error:
            names = ", ".join(name for _, name in socket.if_nameindex())
            raise ClusterError(
                f"{socket.gethostname()} has no interface {interface!r} with an IPv4 address (it has {names}): "
                "set `interface` in the profile to one that every node has"
            ) from error
    return socket.inet_ntoa(answer[20:24])


def is_loopback(address: str) -> bool:
    """Whether only this node can reach `host:port`, the host being a number."""
    return ipaddress.ip_address(address.rpartition(":")[0].strip("[]")).is_loopback
