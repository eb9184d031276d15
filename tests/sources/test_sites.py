"""Sites by address: the longest prefix wins."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_address, ip_network

from hypothesis import given
from hypothesis import strategies as st

from recorder.sources.sites import Address, Network, SiteMap

# Few bits vary, so that networks hold each other and addresses fall into them.
ADDRESSES = st.one_of(
    st.integers(0, 15).map(lambda low: IPv4Address(0x0A000000 + low)),
    st.integers(0, 15).map(lambda low: IPv6Address((0xFD << 120) + low)),
)


NETWORKS = st.builds(
    lambda address, host_bits: ip_network(f"{address}/{address.max_prefixlen - host_bits}", strict=False),
    ADDRESSES,
    st.integers(0, 5),
)


@given(
    sites=st.dictionaries(NETWORKS, st.text(min_size=1, max_size=2), max_size=12),
    fallback=st.none() | st.just("fallback"),
    address=ADDRESSES,
)
def test_longest_prefix_wins(sites: dict[Network, str], fallback: str | None, address: Address) -> None:
    """An address has the site of the smallest network that holds it, else the fallback."""
    holding = [network for network in sites if address in network]
    smallest = max(holding, key=lambda network: network.prefixlen, default=None)
    assert SiteMap(sites, fallback).site_of(address) == (sites[smallest] if smallest else fallback)


def test_whole_world_is_a_network() -> None:
    """0.0.0.0/0 holds every IPv4 address and no IPv6 address."""
    sites = SiteMap({IPv4Network("0.0.0.0/0"): "anybody"})
    assert sites.site_of(ip_address("203.0.113.9")) == "anybody"
    assert sites.site_of(ip_address("::1")) is None
