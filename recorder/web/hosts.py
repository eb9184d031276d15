"""Which names of the recorder a request may ask for.

Takes the `Host` of a request, tells whether it is one that only the owner or the own network can give to
this machine. Never resolves a name.

A page of another origin can let its own name point at the recorder's address, and the owner's browser then
takes what the recorder answers for that page's own (DNS rebinding). Such a name is one of the public DNS.
"""

from collections.abc import Container
from ipaddress import ip_address
from typing import Final

REMEDY: Final = (
    "this recorder does not go by the name that was asked for: use its IP address, or set http.hosts to the "
    "names that you gave it"
)
# What the public DNS does not hand out.
_OWN_NETWORK: Final = (".local", ".home.arpa", ".lan", ".internal", ".fritz.box")


def is_ours(host: str, named: Container[str]) -> bool:
    """Whether a `Host` is an address, a name of the own network, or one of the `named`, in lower case."""
    if host.startswith("["):
        return _is_address(host[1:].partition("]")[0])
    name = host.partition(":")[0].removesuffix(".").lower()
    is_own = bool(name) and ("." not in name or name.endswith(_OWN_NETWORK))
    return is_own or name in named or _is_address(name)


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
