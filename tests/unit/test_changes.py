"""What a reload says that has changed."""

from __future__ import annotations

from dataclasses import replace

from pop3gw.changes import UNCHANGED, changes
from pop3gw.settings import Config, Service
from pop3gw.values import Address, LogLevel, PolicyName

ONE = Service(name="one", listen=(Address("127.0.0.1", 110),), server=Address("mail.example.com", 110))
OLD = Config(source="pop3gw.conf", services=(ONE,))


def test_nothing() -> None:
    assert changes(OLD, replace(OLD, source="elsewhere")) == [UNCHANGED]


def test_settings_of_the_gateway_and_of_a_service() -> None:
    service = replace(
        ONE,
        listen=(*ONE.listen, Address("::1", 110)),
        policy=PolicyName("office", "Office"),
        tls_key_passphrase="/etc/pop3gw/passphrase",
    )
    new = replace(OLD, log_level=LogLevel.DEBUG, metrics_listen=Address("127.0.0.1", 9110), services=(service,))
    assert changes(OLD, new) == [
        "[main] metrics_listen: none are served -> 127.0.0.1:9110 (when pop3gw is restarted)",
        "[main] log_level: info -> debug",
        '[one] listen: 127.0.0.1:110 -> 127.0.0.1:110, "[::1]:110"',
        "[one] policy: pop3gw.policy:Pop3Proxy -> office:Office",
        "[one] tls_key_passphrase: none -> /etc/pop3gw/passphrase",
    ]


def test_services_that_come_and_go() -> None:
    assert changes(OLD, replace(OLD, services=(replace(ONE, name="two"),))) == [
        "[two] is new",
        "[one] is removed; its sessions may finish",
    ]
