"""Addresses on the web: which URLs may be fetched, how they are shown, and which network addresses are public.

The rules for URLs:

- Only http and https; no user names and passwords; any port from 1 to 65535.
- A host is a name, an IPv4 address as four plain decimal numbers, or an IPv6 address in brackets without a zone.
  Systems read "2130706433", "0x7f.1", "0177.0.0.1" and "127.1" as IPv4, too; nobody who means well writes it so,
  and these are refused, whatever address they mean.
- Names in other scripts become ASCII first (IDNA 2003, as the standard library has it), so full-width digits and
  dots are seen as what they are. Where newer rules lead to another host, the name has to be given as "xn--...".
- A message shows neither query nor fragment nor user information: they may hold secrets.

The rules for network addresses:

- IPv4 is public unless it is listed here. IPv6 is public only within 2000::/3, the one block that is given out,
  and unless it is listed here. What Python itself does not call global is not public either; that alone would not
  do, as Python 3.11 calls multicast, NAT64 and 6to4 addresses global.
- An IPv4 address that is mapped into IPv6 (::ffff:a.b.c.d) is judged as what it is. All other forms that lead to an
  IPv4 address inside an IPv6 one (NAT64, 6to4, Teredo, ISATAP, "compatible") are refused, whatever is inside.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import NoReturn
from urllib.parse import quote, urlsplit

from showtell.errors import FetchError

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

PORTS = {"http": 80, "https": 443}
MAX_LENGTH = 8_000  # characters of a URL: what servers take
_SHOWN_LENGTH = 200  # of a path in a message

_URL = re.compile(r"[a-z][a-z0-9+.-]+://|data:|https?:", re.IGNORECASE)
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*):", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_LABEL = re.compile(r"[a-z0-9_-]{1,63}")  # of a name; underscores are against the rules, but exist
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")  # a name that ends so is read as IPv4
_PORT = re.compile(r"[0-9]{1,5}")
_OTHER_IN_NEWER_RULES = "ßẞς\u200c\u200d"  # IDNA 2003 and 2008 make different hosts of these
_SAFE_IN_PATHS = "%/:@!$&'()*+,;=~[]"

_IPV4 = tuple(
    (ipaddress.IPv4Network(network), kind)
    for network, kind in (
        ("0.0.0.0/8", "this machine itself"),
        ("10.0.0.0/8", "a private network"),
        ("100.64.0.0/10", "a network behind a provider's address translation"),
        ("127.0.0.0/8", "this machine itself"),
        ("168.63.129.16/32", "the metadata of a cloud machine"),
        ("169.254.0.0/16", "the local link, where cloud machines have their metadata"),
        ("172.16.0.0/12", "a private network"),
        ("192.0.0.0/24", "a block for protocols"),
        ("192.0.2.0/24", "a block for documentation"),
        ("192.88.99.0/24", "a former 6to4 relay"),
        ("192.168.0.0/16", "a private network"),
        ("198.18.0.0/15", "a block for benchmarks"),
        ("198.51.100.0/24", "a block for documentation"),
        ("203.0.113.0/24", "a block for documentation"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "a reserved block"),
    )
)
_IPV6 = tuple(
    (ipaddress.IPv6Network(network), kind)
    for network, kind in (
        ("::/128", "this machine itself"),
        ("::1/128", "this machine itself"),
        ("::/96", "an IPv4 address in an obsolete form"),
        ("::ffff:0:0:0/96", "an IPv4 address behind translation"),
        ("64:ff9b::/96", "an IPv4 address behind NAT64"),
        ("64:ff9b:1::/48", "an IPv4 address behind NAT64"),
        ("100::/64", "a block whose packets are dropped"),
        ("2001::/32", "an IPv4 address behind Teredo"),
        ("2001::/23", "a block for protocols"),
        ("2001:db8::/32", "a block for documentation"),
        ("2002::/16", "an IPv4 address behind 6to4"),
        ("3ffe::/16", "a former test network"),
        ("3fff::/20", "a block for documentation"),
        ("fc00::/7", "a private network"),
        ("fe80::/10", "the local link"),
        ("fec0::/10", "a private network in an obsolete form"),
        ("ff00::/8", "multicast"),
    )
)
_GIVEN_OUT = ipaddress.IPv6Network("2000::/3")
_ISATAP = (0x00005EFE, 0x02005EFE)  # begins the lower half of such addresses (RFC 5214, section 6.1)


@dataclass(frozen=True, slots=True)
class WebAddress:
    """A URL that may be asked for, in its parts."""

    scheme: str  # "http" or "https"
    host: str  # lower-case ASCII without a final dot; an IPv6 address without brackets
    port: int
    target: str  # path and query as they are sent: ASCII, and begins with "/"
    literal: IPAddress | None  # the address, where the host is one

    @property
    def authority(self) -> str:
        """Host and port, as the header Host wants them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The whole address; its query may hold secrets."""
        return f"{self.scheme}://{self.authority}{self.target}"

    @property
    def shown(self) -> str:
        """The address for messages: without its query."""
        path = self.target.partition("?")[0]
        if len(path) > _SHOWN_LENGTH:
            path = path[:_SHOWN_LENGTH] + "..."
        return f"{self.scheme}://{self.authority}{path}"


def is_url(text: str) -> bool:
    """Returns whether people who write this mean an address on the web, not a file; it may be one that is refused."""
    return _URL.match(text) is not None


def show_url(url: str) -> str:
    """Returns a URL for messages: without query, fragment and user information; cut where it is long."""
    try:
        return parse_address(url).shown
    except FetchError:
        return _show_refused(url)


def parse_address(url: str) -> WebAddress:
    """Returns the parts of a URL; its fragment is dropped.

    Raises:
        FetchError: it breaks one of the rules above. The message shows it without secrets.
    """

    def refuse(reason: str) -> NoReturn:
        raise FetchError(f"{_show_refused(url)}: {reason}")

    url = url.strip(" ")
    if len(url) > MAX_LENGTH:
        refuse(f"the address is too long: {len(url):,} characters, where {MAX_LENGTH:,} are allowed")
    if _CONTROL.search(url):
        refuse("the address holds control characters, such as tabs or line breaks")
    scheme = _SCHEME.match(url)
    if scheme is None:
        refuse("an address on the web begins with http:// or https://")
    if scheme[1].lower() not in PORTS:
        refuse(f"only http:// and https:// are fetched, not {scheme[1].lower()[:20]}:")
    try:
        parts = urlsplit(url)
        path = quote(parts.path or "/", safe=_SAFE_IN_PATHS)
        query = quote(parts.query, safe=_SAFE_IN_PATHS + "?")
    except ValueError:  # whose message may hold the user information
        refuse("the address cannot be read: brackets that do not fit, or characters that must not be there")
    if "@" in parts.netloc:
        refuse("user names and passwords in addresses are not supported; remove what stands before the @")
    if not parts.netloc:
        refuse(f"the address names no host; it looks like {parts.scheme}://host/path")
    host, port = _split_authority(parts.netloc)
    if port and (not _PORT.fullmatch(port) or not 1 <= int(port) <= 65535):
        refuse("the port must be a number from 1 to 65535")
    try:
        name, literal = _read_host(host)
    except ValueError as error:
        refuse(str(error))
    number = int(port) if port else PORTS[parts.scheme]
    return WebAddress(parts.scheme, name, number, f"{path}?{query}" if query else path, literal)


def why_not_public(address: IPAddress) -> str | None:
    """Returns what an address is if it is not public, for messages; None for a public one."""
    if isinstance(address, ipaddress.IPv4Address):
        kinds = [kind for network, kind in _IPV4 if address in network]
        return kinds[0] if kinds else None if address.is_global else "a reserved block"
    if address.scope_id is not None:
        return "an address of one network interface"
    if address.ipv4_mapped is not None:
        return why_not_public(address.ipv4_mapped)
    if (int(address) >> 32) & 0xFFFFFFFF in _ISATAP:
        return "an IPv4 address behind ISATAP"
    kinds = [kind for network, kind in _IPV6 if address in network]
    return kinds[0] if kinds else None if address in _GIVEN_OUT and address.is_global else "a reserved block"


def unmap(address: IPAddress) -> IPAddress:
    """Returns the IPv4 address that is mapped into an IPv6 one, and every other address as it is."""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _split_authority(authority: str) -> tuple[str, str]:
    """Returns the host, with its brackets, and the port or ""."""
    if authority.startswith("["):
        end = authority.rfind("]") + 1
        host, rest = authority[:end], authority[end:]
        return (host, rest[1:]) if rest[:1] in ("", ":") else (authority, "")
    host, _, port = authority.partition(":")
    return host, port


def _read_host(host: str) -> tuple[str, IPAddress | None]:
    """Returns a host in lower-case ASCII, and the address if it is one.

    Raises:
        ValueError: it is neither a name nor an address in its usual form. The message does not repeat it: what looks
            like a host may be part of a password.
    """
    if host.startswith("["):
        try:
            if "%" in host:
                raise ValueError
            address = ipaddress.IPv6Address(host[1:-1])
        except ValueError:
            raise ValueError("what stands in brackets must be an IPv6 address without a zone") from None
        return str(address), address
    if any(character in host for character in _OTHER_IN_NEWER_RULES):
        raise ValueError("the host has more than one reading; write it in its ASCII form, which holds xn--")
    try:
        if len(host) > 253:  # also spares the codec, which takes long for long names
            raise ValueError
        name = host.encode("idna").decode("ascii").lower().removesuffix(".")
        labels = name.split(".")
        if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
            raise ValueError
    except ValueError:  # UnicodeError is one
        raise ValueError("its host is neither a name nor an address") from None
    if not _NUMBER.fullmatch(labels[-1]):
        return name, None
    try:
        return name, ipaddress.IPv4Address(name)
    except ValueError:
        raise ValueError(
            "its host is a number; write an IPv4 address as four decimal numbers, as in 192.0.2.1"
        ) from None


def _show_refused(url: str) -> str:
    """Returns a URL that may be malformed, without what could be a secret in it."""
    url = url.strip(" ")
    if "@" in url:  # whatever stands before it may be a password, even with slashes and question marks in it
        scheme = _SCHEME.match(url)
        url = f"{scheme[0] if scheme else ''}//...@{re.split('[/?#]', url.rpartition('@')[2])[0]}"
    text = re.split("[?#]", url, maxsplit=1)[0][:_SHOWN_LENGTH]
    return text.encode("unicode_escape").decode("ascii") if text else "''"
