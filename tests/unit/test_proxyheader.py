"""PROXY headers: what is written is what is read, and nothing else passes."""

from __future__ import annotations

import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pop3gw.proto.proxyheader import LONGEST, Endpoint, Header, ProxyHeaderError, parse, written

V2 = b"\r\n\r\n\0\r\nQUIT\n"
FOUR = Endpoint("192.0.2.7", 40123), Endpoint("198.51.100.9", 110)
SIX = Endpoint("2001:db8::7", 40123), Endpoint("2001:db8::9", 995)

PORTS = st.integers(0, 65_535)
FOURS = st.builds(Endpoint, st.ip_addresses(v=4).map(str), PORTS)
SIXES = st.builds(Endpoint, st.ip_addresses(v=6).map(str), PORTS)
PAIRS = st.one_of(st.tuples(FOURS, FOURS), st.tuples(SIXES, SIXES))


def plain(endpoint: Endpoint) -> Endpoint:
    """An IPv4 address within an IPv6 one is read as itself."""
    mapped = getattr(ipaddress.ip_address(endpoint.address), "ipv4_mapped", None)
    return Endpoint(str(mapped), endpoint.port) if mapped else endpoint


def v2(command: int, family: int, body: bytes, length: int | None = None) -> bytes:
    return V2 + struct.pack("!BBH", command, family, len(body) if length is None else length) + body


@pytest.mark.parametrize("pair", [FOUR, SIX], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("version", [1, 2])
def test_a_header_is_read_as_it_was_written(version: int, pair: tuple[Endpoint, Endpoint]) -> None:
    header = written(version, *pair)
    assert parse(header + b"USER alice\r\n") == Header(len(header), *pair)


def test_the_text_of_version_1() -> None:
    assert written(1, *FOUR) == b"PROXY TCP4 192.0.2.7 198.51.100.9 40123 110\r\n"
    assert written(1, *SIX) == b"PROXY TCP6 2001:db8::7 2001:db8::9 40123 995\r\n"


def test_the_octets_of_version_2() -> None:
    assert written(2, *FOUR) == V2 + bytes.fromhex("21 11 000c c0000207 c6336409 9cbb 006e")


@given(version=st.sampled_from([1, 2]), pair=PAIRS, tail=st.binary(max_size=40))
def test_whatever_is_written_is_read(version: int, pair: tuple[Endpoint, Endpoint], tail: bytes) -> None:
    header = written(version, *pair)
    assert parse(header + tail) == Header(len(header), *map(plain, pair))
    assert all(parse(header[:length]) is None for length in range(len(header)))


@given(version=st.sampled_from([1, 2]), one=FOURS, other=SIXES)
def test_two_families_become_ipv6(version: int, one: Endpoint, other: Endpoint) -> None:
    header = written(version, one, other)
    assert header.startswith(b"PROXY TCP6 ::ffff:" if version == 1 else V2 + b"\x21\x21\0\x24" + bytes(10))
    assert parse(header) == Header(len(header), one, plain(other))


def test_an_ipv4_address_is_read_as_one_however_it_is_written() -> None:
    header = parse(b"PROXY TCP6 ::ffff:192.0.2.7 2001:db8::9 1 2\r\n")
    assert header is not None
    assert header.client == Endpoint("192.0.2.7", 1)


def test_a_scope_is_left_out() -> None:
    assert written(1, Endpoint("fe80::1%eth0", 1), SIX[1]).startswith(b"PROXY TCP6 fe80::1 ")


@pytest.mark.parametrize(
    "data",
    [
        b"PROXY UNKNOWN\r\n",
        b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n",
        v2(0x20, 0x00, b""),
        v2(0x20, 0x11, bytes(12)),
        v2(0x20, 0x11, b"short"),
        v2(0x21, 0x00, b"anything"),
        v2(0x20, 0x41, b""),
        v2(0x21, 0x01, bytes(12)),
        v2(0x21, 0x10, bytes(12)),
        v2(0x21, 0x31, bytes(216)),
        v2(0x21, 0x32, bytes(216)),
        v2(0x21, 0x12, bytes(12)),
        v2(0x21, 0x22, bytes(36)),
    ],
    ids=[
        *("v1", "v1 with more"),
        *("LOCAL", "LOCAL with addresses", "LOCAL with less", "UNSPEC", "LOCAL of no family"),
        *("TCP over UNSPEC", "UNSPEC over IPv4", "UNIX", "UNIX datagrams", "UDP", "UDP over IPv6"),
    ],
)
def test_a_sender_that_speaks_for_itself_names_no_client(data: bytes) -> None:
    assert parse(data) == Header(len(data))
    assert parse(data[:-1]) is None


def test_what_follows_the_addresses_of_version_2_is_skipped() -> None:
    header = v2(0x21, 0x11, bytes.fromhex("c0000207 c6336409 9cbb 006e") + b"\x03\x00\x04abcd")
    assert parse(header + b"CAPA\r\n") == Header(len(header), *FOUR)


def test_the_longest_header_of_version_2_is_taken() -> None:
    header = v2(0x21, 0x11, bytes.fromhex("c0000207 c6336409 9cbb 006e") + bytes(65_535 - 12))
    assert len(header) == LONGEST
    assert parse(header) == Header(LONGEST, *FOUR)


@pytest.mark.parametrize(
    "data",
    [
        b"USER alice\r\n",
        b"\x16\x03\x01\x02\x00",
        b"\r\n\r\n\0\r\nQUIX",
        b"proxy TCP4 192.0.2.7 198.51.100.9 1 2\r\n",
        b"PROXY  TCP4 192.0.2.7 198.51.100.9 1 2\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.9 1\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.9 1 2 3\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.9 1 65536\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.9 01 2\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.9 +1 2\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.9 1 -2\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.9 1 \u0662\r\n".encode(),
        b"PROXY TCP4 192.0.2.07 198.51.100.9 1 2\r\n",
        b"PROXY TCP4 192.0.2 198.51.100.9 1 2\r\n",
        b"PROXY TCP4 2001:db8::7 2001:db8::9 1 2\r\n",
        b"PROXY TCP6 192.0.2.7 198.51.100.9 1 2\r\n",
        b"PROXY TCP6 fe80::1%eth0 2001:db8::9 1 2\r\n",
        b"PROXY TCP4 mail.example.com 198.51.100.9 1 2\r\n",
        b"PROXY UDP4 192.0.2.7 198.51.100.9 1 2\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.9 1 2\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.9 1 2\nUSER alice\r\n",
        b"PROXY " + b"x" * 101,
        v2(0x21, 0x41, bytes(12)),
        v2(0x21, 0xF1, bytes(12)),
        v2(0x21, 0x13, bytes(12)),
        v2(0x21, 0x03, b""),
        v2(0x21, 0xFF, b""),
        v2(0x22, 0x11, bytes(12)),
        v2(0x11, 0x11, bytes(12)),
        v2(0x21, 0x11, bytes(11)),
        v2(0x21, 0x21, bytes(35)),
        v2(0x21, 0x11, b"", 0),
    ],
)
def test_anything_else_is_no_header(data: bytes) -> None:
    with pytest.raises(ProxyHeaderError):
        parse(data)


@given(st.one_of(st.binary(max_size=300), st.binary(max_size=300).map(lambda data: V2 + data)))
def test_any_bytes_are_a_header_more_to_come_or_an_error(data: bytes) -> None:
    try:
        header = parse(data)
    except ProxyHeaderError as error:
        assert str(error)
        return
    assert header is None or 0 < header.length <= len(data)
    assert header is None or (header.client is None) == (header.reached is None)


@given(text=st.text(st.sampled_from("PROXY TCP46UNKNOWN0123456789:.abf \r\n"), max_size=110))
def test_any_text_of_version_1_is_a_header_more_to_come_or_an_error(text: str) -> None:
    data = f"PROXY {text}".encode()
    try:
        header = parse(data)
    except ProxyHeaderError:
        return
    assert header is None or data[: header.length].endswith(b"\r\n")
    assert header is not None or len(data) < 107
