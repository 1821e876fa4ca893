"""The kinds of value: what they take, what they refuse, and that what they show reads back."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from pop3gw import values
from pop3gw.settings import SETTINGS
from pop3gw.values import Address, Certificate, Kind, LogLevel, PolicyName


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:110", "127.0.0.1", 110),
        ("0.0.0.0:0", "0.0.0.0", 0),
        ("[::]:110", "::", 110),
        ("[0:0:0:0:0:0:0:1]:65535", "::1", 65535),
        ("[fe80::1%eth0]:110", "fe80::1%eth0", 110),
        ("Mail.Example.com:110", "mail.example.com", 110),
        ("localhost:995", "localhost", 995),
        ("xn--bcher-kva.example:110", "xn--bcher-kva.example", 110),
    ],
)
def test_an_address_is_read_and_written(text: str, host: str, port: int) -> None:
    address = Address.parse(text)
    assert address == Address(host, port)
    assert Address.parse(str(address)) == address


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("127.0.0.1", "no port"),
        ("[::1]", "has no port"),
        ("::1:110", "brackets"),
        ("fe80::1%a-b:110", "brackets"),
        ("pop3://mail:110", "neither an address nor a host name"),
        ("127.0.0.1:", "is no port"),
        ("127.0.0.1:65536", "is no port"),
        ("127.0.0.1:-1", "is no port"),
        ("127.0.0.1:¹", "is no port"),
        ("127.1:110", "neither an address nor a host name"),
        ("300.0.0.1:110", "neither an address nor a host name"),
        ("2130706433:110", "neither an address nor a host name"),
        ("mail example:110", "neither an address nor a host name"),
        ("-mail:110", "neither an address nor a host name"),
        (":110", "neither an address nor a host name"),
        ("[mail]:110", "no IPv6 address"),
    ],
)
def test_a_bad_address_is_refused_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Address.parse(text)


def test_only_a_numeric_host_has_a_number() -> None:
    assert Address("mail", 1).ip is None
    assert str(Address("::1", 1).ip) == "::1"


@pytest.mark.parametrize("text", ["office:UToAPop3", "pop3gw.policies.apop:APop3", "büro:Regel"])
def test_a_policy_name_is_read_and_written(text: str) -> None:
    assert str(PolicyName.parse(text)) == text


@pytest.mark.parametrize("text", ["office", "office:", ":X", "office.py:X", "/etc/x:Y", "a-b:X", "a:b:c", "a..b:X"])
def test_a_bad_policy_name_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not|names no|without"):
        PolicyName.parse(text)


NUMBER = values.whole_number(1, 10)
DIGEST = "ab" * 32


@pytest.mark.parametrize(
    ("kind", "raw", "value"),
    [
        (NUMBER, "1", 1),
        (NUMBER, " 10 ", 10),
        (values.choice(LogLevel), "DEBUG", LogLevel.DEBUG),
        (values.LISTENERS, "127.0.0.1:1", (Address("127.0.0.1", 1),)),
        (values.LISTENERS, ["127.0.0.1:1", "[::]:2"], (Address("127.0.0.1", 1), Address("::", 2))),
        (values.SERVER, "mail:110", Address("mail", 110)),
        (values.FOLDERS, "/a b", ("/a b",)),
        (values.ACCOUNT, "pop3-gw_1", "pop3-gw_1"),
        (values.LOG_TARGET, "syslog", "syslog"),
        (values.LOG_TARGET, "stderr", "stderr"),
        (values.LOG_TARGET, "/var/log/x", "/var/log/x"),
        (values.CERTIFICATES, ["/a", "*.Example.com=/b"], (Certificate("", "/a"), Certificate("*.example.com", "/b"))),
        (values.HOST_NAME, "Mail.Example.com", "mail.example.com"),
        (values.FINGERPRINTS, [DIGEST, ":".join(["AB"] * 32)], (DIGEST, DIGEST)),
        (values.NETWORKS, "192.0.2.7", (ip_network("192.0.2.7/32"),)),
    ],
)
def test_a_kind_reads_what_it_should(kind: Kind, raw: values.Raw, value: object) -> None:
    assert kind.parse(raw) == value


@pytest.mark.parametrize(
    ("kind", "raw"),
    [
        (NUMBER, "0"),
        (NUMBER, "11"),
        (NUMBER, "-1"),
        (NUMBER, "1.5"),
        (NUMBER, "1s"),
        (NUMBER, "٣"),
        (NUMBER, "9" * 5000),
        (NUMBER, ""),
        (NUMBER, ["1", "2"]),
        (values.choice(LogLevel), "loud"),
        (values.LISTENERS, []),
        (values.LISTENERS, ["127.0.0.1:1", ""]),
        (values.LISTENERS, "localhost:110"),
        (values.LISTENERS, "127.0.0.1:1, 127.0.0.1:2"),
        (values.SERVER, "mail:0"),
        (values.PATH, "/a\nb"),
        (values.PATH, ["/a", "b"]),
        (values.ACCOUNT, "a b"),
        (values.LOG_TARGET, "sylog"),
    ],
)
def test_a_kind_refuses_what_it_should(kind: Kind, raw: values.Raw) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        kind.parse(raw)


@pytest.mark.parametrize(
    ("kind", "raw", "faults"),
    [
        (values.LISTENERS, ["127.0.0.1:99999", "127.0.0.1:1", "foo", "[::1"], ["99999", "foo", "[::1"]),
        (values.LISTENERS, ["mail:1", "[::ffff:192.0.2.1]:1"], ["mail", "192.0.2.1:1"]),
        (values.NETWORKS, ["10.0.0.1/8", "192.0.2.7", "foo"], ["10.0.0.1/8", "foo"]),
        (values.FINGERPRINTS, ["ab", DIGEST, "cd"], ["ab", "cd"]),
        (values.CERTIFICATES, ["a b=/x", "/y", "mail="], ["a b", "mail="]),
        (values.FOLDERS, ["/a\nb", "/c", ""], ["/a\\nb", "nothing"]),
        (values.FILES, ["", ""], ["nothing"]),
    ],
)
def test_of_a_list_each_bad_item_is_told_once(kind: Kind, raw: list[str], faults: list[str]) -> None:
    with pytest.raises(ValueError, match=r"\S") as caught:
        kind.parse(raw)
    assert len(caught.value.args) == len(faults)
    assert all(said in fault for fault, said in zip(caught.value.args, faults, strict=True))


def test_two_kinds_of_the_same_name_are_the_same_check() -> None:
    """The configspec names kinds: a name must lead to one meaning."""
    kinds: dict[str, str] = {}
    for item in SETTINGS:
        assert kinds.setdefault(item.row.kind.check, item.row.kind.expected) == item.row.kind.expected


def test_an_empty_list_is_shown_as_one() -> None:
    assert values.show(()) == ","
