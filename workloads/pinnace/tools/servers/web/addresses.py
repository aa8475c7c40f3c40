"""Which addresses a fetch may connect to. Pure.

The name is resolved once, every address it has must be public, and the connection goes to exactly those: a second
answer of the name server can't change where it ends (DNS rebinding).
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field

from yarl import URL

from pinnace.tools.servers.web.errors import AddressDenied

PORTS = frozenset({80, 443, 8080, 8443})
_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052: an IPv4 address within
_LONGEST = 2000
_NUMBER = re.compile(r"\d+|0[xX][0-9a-fA-F]*")
IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True)
class Policy:
    """`stand_ins` maps a host (with its port) to a local origin that plays it, as the offline world does; no other."""

    stand_ins: dict[str, str] = field(default_factory=dict)
    ports: frozenset[int] = PORTS

    def target(self, address: str) -> URL:
        """The address, if it may be asked for.

        It is read by the parser that the HTTP client uses: what two parsers read differently is a way around a check
        (`127\u30020\u30020\u30021`, which IDNA turns into 127.0.0.1).

        Raises:
            AddressDenied: It is no plain http or https address on a usual port, or is a private one.
        """
        try:
            url = URL(address.strip())
            host, port = url.raw_host, url.port
        except (ValueError, TypeError) as error:
            raise AddressDenied(f"{address[:200]} is no address: {error}") from None
        if len(address) > _LONGEST or any(ord(each) <= ord(" ") for each in address.strip()):
            raise AddressDenied("an address has at most 2000 characters and no spaces")
        if url.scheme not in {"http", "https"} or not host:
            raise AddressDenied(f"{address[:200]}: only http and https addresses can be fetched")
        if url.user is not None or url.password is not None:
            raise AddressDenied("an address with a user name or password is not fetched")
        if url.host_port_subcomponent not in self.stand_ins and port not in self.ports:
            raise AddressDenied(f"port {port} is not fetched; allowed are {', '.join(map(str, sorted(self.ports)))}")
        if literal := literal_address(host):
            require_public(host, literal)
        elif _NUMBER.fullmatch(host.rstrip(".").rpartition(".")[2]):
            # 127.1, 0x7f.1, 2130706433: some resolvers take it for an address, others do not.
            raise AddressDenied(f"{host} is no host name; an address is written as four numbers")
        return url


def literal_address(host: str) -> IpAddress | None:
    """The address if the host is one."""
    try:
        return ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return None


def require_public(host: str, address: IpAddress) -> None:
    """Refuses every address that is not on the public internet, also one that is hidden in another.

    Raises:
        AddressDenied: As said.
    """
    for each in (address, *_within(address)):
        # is_global: not private, loopback, link-local (cloud metadata), shared, reserved, documentation or unspecified.
        if not each.is_global or each.is_multicast:
            raise AddressDenied(
                f"{host} leads to {address}, which is not on the public web; such addresses are not fetched"
            )


def _within(address: IpAddress) -> list[IpAddress]:
    """IPv4 addresses that an IPv6 address carries: mapped, 6to4 (RFC 3056), Teredo (RFC 4380), NAT64."""
    if not isinstance(address, ipaddress.IPv6Address):
        return []
    carried: list[IpAddress | None] = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    if address in _NAT64:
        carried.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return [each for each in carried if each is not None]
