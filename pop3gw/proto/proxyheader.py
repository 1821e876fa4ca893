"""The PROXY protocol, versions 1 and 2 (HAProxy's proxy-protocol.txt): who is really at the other end.

Pure: one parser and one writer, for headers as bytes. It must not know whom to believe: ``admission`` does.
Known limit: TLVs behind the addresses of version 2 are skipped, CRC32c included.
"""

from __future__ import annotations

import ipaddress
import re
import struct
from dataclasses import dataclass
from typing import Final

LONGEST: Final = 16 + 65_535  # of version 2; version 1 has at most 107 octets
_V1_LONGEST: Final = 107
_V2_SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
_V2_FIXED: Final = struct.Struct("!12sBBH")
_V2_LOCAL, _V2_PROXY = 0x20, 0x21
_V2_FAMILIES: Final = range(0x3 + 1)  # unspecified, IPv4, IPv6, Unix: the upper half of the octet
_V2_TRANSPORTS: Final = range(0x2 + 1)  # unspecified, stream, datagram: the lower
_V2_ADDRESSES: Final = {0x11: ("!4s4sHH", 12), 0x21: ("!16s16sHH", 36)}  # TCP over IPv4, over IPv6

_PORT: Final = re.compile(r"(?:0|[1-9][0-9]{0,4})")


class ProxyHeaderError(ValueError):
    """The bytes are no PROXY header; the text says why."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A numeric address and a port. An IPv4 address is written as one, however it came."""

    address: str
    port: int


@dataclass(frozen=True, slots=True)
class Header:
    """A whole header: its ``length`` in octets, and the client and the address that it connected to.

    Both are None where the sender speaks for itself (LOCAL), or for what is not TCP over IP (UNKNOWN, UNSPEC, UDP,
    Unix): then the connection's own addresses hold.
    """

    length: int
    client: Endpoint | None = None
    reached: Endpoint | None = None


def parse(data: bytes) -> Header | None:
    """The header at the start of ``data``, or None while more must come. Raises ProxyHeaderError."""
    if data[:12] == _V2_SIGNATURE[: len(data)]:
        return _parse_v2(data) if len(data) >= _V2_FIXED.size else None
    if data[:6] == b"PROXY "[: len(data)]:
        return _parse_v1(data)
    raise ProxyHeaderError("it starts like neither version 1 nor version 2")


def _parse_v1(data: bytes) -> Header | None:
    end = data.find(b"\r\n", 0, _V1_LONGEST)
    if end < 0:
        if len(data) >= _V1_LONGEST or b"\n" in data:
            raise ProxyHeaderError("version 1 without its CRLF within 107 octets")
        return None
    try:
        parts = data[:end].decode("ascii").split(" ")
    except UnicodeDecodeError:
        raise ProxyHeaderError("version 1 that is not ASCII") from None
    if parts[1] == "UNKNOWN":
        return Header(end + 2)
    if len(parts) != 6 or parts[1] not in ("TCP4", "TCP6"):
        raise ProxyHeaderError("version 1 without protocol, two addresses and two ports")
    _proxy, protocol, client, reached, client_port, reached_port = parts
    version = 4 if protocol == "TCP4" else 6
    return Header(end + 2, _endpoint(client, client_port, version), _endpoint(reached, reached_port, version))


def _endpoint(address: str, port: str, version: int) -> Endpoint:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        raise ProxyHeaderError("an address that is none") from None
    if parsed.version != version or "%" in address:
        raise ProxyHeaderError("an address of another protocol")
    if not _PORT.fullmatch(port) or int(port) > 65_535:
        raise ProxyHeaderError("a port that is none")
    return _named(parsed, int(port))


def _named(address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int) -> Endpoint:
    return Endpoint(str(getattr(address, "ipv4_mapped", None) or address), port)


def _parse_v2(data: bytes) -> Header | None:
    _signature, command, family, length = _V2_FIXED.unpack_from(data)
    if command not in (_V2_LOCAL, _V2_PROXY):
        raise ProxyHeaderError("version 2 with a command that is neither LOCAL nor PROXY")
    if command == _V2_PROXY and (family >> 4 not in _V2_FAMILIES or family & 0xF not in _V2_TRANSPORTS):
        raise ProxyHeaderError("version 2 with an address family or a transport that there is not")
    whole = _V2_FIXED.size + length
    if command == _V2_PROXY and family in _V2_ADDRESSES and length < _V2_ADDRESSES[family][1]:
        raise ProxyHeaderError("version 2 too short for its addresses")
    if len(data) < whole:
        return None
    if command == _V2_LOCAL or family not in _V2_ADDRESSES:
        return Header(whole)
    form, _size = _V2_ADDRESSES[family]
    client, reached, client_port, reached_port = struct.unpack_from(form, data, _V2_FIXED.size)
    return Header(
        whole,
        _named(ipaddress.ip_address(client), client_port),
        _named(ipaddress.ip_address(reached), reached_port),
    )


def written(version: int, client: Endpoint, reached: Endpoint) -> bytes:
    """The header that tells a server who the client is. Addresses of two families become IPv6 both."""
    one, other = (
        ipaddress.ip_address(client.address.partition("%")[0]),
        ipaddress.ip_address(reached.address.partition("%")[0]),
    )
    if one.version != other.version:
        one, other = (
            address if address.version == 6 else ipaddress.ip_address(f"::ffff:{address}") for address in (one, other)
        )
    four = one.version == 4
    if version == 1:
        return f"PROXY {'TCP4' if four else 'TCP6'} {one} {other} {client.port} {reached.port}\r\n".encode("ascii")
    family = 0x11 if four else 0x21
    form, size = _V2_ADDRESSES[family]
    addresses = struct.pack(form, one.packed, other.packed, client.port, reached.port)
    return _V2_FIXED.pack(_V2_SIGNATURE, _V2_PROXY, family, size) + addresses
