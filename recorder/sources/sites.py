"""Which home sends from which address.

Takes networks with the site of each, gives the site of an address. Never looks a name up.
"""

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address


class SiteMap:
    """Sites by network: the longest prefix that holds an address wins.

    Args:
        sites: the site of each network.
        fallback: the site of every other address; None where such an address has none.
    """

    def __init__(self, sites: Mapping[Network, str], fallback: str | None = None) -> None:
        self._fallback = fallback
        # By IP version and prefix length, longest first; then by the bits of the prefix.
        self._prefixes: dict[tuple[int, int], dict[int, str]] = {}
        for network in sorted(sites, key=lambda network: network.prefixlen, reverse=True):
            shift = network.max_prefixlen - network.prefixlen
            prefixes = self._prefixes.setdefault((network.version, shift), {})
            prefixes[int(network.network_address) >> shift] = sites[network]
        self.names = frozenset(sites.values()) | ({fallback} if fallback is not None else set())

    def site_of(self, address: Address) -> str | None:
        """Give the site of an address, or None where it has none."""
        bits = int(address)
        for (version, shift), prefixes in self._prefixes.items():
            if version == address.version and (site := prefixes.get(bits >> shift)) is not None:
                return site
        return self._fallback
