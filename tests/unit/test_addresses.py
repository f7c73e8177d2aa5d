"""Which URLs and addresses a callback may go to."""

import ipaddress
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dispatcher.errors import InvalidInput
from dispatcher.rules.addresses import AddressPolicy, CallbackUrl, parse_callback_url
from dispatcher.rules.networks import is_public

PUBLIC = {
    "well known": "8.8.8.8 1.1.1.1 93.184.216.34 2606:4700:4700::1111 2a00:1450:4001::200e ::ffff:8.8.8.8",
    "beside 10/8": "9.255.255.255 11.0.0.0",
    "beside 100.64/10": "100.63.255.255 100.128.0.0",
    "beside 127/8": "126.255.255.255 128.0.0.0",
    "beside 169.254/16": "169.253.255.255 169.255.0.0",
    "beside 172.16/12": "172.15.255.255 172.32.0.0",
    "beside 192.0.0/24": "191.255.255.255 192.0.1.0",
    "beside 192.88.99/24": "192.88.98.255 192.88.100.0",
    "beside 192.168/16": "192.167.255.255 192.169.0.0",
    "beside 198.18/15": "198.17.255.255 198.20.0.0",
    "beside 224/4": "223.255.255.255",
    "beside 2001::/23": "2000:ffff::1 2001:200::1",
    "beside 2001:db8::/32": "2001:db7:: 2001:db9::",
    "beside 2002::/16": "2001:ffff:: 2003::1",
    "beside 3fff::/20": "3ffe::1 3fff:1000::1",
    "beside internal ones": "168.63.129.15 168.63.129.17 34.118.223.255 34.118.240.0 161.25.255.255 161.27.0.0 166.12.0.0",
    "NAT64 of public ones": "64:ff9b::8.8.8.8 64:ff9b::808:808 64:ff9b::168.63.129.17",
    "beside ISATAP": "2606:4700::100:5efe:1 2606:4700::5eff:0:1 2606:4700::5efe:1",
}

NOT_PUBLIC = {
    "this network": "0.0.0.0 0.255.255.255 :: ::ffff:0.0.0.0",
    "loopback": "127.0.0.1 127.255.255.255 ::1 ::ffff:127.0.0.1",
    "private": "10.0.0.0 10.255.255.255 172.16.0.0 172.31.255.255 192.168.0.0 192.168.255.255 ::ffff:10.0.0.1",
    "shared by carriers": "100.64.0.0 100.127.255.255",
    "link-local and metadata": "169.254.0.1 169.254.169.254 ::ffff:169.254.169.254 fe80::1 febf::1",
    "protocol assignments": "192.0.0.0 192.0.0.9 192.0.0.10 192.0.0.192 192.0.0.255",
    "6to4 relays": "192.88.99.0 192.88.99.1 192.88.99.255 ::ffff:192.88.99.1",
    "documentation": "192.0.2.1 198.51.100.1 203.0.113.1 2001:db8::1 2001:db8:ffff::1 3fff:: 3fff:fff::1",
    "benchmarks": "198.18.0.0 198.19.255.255 2001:2::1",
    "multicast": "224.0.0.1 239.255.255.255 ::ffff:224.0.0.1 ff02::1 ff0e::1",
    "reserved": "240.0.0.1 255.255.255.255 1fff:ffff::1 4000::1 5f00::1 100::1",
    "IPv4-compatible": "::7f00:1 ::808:808",
    "NAT64": "64:ff9b:: 64:ff9b::169.254.169.254 64:ff9b::10.0.0.1 64:ff9b::168.63.129.16 64:ff9b::224.0.0.1",
    "beside NAT64": "64:ff9b::1:0:0 64:ff9a:: 64:ff9b:1::1 64:ff9b:1::808:808 64:ff9b:2::808:808",
    "ISATAP": "2606:4700::5efe:808:808 2606:4700::5efe:a00:1 2606:4700::200:5efe:a9fe:a9fe",
    "AS112 and multicast relays": "192.31.196.1 192.175.48.6 192.52.193.1 2620:4f:8000::1",
    "IPv4-translated": "::ffff:0:808:808 ::ffff:0:7f00:1",
    "Azure": "168.63.129.16 ::ffff:168.63.129.16",
    "Google": "34.118.224.1 34.118.239.255 199.36.153.4 199.36.153.11 2600:2d00:2:1000::1 2600:2d00:2:2000::1",
    "IBM": "161.26.0.10 166.8.0.0 166.11.255.255",
    "Tencent": "183.60.83.19 183.60.82.98",
    "Alibaba and Oracle": "100.100.100.200 100.100.2.136 192.0.0.192",
    "Teredo, ORCHID and the rest of 2001::/23": "2001:: 2001::1 2001:1::1 2001:10::1 2001:20::1 2001:1ff:ffff::1",
    "6to4": "2002:: 2002:7f00:1::1 2002:808:808::1 2002:a9fe:a9fe::1",
    "unique local": "fc00::1 fd00:ec2::254 fdff::1",
    "site-local": "fec0::1 feff::1",
}


def each(table: dict[str, str]) -> list[str]:
    return [address for addresses in table.values() for address in addresses.split()]


@pytest.mark.parametrize("address", each(PUBLIC))
def test_public_addresses(address: str) -> None:
    """Addresses of the public internet, up to the borders of the special ranges, may be connected to."""
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", each(NOT_PUBLIC))
def test_addresses_that_are_not_public(address: str) -> None:
    """Private, local, multicast, translated, documentation and metadata addresses may not."""
    assert not is_public(ipaddress.ip_address(address))


@given(st.ip_addresses(v=4))
def test_a_mapped_address_is_what_it_maps(address: ipaddress.IPv4Address) -> None:
    """Writing an IPv4 address as IPv6 changes nothing."""
    assert is_public(address) is is_public(ipaddress.ip_address(f"::ffff:{address}"))


@given(st.ip_addresses(v=6))
def test_public_ipv6_is_global_unicast(address: ipaddress.IPv6Address) -> None:
    """Whatever is public in IPv6 lies in 2000::/3, or stands for an IPv4 address."""
    in_range = address in ipaddress.ip_network("2000::/3") or address.ipv4_mapped is not None
    in_range = in_range or address in ipaddress.ip_network("64:ff9b::/96")
    assert in_range or not is_public(address)


@given(st.ip_addresses(v=4))
def test_an_address_behind_nat64_is_the_one_inside(address: ipaddress.IPv4Address) -> None:
    """Reaching an IPv4 address through NAT64 changes nothing."""
    assert is_public(address) is is_public(ipaddress.ip_address(f"64:ff9b::{address}"))


@given(st.ip_addresses())
def test_nothing_is_public_that_is_not_global(address: Any) -> None:
    """The rule is never laxer than the library's, whose own one differs between versions of Python."""
    plain = getattr(address, "ipv4_mapped", None) or address
    assert plain.is_global or not is_public(address)


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://example.com", "https://example.com:443"),
        ("https://example.com/", "https://example.com:443"),
        ("https://example.com:/", "https://example.com:443"),
        ("https://example.com:443/a?b=c&d=%20", "https://example.com:443"),
        ("https://example.com:8443", "https://example.com:8443"),
        ("https://example.com:00443", "https://example.com:443"),
        ("https://example.com:65535", "https://example.com:65535"),
        ("https://example.com?to=a@b:1", "https://example.com:443"),
        ("HTTPS://EXAMPLE.COM/Path", "https://example.com:443"),
        ("https://under_score.example.com", "https://under_score.example.com:443"),
        ("https://bücher.example/ü", "https://xn--bcher-kva.example:443"),
        ("https://BÜCHER.example", "https://xn--bcher-kva.example:443"),
        ("https://straße.example", "https://xn--strae-oqa.example:443"),
        ("https://xn--bcher-kva.example", "https://xn--bcher-kva.example:443"),
        ("https://example。com", "https://example.com:443"),
        ("https://１２７.0.0.1", "https://127.0.0.1:443"),
        ("https://192.0.2.1:8080/", "https://192.0.2.1:8080"),
        ("https://[2606:4700:0:0::1111]/", "https://[2606:4700::1111]:443"),
        ("https://[2606:4700::ABCD]:8443/", "https://[2606:4700::abcd]:8443"),
        ("https://[::ffff:192.0.2.1]/", "https://[::ffff:c000:201]:443"),
        ("https://" + "a" * 63 + ".example", "https://" + "a" * 63 + ".example:443"),
        ("https://example.com./", "https://example.com:443"),
        ("https://example.com.:8443/a", "https://example.com:8443"),
        ("https://EXAMPLE.com。/a", "https://example.com:443"),
        ("https://" + "a." * 125 + "bcd.", "https://" + "a." * 125 + "bcd:443"),
    ],
)
def test_accepted_urls(url: str, origin: str) -> None:
    """A URL is kept as it is, but for a name in IDNA form; its origin is lower case, has its port and no last dot."""
    kept = url if url.partition("/ü")[0].isascii() else url.replace(url[8:].partition("/")[0], origin[8:-4])
    read = parse_callback_url(url)
    assert (kept, origin) == (read.url, read.origin)


@pytest.mark.parametrize(
    ("url", "host", "port", "target", "authority", "address"),
    [
        ("https://Example.COM", "example.com", 443, "", "example.com", None),
        ("https://example.com.:443/a?b=ü", "example.com", 443, "/a?b=ü", "example.com", None),
        ("https://example.com:80?b", "example.com", 80, "?b", "example.com:80", None),
        ("http://example.com:80/", "example.com", 80, "/", "example.com", None),
        (
            "https://bücher.example.:8443/",
            "xn--bcher-kva.example",
            8443,
            "/",
            "xn--bcher-kva.example:8443",
            None,
        ),
        ("https://１92.0.2.1/", "192.0.2.1", 443, "/", "192.0.2.1", "192.0.2.1"),
        ("https://[2001:DB8:0::1]:8443/", "2001:db8::1", 8443, "/", "[2001:db8::1]:8443", "2001:db8::1"),
        ("https://[::FFFF:192.0.2.1]/", "::ffff:c000:201", 443, "/", "[::ffff:c000:201]", "::ffff:c000:201"),
    ],
)
def test_what_is_read(
    url: str, host: str, port: int, target: str, authority: str, address: str | None
) -> None:
    """Host, port and Host header come from one reading, in one spelling for each name and address."""
    read = parse_callback_url(url, allow_http=True)
    assert (host, port, target, authority) == (read.host, read.port, read.target, read.authority)
    assert (ipaddress.ip_address(address) if address else None) == read.address


def test_a_url_shows_no_query() -> None:
    """What a reading prints holds no path and no query, where tokens stand."""
    assert "hunter2" not in repr(parse_callback_url("https://example.com/hunter2?token=hunter2"))


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("http://example.com/hook", "http://example.com:80"),
        ("http://example.com:443", "http://example.com:443"),
        ("https://example.com:80", "https://example.com:80"),
    ],
)
def test_http_where_it_is_allowed(url: str, origin: str) -> None:
    """Where http is allowed it is another origin than https."""
    read = parse_callback_url(url, allow_http=True)
    assert (url, origin) == (read.url, read.origin)


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("", "must start with https://"),
        ("example.com", "must start with https://"),
        ("//example.com", "must start with https://"),
        ("ftp://example.com", "must start with https://"),
        ("file:///etc/passwd", "must start with https://"),
        ("javascript:alert(1)", "must start with https://"),
        ("http://example.com", "must be https (DISPATCHER_ALLOW_HTTP=true allows http)"),
        ("https://", "has no host"),
        ("https:///path", "has no host"),
        ("https:example.com", "has no host"),
        ("https://:443", "has no host"),
        ("https://?a", "has no host"),
        ("https://user@example.com", "must not carry a user name or password"),
        ("https://user:pass@example.com", "must not carry a user name or password"),
        ("https://:pass@example.com", "must not carry a user name or password"),
        ("https://@example.com", "must not carry a user name or password"),
        ("https://example.com/#", "must not have a fragment"),
        ("https://example.com/#top", "must not have a fragment"),
        ("https://example.com#@evil.example", "must not have a fragment"),
        ("https://example.com/a b", "blank, control or unsafe character"),
        (" https://example.com", "blank, control or unsafe character"),
        ("https://example.com\n", "blank, control or unsafe character"),
        ("https://example.com/\r\nX-Header: 1", "blank, control or unsafe character"),
        ("https://example.com/\t", "blank, control or unsafe character"),
        ("https://example.com/\0", "blank, control or unsafe character"),
        ("https://example.com\\@evil.example", "blank, control or unsafe character"),
        ("https://example.com/{id}", "blank, control or unsafe character"),
        ("https://example.com:0", "has port 0"),
        ("https://example.com:65536", "cannot be read: its port is no number from 1 to 65535"),
        ("https://example.com:port/", "cannot be read: its port is no number from 1 to 65535"),
        ("https://2001:db8::1/", r"an IPv6 address needs brackets"),
        ("https://[2001:db8::1/", "what stands in brackets is no IPv6 address"),
        ("https://example.com:70000", "cannot be read"),
        ("https://example.com:-1", "cannot be read"),
        ("https://example.com:http", "cannot be read"),
        ("https://example.com:１２", "cannot be read"),
        ("https://[::1", "cannot be read"),
        ("https://[example.com]/", "cannot be read"),
        ("https://[1.2.3.4]/", "cannot be read"),
        ("https://ex℀mple.com", "not a valid name"),
        ("https://1.1.1.1[v1.x]:8080/", "cannot be read"),
        ("https://example.com[::1]/", "cannot be read"),
        ("https://[::1]example.com/", "cannot be read"),
        ("https://[::1].", "cannot be read"),
        ("https://[v1.x]/", "cannot be read"),
        ("https://[]/", "cannot be read"),
        ("https://[::1%25lo]/", "cannot be read"),
        ("https://[fe80::1%lo]/", "cannot be read"),
        ("https://[::ffff:127.1]/", "cannot be read"),
        ("https://2606:4700::1111/", "cannot be read"),
        ("https://example.com:+443/", "cannot be read"),
        ("https://example.com:4_43/", "cannot be read"),
        ("https://example.com:443:443/", "cannot be read"),
        ("https://1.1.1.1%lo/", "not a valid name"),
        ("https://1.1.1.1%00/", "not a valid name"),
        ("https://127.1", "ends in a number and is no IPv4 address"),
        ("https://2130706433", "ends in a number and is no IPv4 address"),
        ("https://0x7f.1", "ends in a number and is no IPv4 address"),
        ("https://0X7F000001", "ends in a number and is no IPv4 address"),
        ("https://0177.0.0.1", "ends in a number and is no IPv4 address"),
        ("https://127.0.0.01", "ends in a number and is no IPv4 address"),
        ("https://127.0.0.1.", "ends in a number and is no IPv4 address"),
        ("https://127.0.0.1。", "ends in a number and is no IPv4 address"),
        ("https://1.2.3.256", "ends in a number and is no IPv4 address"),
        ("https://1.2.3.4.5", "ends in a number and is no IPv4 address"),
        ("https://example.com.0x", "ends in a number and is no IPv4 address"),
        ("https://example.１", "ends in a number and is no IPv4 address"),
        ("httpſ://example.com", "must start with https://"),
        ("https://example.com/#@", "must not have a fragment"),
        ("https://.example.com", "not a valid name"),
        ("https://a..example", "not a valid name"),
        ("https://example.com..", "not a valid name"),
        ("https://.", "not a valid name"),
        ("https://ex%61mple.com", "not a valid name"),
        ("https://exa*mple.com", "not a valid name"),
        ("https://☃.example", "not a valid name"),
        ("https://" + "a" * 64 + ".example", "not a valid name"),
        ("https://" + "a." * 126 + "example", "not a valid name"),
        ("https://example.com/" + "a" * 2029, "is 2049 characters long; the limit is 2048"),
    ],
)
def test_refused_urls(url: str, text: str) -> None:
    """Every other URL is an InvalidInput that says why, in one line."""
    with pytest.raises(InvalidInput) as caught:
        parse_callback_url(url)
    assert str(caught.value).startswith("callback URL")
    assert text in str(caught.value)
    assert [str(caught.value)] == str(caught.value).splitlines()


def test_the_longest_url_is_accepted() -> None:
    """2048 characters are not too long."""
    assert "https://example.com:443" == parse_callback_url("https://example.com/" + "a" * 2028).origin


@pytest.mark.parametrize(
    "url", ["https://example.com/\ud800", "https://example.com/?a=\udcff", "https://\udcff.com"]
)
def test_urls_that_are_no_utf8_are_refused(url: str) -> None:
    """Lone surrogates, as stray bytes of a command line become, cannot be sent or stored."""
    with pytest.raises(InvalidInput):
        parse_callback_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "https://user:hunter2@example.com",
        "https://user:hunter2℀@example.com",
        "https://user:hunter2/@example.com",
    ],
)
def test_errors_never_show_a_password(url: str) -> None:
    """The text of an error goes into logs and lists; a password in the URL does not."""
    with pytest.raises(InvalidInput) as caught:
        parse_callback_url(url)
    assert "hunter2" not in str(caught.value)


authorities = st.lists(
    st.sampled_from([*"aZ0.-_:@[]%üß。\ud800", "xn--", "::1", "127.0.0.1", "example.com", ":443"])
    | st.characters(),
    max_size=8,
).map("".join)
urls = (
    st.text(st.characters())
    | st.builds("https://{}".format, authorities)
    | st.builds("https://{}{}".format, authorities, st.text(st.characters()).map("/{}".format))
)


def parsed(url: str) -> CallbackUrl | None:
    try:
        return parse_callback_url(url)
    except InvalidInput:
        return None


@given(urls)
@example("https://[::1]%25")
@example("https://xn--\u200d.example")
def test_any_text_is_accepted_or_refused(url: str) -> None:
    """Any text is InvalidInput or a URL whose origin is plain ASCII, lower case and its own origin."""
    match parsed(url):
        case CallbackUrl(origin=origin):
            assert origin.isascii()
            assert origin.lower() == origin
            again = parsed(origin)
            assert again
            assert (origin, origin) == (again.url, again.origin)
        case None:
            pass


@pytest.mark.parametrize(
    ("networks", "host", "refused"),
    [
        ([], "8.8.8.8", False),
        ([], "127.0.0.1", True),
        ([], "::1", True),
        ([], "fe80::1%eth0", True),
        (["127.0.0.0/8"], "127.0.0.1", False),
        (["127.0.0.0/8"], "::ffff:127.0.0.1", False),
        (["127.0.0.0/8"], "8.8.8.8", False),
        (["127.0.0.0/8"], "10.0.0.1", True),
        (["127.0.0.0/8"], "::1", True),
        (["10.1.0.0/16", "fd00::/8"], "10.1.255.255", False),
        (["10.1.0.0/16", "fd00::/8"], "10.2.0.0", True),
        (["10.1.0.0/16", "fd00::/8"], "fd00:ec2::254", False),
        (["::1"], "::1", False),
        (["fe80::/10"], "fe80::1%eth0", False),
        (["0.0.0.0/0"], "::1", True),
    ],
)
def test_allowed_networks(networks: list[str], host: str, refused: bool) -> None:
    """Public addresses and those of the allowed networks may be connected to, no others."""
    assert refused is (AddressPolicy.of(networks).refusal(host, 443) is not None)


@pytest.mark.parametrize(
    ("denied", "host", "refused"),
    [
        ("8.8.8.0/24", "8.8.8.8", True),
        ("8.8.8.0/24", "8.8.4.4", False),
        ("8.8.8.0/24", "::ffff:8.8.8.8", True),
        ("8.8.8.0/24", "64:ff9b::8.8.8.8", True),
        ("8.8.8.0/24", "64:ff9b::8.8.4.4", False),
        ("8.8.8.0/24", "2001:db8:122:344:8:808:800:0", True),
        ("8.8.8.0/24", "2001:db8:122:344:8:804:400:0", False),
        ("8.8.8.0/24", "2002:808:808::1", True),
        ("8.8.8.0/24", "2002:808:404::1", False),
        ("8.8.8.0/24", "::8.8.8.8", True),
        ("8.8.8.0/24", "::ffff:0:8.8.8.8", True),
        ("8.8.8.0/24", "64:ff9b:1::8.8.8.8", True),
        ("8.8.8.0/24", "2001:0:808:808::1", True),
        ("8.8.8.0/24", "2001::f7f7:f7f7", True),
        ("8.8.8.0/24", "fd00::200:5efe:808:808", True),
        ("8.8.8.0/24", "fd00::808:808", False),
        ("10.1.0.0/16", "10.1.2.3", True),
        ("::ffff:10.1.0.0/112", "10.1.2.3", True),
        ("::ffff:10.1.0.0/112", "::ffff:10.1.2.3", True),
        ("::ffff:10.1.0.0/112", "10.2.0.0", False),
        ("10.1.0.0/16", "10.2.0.0", False),
        ("64:ff9b::/96", "64:ff9b::8.8.8.8", True),
        ("64:ff9b::/96", "8.8.8.8", False),
        ("2606:4700::/32", "2606:4700::1111", True),
        ("fe80::/10", "fe80::1%eth0", True),
        ("0.0.0.0/0", "::1", False),
    ],
)
def test_denied_networks(denied: str, host: str, refused: bool) -> None:
    """What the operator denies is refused though all is allowed, and so is what carries it to another network."""
    policy = AddressPolicy.of(["0.0.0.0/0", "::/0"], (), [denied], ["2001:db8:122:344::/64"])
    refusal = policy.refusal(host, 443)
    assert refused is (refusal is not None)
    assert refusal is None or "is in DISPATCHER_DENIED_NETWORKS" in refusal


@pytest.mark.parametrize(
    ("prefix", "host"),
    [
        ("2001:db8::/32", "2001:db8:{0}{1}:{2}{3}::"),
        ("2001:db8:100::/40", "2001:db8:1{0}:{1}{2}:{3}::"),
        ("2001:db8:122::/48", "2001:db8:122:{0}{1}:{2}:{3}00::"),
        ("2001:db8:122:300::/56", "2001:db8:122:3{0}:{1}:{2}{3}::"),
        ("2001:db8:122:344::/64", "2001:db8:122:344:{0}:{1}{2}:{3}00:0"),
        ("2001:db8:122:344::/96", "2001:db8:122:344::{0}{1}:{2}{3}"),
        ("64:ff9b:1:fffe::/96", "64:ff9b:1:fffe::{0}{1}:{2}{3}"),
        ("fd00:64::/96", "fd00:64::{0}{1}:{2}{3}"),
        (None, "64:ff9b::{0}{1}:{2}{3}"),
    ],
)
@pytest.mark.parametrize(
    ("inside", "networks", "refused"),
    [
        ("8.8.8.8", [], False),
        ("169.254.169.254", [], True),
        ("10.0.0.1", [], True),
        ("168.63.129.16", [], True),
        ("10.0.0.1", ["10.0.0.0/8"], False),
        ("10.0.0.1", ["::/0"], True),
        ("168.63.129.16", ["168.63.129.16"], False),
    ],
)
def test_nat64(prefix: str | None, host: str, inside: str, networks: list[str], refused: bool) -> None:
    """Behind every prefix that is known the IPv4 address inside counts, wherever it stands (RFC 6052 §2.2)."""
    policy = AddressPolicy.of(networks, [443], (), [prefix] if prefix else [])
    translated = host.format(*(f"{byte:02x}" for byte in ipaddress.IPv4Address(inside).packed))
    refusal = policy.refusal(translated, 443)
    assert refused is (refusal is not None)
    assert refusal is None or refusal.startswith(f"{inside} is ")
    assert "port 80 is not in DISPATCHER_ALLOWED_PORTS" == policy.refusal(translated, 80)


@pytest.mark.parametrize(
    ("prefix", "address", "inside"),
    [
        ("2001:db8::/32", "2001:db8:c000:221::", "192.0.2.33"),
        ("2001:db8:100::/40", "2001:db8:1c0:2:21::", "192.0.2.33"),
        ("2001:db8:122::/48", "2001:db8:122:c000:2:2100::", "192.0.2.33"),
        ("2001:db8:122:300::/56", "2001:db8:122:3c0:0:221::", "192.0.2.33"),
        ("2001:db8:122:344::/64", "2001:db8:122:344:c0:2:2100:0", "192.0.2.33"),
        ("2001:db8:122:344::/96", "2001:db8:122:344::192.0.2.33", "192.0.2.33"),
        ("2001:db8:122:344::/64", "2001:db8:122:344:c0:2:2100:1", "192.0.2.33"),
        ("2001:db8::/32", "2001:db9:c000:221::", None),
    ],
)
def test_the_addresses_of_the_rfc(prefix: str, address: str, inside: str | None) -> None:
    """The examples of RFC 6052 §2.4 are read as it says; what follows the IPv4 address is ignored."""
    policy = AddressPolicy.of(denied=["192.0.2.33"], nat64=[prefix])
    assert (inside is not None) is ("192.0.2.33 is in" in (policy.refusal(address, 443) or ""))


def test_what_is_in_a_prefix_and_no_translated_address() -> None:
    """Bits 64 to 71 that are not 0 are refused behind a prefix, whatever is allowed: nobody says where it leads."""
    policy = AddressPolicy.of(["0.0.0.0/0", "::/0"], nat64=["2606:4700::/32"])
    expected = "2606:4700:808:808:100:: has a prefix of NAT64, but no IPv4 address inside (RFC 6052 §2.2)"
    assert expected == policy.refusal("2606:4700:808:808:100::", 443)


def test_the_longest_prefix_counts() -> None:
    """Of prefixes inside each other the longest one says where the IPv4 address stands."""
    policy = AddressPolicy.of(nat64=["2606:4700::/32", "2606:4700:808:808::/96"])
    assert "10.0.0.1 is not a public address" in str(policy.refusal("2606:4700:808:808::a00:1", 443))


@pytest.mark.parametrize(
    ("prefix", "text"),
    [
        ("64:ff9b::/95", "its length is 32, 40, 48, 56, 64 or 96"),
        ("64:ff9b::", "its length is 32, 40, 48, 56, 64 or 96"),
        ("2001:db8:0:0:100::/96", "bits 64 to 71 must be 0"),
        ("10.0.0.0/8", "10.0.0.0"),
        ("64:ff9b::1/96", "host bits"),
    ],
)
def test_what_is_no_prefix_is_refused(prefix: str, text: str) -> None:
    """A prefix that RFC 6052 does not know is a ValueError when the policy is made."""
    with pytest.raises(ValueError, match=text):
        AddressPolicy.of(nat64=[prefix])


@pytest.mark.parametrize(
    "host", ["1.1.1.1%5Bv1.x%5D", "1.1.1.1[v1.x]", "example.com", "127.1", "", "1.1.1.1%lo"]
)
def test_what_is_no_address_is_refused(host: str) -> None:
    """A policy that is asked for a text that is no address never says yes."""
    assert f"{host!r} is no address" == AddressPolicy.of(["0.0.0.0/0", "::/0"]).refusal(host, 443)


def test_an_internal_address_says_whose_it_is() -> None:
    """The text of an address that is public by its number says what it is, and how to allow it."""
    expected = (
        "168.63.129.16 is for internal use only: Azure's host (WireServer)"
        " (DISPATCHER_ALLOWED_NETWORKS=168.63.129.16 would allow it)"
    )
    assert expected == AddressPolicy.of().refusal("64:ff9b::168.63.129.16", 443)
    assert None is AddressPolicy.of(["168.63.129.16"]).refusal("168.63.129.16", 443)


def test_a_refusal_says_what_would_allow_it() -> None:
    """The text names the address as it is connected to, and the setting."""
    expected = (
        "169.254.169.254 is not a public address (DISPATCHER_ALLOWED_NETWORKS=169.254.169.254 would allow it)"
    )
    assert expected == AddressPolicy.of().refusal("::ffff:169.254.169.254", 443)


@pytest.mark.parametrize(
    ("ports", "port", "refused"),
    [([], 22, False), ([443, 8443], 8443, False), ([443], 80, True), ([443], 22, True)],
)
def test_allowed_ports(ports: list[int], port: int, refused: bool) -> None:
    """Where ports are listed only those may be connected to, else any."""
    expected = f"port {port} is not in DISPATCHER_ALLOWED_PORTS" if refused else None
    assert expected == AddressPolicy.of(ports=ports).refusal("8.8.8.8", port)


def test_an_allowed_network_does_not_open_ports() -> None:
    """Both rules hold at once."""
    policy = AddressPolicy.of(["127.0.0.0/8"], [443])
    assert None is policy.refusal("127.0.0.1", 443)
    assert "port 6379 is not in DISPATCHER_ALLOWED_PORTS" == policy.refusal("127.0.0.1", 6379)


@pytest.mark.parametrize("network", ["", "localhost", "10.0.0.1/8", "10.0.0.0/33", "::/129"])
def test_what_is_no_network_is_refused(network: str) -> None:
    """A network with host bits, or no network at all, is a ValueError when the policy is made."""
    with pytest.raises(ValueError, match=r"host bits|not appear to be"):
        AddressPolicy.of([network])
