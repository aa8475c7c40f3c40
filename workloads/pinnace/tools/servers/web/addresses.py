"""Which addresses a fetch may connect to. Pure.

The name is resolved once, every address it has must be public, and the connection goes to exactly those: a second
answer of the name server can't change where it ends (DNS rebinding).
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from urllib.parse import SplitResult, urlsplit

from pinnace.tools.servers.web.errors import AddressDenied

PORTS = frozenset({80, 443, 8080, 8443})
_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052: an IPv4 address within
_LONGEST = 2000
IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True)
class Policy:
    """`stand_ins` maps a host (with its port) to a local origin that plays it, as the offline world does; no other."""

    stand_ins: dict[str, str] = field(default_factory=dict)
    ports: frozenset[int] = PORTS

    def target(self, url: str) -> SplitResult:
        """The parts of an address that may be asked for.

        Raises:
            AddressDenied: It is no plain http or https address on a usual port.
        """
        try:
            parts = urlsplit(url.strip())
            port = parts.port or (443 if parts.scheme == "https" else 80)
        except ValueError as error:
            raise AddressDenied(f"{url[:200]} is no address: {error}") from None
        if len(url) > _LONGEST or any(ord(each) < 33 for each in url.strip()):
            raise AddressDenied("an address has at most 2000 characters and no spaces")
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise AddressDenied(f"{url[:200]}: only http and https addresses can be fetched")
        if parts.username is not None or parts.password is not None:
            raise AddressDenied("an address with a user name or password is not fetched")
        if parts.netloc not in self.stand_ins and port not in self.ports:
            raise AddressDenied(f"port {port} is not fetched; allowed are {', '.join(map(str, sorted(self.ports)))}")
        if literal := literal_address(parts.hostname):
            require_public(parts.hostname, literal)
        return parts


def literal_address(host: str) -> IpAddress | None:
    """The address if the host is one. What only some resolvers take for one (0x7f.1) is resolved, and then checked."""
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
