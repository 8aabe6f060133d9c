"""Which URLs and network addresses are refused: every trick that is known, and properties over all addresses."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from showtell.errors import FetchError
from showtell.images.addresses import WebAddress, is_url, parse_address, show_url, unmap, why_not_public

# URLs


def refused(url: str, *words: str) -> str:
    with pytest.raises(FetchError) as caught:
        parse_address(url)
    message = str(caught.value)
    for word in words:
        assert word in message, message
    return message


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://example.com", "http://example.com/"),
        ("HTTP://EXAMPLE.com:80/A/b.JPG", "http://example.com/A/b.JPG"),
        ("https://example.com:443/a?b=c#part", "https://example.com/a?b=c"),
        ("https://example.com:80/a", "https://example.com:80/a"),
        ("  https://example.com/a  ", "https://example.com/a"),
        ("http://example.com./a", "http://example.com/a"),
        ("http://example.com?b", "http://example.com/?b"),
        ("http://example.com:/a", "http://example.com/a"),
        ("http://example.com/a b/ü.png?q=é è", "http://example.com/a%20b/%C3%BC.png?q=%C3%A9%20%C3%A8"),
        ("http://example.com/%61%2F?%20", "http://example.com/%61%2F?%20"),  # what is quoted stays as it is
        ("http://example.com/a@b.png", "http://example.com/a@b.png"),
        ("http://my_host.example.com/", "http://my_host.example.com/"),
        ("http://münchen.example/", "http://xn--mnchen-3ya.example/"),
        ("http://例え。テスト/", "http://xn--r8jz45g.xn--zckzah/"),
        ("http://93.184.216.34:8080/a", "http://93.184.216.34:8080/a"),
        ("http://９３.１８４.２１６.３４/a", "http://93.184.216.34/a"),
        ("http://[2606:2800:0220:0001::0001]/a", "http://[2606:2800:220:1::1]/a"),
        ("http://[2606:2800:220:1::1]:8080/a", "http://[2606:2800:220:1::1]:8080/a"),
        ("http://1e100.net/", "http://1e100.net/"),
        ("http://0x7f.example/", "http://0x7f.example/"),
    ],
)
def test_urls_in_their_one_form(url: str, expected: str) -> None:
    assert parse_address(url).url == expected
    assert parse_address(expected).url == expected
    assert (parse_address(url).literal is None) == any(
        letter in expected for letter in ("example", ".net", "xn--")
    )


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "begins with http://"),
        ("example.com/a.jpg", "begins with http://"),
        ("//example.com/a.jpg", "begins with http://"),
        ("file:///etc/passwd", "not file:"),
        ("FILE:///etc/passwd", "not file:"),
        ("ftp://example.com/a.jpg", "not ftp:"),
        ("gopher://example.com/", "not gopher:"),
        ("data:image/png;base64,iVBORw0KGgo=", "not data:"),
        ("javascript:alert(1)", "not javascript:"),
        ("jar:http://example.com!/a", "not jar:"),
        ("http:", "names no host"),
        ("http:/example.com/a", "names no host"),
        ("http:example.com", "names no host"),
        ("http:///a", "names no host"),
        ("http:\\\\example.com\\a", "names no host"),
        ("http://:80/a", "neither a name nor an address"),
        ("http://example.com\\a", "neither a name nor an address"),
        ("http://exa mple.com/", "neither a name nor an address"),
        ("http://example..com/", "neither a name nor an address"),
        ("http://.example.com/", "neither a name nor an address"),
        ("http://example.com../", "neither a name nor an address"),
        ("http://./", "neither a name nor an address"),
        ("http://127.0.0.%31/", "neither a name nor an address"),
        ("http://a,b/", "neither a name nor an address"),
        ("http://" + "a" * 64 + ".com/", "neither a name nor an address"),
        ("http://" + "a." * 130 + "com/", "neither a name nor an address"),
        ("http://" + "ü" * 200 + ".com/", "neither a name nor an address"),
        ("http://::1/", "number from 1 to 65535"),
        ("http://a／b/", "cannot be read"),
        ("http://[::1/", "cannot be read"),
        ("http://a]/", "cannot be read"),
        ("http://example.com/\ud800", "cannot be read"),
        ("http://[::1]x/", "brackets"),
        ("http://[127.0.0.1]/", "brackets"),
        ("http://[v1.x]/", "brackets"),
        ("http://[fe80::1%eth0]/", "without a zone"),
        ("http://[fe80::1%25eth0]/", "without a zone"),
        ("http://[2606:2800:220:1::1%1]/", "without a zone"),
        ("http://straße.example/", "more than one reading"),
        ("http://a\u200db.example/", "more than one reading"),
        ("http://example.com:0/", "number from 1 to 65535"),
        ("http://example.com:65536/", "number from 1 to 65535"),
        ("http://example.com:99999999999999999999/", "number from 1 to 65535"),
        ("http://example.com:80:80/", "number from 1 to 65535"),
        ("http://example.com:+80/", "number from 1 to 65535"),
        ("http://example.com:٨٠/", "number from 1 to 65535"),
        ("http://example.com/a\nHost: evil", "control characters"),
        ("http://exam\tple.com/", "control characters"),
        ("\x00http://example.com/", "control characters"),
        ("http://example.com/\x7f", "control characters"),
        ("http://example.com/" + "a" * 8000, "8,019 characters"),
    ],
)
def test_urls_that_are_refused(url: str, words: str) -> None:
    refused(url, words)


@pytest.mark.parametrize(
    "host",
    [
        "2130706433",
        "2130706433.",
        "0x7f000001",
        "0X7F000001",
        "0x7f.1",
        "0x7f.0x0.0x0.0x1",
        "017700000001",
        "0177.0.0.1",
        "127.1",
        "127.0.1",
        "127.0.0.01",
        "127.0.0.0x1",
        "127.0.0.0x",
        "127.0.0.256",
        "1.2.3.4.5",
        "1",
        "0",
        "２１３０７０６４３３",
        "0x7f.1。",
        "①②⑦.①",
        "example.1",
        "169.254.43518",
        "3232235777",
    ],
)
def test_hosts_that_are_numbers_in_another_form(host: str) -> None:
    refused(f"http://{host}/", "its host is a number", "four decimal numbers")
    refused(f"https://{host}:8443/a", "its host is a number")


def inet_aton_forms(number: int) -> st.SearchStrategy[str]:
    """All that the C library reads as one IPv4 address: one to four parts, each decimal, octal or hexadecimal."""

    def written(part: int) -> st.SearchStrategy[str]:
        return st.sampled_from([str(part), f"{part:#x}", f"{part:#X}", f"0{part:o}", f"0x000{part:x}"])

    def forms(count: int) -> st.SearchStrategy[str]:
        heads = [(number >> (24 - 8 * index)) & 255 for index in range(count - 1)]
        parts = [*heads, number & ((1 << (8 * (5 - count))) - 1)]
        return st.tuples(*map(written, parts)).map(".".join)

    return st.integers(1, 4).flatmap(forms)


@given(st.integers(0, 2**32 - 1).flatmap(lambda number: st.tuples(st.just(number), inet_aton_forms(number))))
def test_only_the_usual_form_of_an_ipv4_address_is_read(case: tuple[int, str]) -> None:
    number, host = case
    if host == str(ipaddress.IPv4Address(number)):
        assert parse_address(f"http://{host}/").literal == ipaddress.IPv4Address(number)
    else:
        refused(f"http://{host}/", "its host is a number")


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("１２７.０.０.１", "127.0.0.1"),
        ("127。0。0。1", "127.0.0.1"),
        ("127．0．0．1", "127.0.0.1"),
        ("127｡0｡0｡1", "127.0.0.1"),
        ("①②⑦.⓪.⓪.①", "127.0.0.1"),
        ("127.0.0\u00ad.1", "127.0.0.1"),
        ("127.0.0.1.", "127.0.0.1"),
        ("169.254.169.254。", "169.254.169.254"),
    ],
)
def test_addresses_in_other_scripts_are_seen_as_addresses(host: str, address: str) -> None:
    assert parse_address(f"http://{host}/").literal == ipaddress.ip_address(address)


@pytest.mark.parametrize("host", ["ⓛⓞⓒⓐⓛⓗⓞⓢⓣ", "LOCALHOST", "ｌｏｃａｌｈｏｓｔ", "localhost.", "ℓocalhost"])
def test_names_in_other_scripts_are_seen_as_names(host: str) -> None:
    assert parse_address(f"http://{host}/").host == "localhost"


@given(st.text(max_size=60).map(lambda text: "http://" + text) | st.text(max_size=60))
@example("http://[::ffff:1.2.3.4]/")
@example("http://\u2100/")
def test_any_text_is_an_address_or_refused(text: str) -> None:
    shown = show_url(text)
    assert shown.isascii()
    assert shown.isprintable()
    try:
        address = parse_address(text)
    except FetchError as error:
        reason = str(error)
    else:
        check_address(address)
        return
    assert reason.startswith(f"{shown}: ")


def check_address(address: WebAddress) -> None:
    # What is sent to the server cannot break out of its line.
    for part in (address.host, address.target, address.authority):
        assert part.isascii()
        assert not any(letter <= " " or letter == "\x7f" for letter in part)
    assert address.target.startswith("/")
    assert parse_address(address.url) == address


# What messages show


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://example.com/a.jpg?token=SECRET#SECRET", "https://example.com/a.jpg"),
        ("https://example.com/a.jpg#SECRET?x", "https://example.com/a.jpg"),
        ("https://example.com:8443/a%20b.jpg?SECRET", "https://example.com:8443/a%20b.jpg"),
        ("https://anna:SECRET@example.com/a.jpg", "https://...@example.com"),
        ("https://SECRET@example.com", "https://...@example.com"),
        ("https://anna:SEC/RET?SEC#RET@example.com/a.jpg?SECRET", "https://...@example.com"),
        ("https://anna:SECRET@ex ample.com/", "https://...@ex ample.com"),
        ("http://anna:SECRET@[::1/a", "http://...@[::1"),
        ("anna:SECRET@example.com/a", "anna://...@example.com"),
        ("http://a／b:SECRET@example.com/", "http://...@example.com"),
        ("ftp://example.com/a?SECRET", "ftp://example.com/a"),
        ("http://1/a?SECRET", "http://1/a"),
        ("http://a\x1b[31m\n/a?SECRET", "http://a\\x1b[31m\\n/a"),
        ("", "''"),
    ],
)
def test_messages_show_no_secrets(url: str, shown: str) -> None:
    assert show_url(url) == shown
    try:
        message = parse_address(url).shown
    except FetchError as error:
        message = str(error)
    assert "SEC" not in message
    assert "RET" not in message
    assert message.startswith(shown)


def test_long_addresses_are_cut_in_messages() -> None:
    assert show_url("https://example.com/" + "a" * 300) == f"https://example.com/{'a' * 199}..."
    assert len(refused("ftp://example.com/" + "a" * 7000)) < 300


def test_user_information_is_refused() -> None:
    for url in (
        "http://a@example.com/",
        "http://a:b@example.com/",
        "http://@example.com/",
        "http://1.2.3.4@127.0.0.1/",
    ):
        refused(url, "user names and passwords")


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("http://example.com/a.jpg", True),
        ("HTTPS://example.com", True),
        ("http:/example.com", True),  # refused later, with a reason
        ("file:///a.jpg", True),
        ("ftp://example.com/a", True),
        ("data:image/png;base64,AAAA", True),
        ("a.jpg", False),
        ("/pictures/a.jpg", False),
        ("C:\\pictures\\a.jpg", False),
        ("C:/pictures/a.jpg", False),
        ("http.jpg", False),
        ("a: b://c.jpg", False),
        ("", False),
    ],
)
def test_urls_are_told_from_files(text: str, meant: bool) -> None:
    assert is_url(text) is meant


# Network addresses

NOT_PUBLIC = {
    "0.0.0.0": "this machine",
    "0.1.2.3": "this machine",
    "10.0.0.1": "private",
    "100.64.0.1": "address translation",
    "100.100.100.200": "address translation",  # a cloud's metadata
    "100.127.255.255": "address translation",
    "127.0.0.1": "this machine",
    "127.255.255.254": "this machine",
    "168.63.129.16": "metadata",
    "169.254.169.254": "metadata",
    "169.254.0.1": "local link",
    "172.16.0.1": "private",
    "172.31.255.255": "private",
    "192.0.0.8": "protocols",
    "192.0.0.192": "protocols",  # a cloud's metadata
    "192.0.2.1": "documentation",
    "192.88.99.1": "6to4",
    "192.168.1.1": "private",
    "198.18.0.1": "benchmarks",
    "198.19.255.255": "benchmarks",
    "198.51.100.1": "documentation",
    "203.0.113.1": "documentation",
    "224.0.0.1": "multicast",
    "239.255.255.255": "multicast",
    "240.0.0.1": "reserved",
    "255.255.255.255": "reserved",
    "::": "this machine",
    "::1": "this machine",
    "::2": "obsolete form",
    "::127.0.0.1": "obsolete form",
    "::8.8.8.8": "obsolete form",
    "::ffff:127.0.0.1": "this machine",
    "::ffff:10.0.0.1": "private",
    "::ffff:169.254.169.254": "metadata",
    "::ffff:0:127.0.0.1": "translation",
    "64:ff9b::10.0.0.1": "NAT64",
    "64:ff9b::8.8.8.8": "NAT64",
    "64:ff9b:1::10.0.0.1": "NAT64",
    "64:ff9b:1:ffff::1": "NAT64",
    "64:ff9c::1": "reserved",
    "100::1": "dropped",
    "1000::1": "reserved",
    "2001::1": "Teredo",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2": "Teredo",
    "2001:2::1": "protocols",
    "2001:10::1": "protocols",
    "2001:20::1": "protocols",
    "2001:db8::1": "documentation",
    "2002:7f00:1::": "6to4",
    "2002:808:808::1": "6to4",
    "3ffe::1": "former test network",
    "3fff::1": "documentation",
    "3fff:fff:ffff::1": "documentation",
    "4000::1": "reserved",
    "5f00::1": "reserved",
    "fc00::1": "private",
    "fd00:ec2::254": "private",  # a cloud's metadata
    "fd20:ce::254": "private",  # another's
    "fe80::1": "local link",
    "fe80::a9fe:a9fe": "local link",
    "fe80::1%eth0": "interface",
    "2606:2800:220:1::1%eth0": "interface",
    "::ffff:8.8.8.8%1": "interface",
    "fec0::1": "obsolete form",
    "ff02::1": "multicast",
    "ff0e::1": "multicast",
    "2606:2800:220:1:0:5efe:7f00:1": "ISATAP",
    "2606:2800:220:1:200:5efe:808:808": "ISATAP",
}
PUBLIC = (
    "1.1.1.1",
    "8.8.8.8",
    "9.255.255.255",
    "11.0.0.0",
    "93.184.216.34",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.0",
    "168.63.129.15",
    "169.253.255.255",
    "169.255.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "192.0.1.0",
    "192.167.255.255",
    "192.169.0.0",
    "198.17.255.255",
    "198.20.0.0",
    "223.255.255.255",
    "2606:2800:220:1:248:1893:25c8:1946",
    "2a00:1450:4001:81b::200e",
    "2001:200::1",
    "2001:4860:4860::8888",
    "2003::1",
    "2400::1",
    "2600:1f18::1",
    "::ffff:8.8.8.8",
)


@pytest.mark.parametrize(("text", "kind"), NOT_PUBLIC.items(), ids=lambda value: str(value).replace(":", "_"))
def test_addresses_that_are_not_public(text: str, kind: str) -> None:
    found = why_not_public(ipaddress.ip_address(text))
    assert found is not None
    assert kind in found


@pytest.mark.parametrize("text", PUBLIC)
def test_addresses_that_are_public(text: str) -> None:
    assert why_not_public(ipaddress.ip_address(text)) is None


any_ipv4 = st.ip_addresses(v=4)  # draws from the special blocks often


@given(any_ipv4)
def test_an_ipv4_address_inside_an_ipv6_one_is_judged_or_refused(inner: ipaddress.IPv4Address) -> None:
    number = int(inner)
    mapped = ipaddress.IPv6Address((0xFFFF << 32) | number)
    assert why_not_public(mapped) == why_not_public(inner)
    assert unmap(mapped) == inner
    for outer in (
        number,
        (0xFFFF << 48) | number,
        (0x64FF9B << 96) | number,
        (0x64FF9B0001 << 80) | number,
        (0x2002 << 112) | (number << 80) | 1,
        (0x2001 << 112) | (~number & 0xFFFFFFFF),
        (0x260628000220 << 80) | (0x5EFE << 32) | number,
    ):
        assert why_not_public(ipaddress.IPv6Address(outer)) is not None


@given(st.ip_addresses())
def test_what_python_calls_special_is_not_public(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    special = (
        address.is_private
        or address.is_loopback
        or address.is_link_local
        or address.is_multicast
        or address.is_reserved
        or address.is_unspecified
        or not address.is_global
    )
    if special and address.version == 4:
        assert why_not_public(address) is not None
    if address.version == 6 and unmap(address) is address and int(address) >> 125 != 1:  # outside of 2000::/3
        assert why_not_public(address) is not None
