"""What a check doubts of a policy's names, and what it does not."""

from __future__ import annotations

from typing import Any

import pytest

from pop3gw import spelling
from pop3gw.policies.apop import UToAPop3
from pop3gw.policies.tls import TlsRequired
from pop3gw.policy import POP3_REQ_ACCEPT, POP3_REQ_POLICY, POP3_REQ_REJECT, AbstractPop3Proxy, Pop3Proxy


def doubted(
    base: type[AbstractPop3Proxy] = Pop3Proxy, entries: dict[str, Any] | None = None, **named: Any
) -> list[str]:
    """What is expected instead of these entries and attributes."""

    def config(self: AbstractPop3Proxy) -> None:
        base.config(self)
        self.request.update(entries or {})

    policy = type("Office", (base,), {"config": config, **named})()
    policy.config()
    return [expected for _found, expected in spelling.doubts(policy)]


@pytest.mark.parametrize("shipped", [Pop3Proxy, UToAPop3, TlsRequired])
def test_nothing_of_what_is_shipped(shipped: type[AbstractPop3Proxy]) -> None:
    assert doubted(shipped) == []


@pytest.mark.parametrize("value", [POP3_REQ_REJECT, (POP3_REQ_REJECT, "it stays")])
def test_a_command_that_is_refused_and_not_there(value: object) -> None:
    assert doubted(entries={"DEL": value}) == ["DELE"]
    assert doubted(entries={"DEL": value}, permit_unknown_command=True) == []


def test_commands_of_its_own() -> None:
    entries = {
        "XTND": POP3_REQ_REJECT,
        "XDELE": POP3_REQ_ACCEPT,
        "DELA": (POP3_REQ_POLICY, print),
        "DELE": POP3_REQ_REJECT,
    }
    assert doubted(entries=entries) == []


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("tls_requierd", "tls_required"),
        ("max_auth_failure", "max_auth_failures"),
        ("callback_time_out", "callback_timeout"),
    ],
)
def test_attributes(name: str, meant: str) -> None:
    office = type("Office", (Pop3Proxy,), {name: True})
    of_the_class, of_the_instance = office(), Pop3Proxy()
    setattr(of_the_instance, name, True)
    for policy in (of_the_class, of_the_instance):
        policy.config()
        assert [expected for _found, expected in spelling.doubts(policy)] == [meant]


def test_attributes_of_its_own() -> None:
    never = property(lambda _self: 1 / 0)
    assert doubted(requests=0, domain="x", _timeout=1, tls_requierd=lambda _self: 1, timeouts=3, time_out=never) == []


def test_a_config_that_is_never_called() -> None:
    assert doubted(Config=lambda _self: None) == ["config"]


def test_no_greeting() -> None:
    assert doubted(AbstractPop3Proxy) == ['request["GREETING"], or a call of Pop3Proxy.config(self)']
    assert doubted(AbstractPop3Proxy, {"*": POP3_REQ_ACCEPT}) == []
    assert doubted(AbstractPop3Proxy, {"GREETING": POP3_REQ_ACCEPT}) == []
