"""The policy language by itself: its names, its attributes, the meaning of entries and of what callbacks return."""

from __future__ import annotations

from typing import Any

import pytest

from pop3gw import policy
from pop3gw.policy import (
    POP3_REQ_ABORT,
    POP3_REQ_ACCEPT,
    POP3_REQ_ACCEPT_MLINE,
    POP3_REQ_POLICY,
    POP3_REQ_REJECT,
    POP3_RSP_ABORT,
    POP3_RSP_ACCEPT,
    POP3_RSP_REJECT,
    AbstractPop3Proxy,
    Pop3Proxy,
    SessionFacts,
    entry,
    instance,
    verdict,
)


def callback(*_arguments: object) -> int:
    return POP3_REQ_ACCEPT


def test_a_star_import_gives_the_language_and_nothing_else() -> None:
    names: dict[str, Any] = {}
    exec("from pop3gw.policy import *", names)  # the only way to say what a policy file says
    del names["__builtins__"]
    constants = {name for name in names if name.startswith(("POP3_REQ_", "POP3_RSP_"))}
    assert set(names) == constants | {"AbstractPop3Proxy", "Pop3Proxy"}
    assert len(constants) == 8


def test_either_family_of_constants_means_the_same() -> None:
    assert (POP3_RSP_ACCEPT, POP3_RSP_REJECT, POP3_RSP_ABORT) == (POP3_REQ_ACCEPT, POP3_REQ_REJECT, POP3_REQ_ABORT)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("timeout", 600_000),
        ("auth_timeout", 60_000),
        ("callback_timeout", 10_000),
        ("max_auth_failures", 3),
        ("max_request_line_length", 255),
        ("max_response_line_length", 512),
        ("max_username_length", 250),
        ("max_password_length", 250),
        ("max_authline_count", 4),
        ("max_authline_length", 12_288),
        ("permit_unknown_command", False),
        ("permit_longline", True),
        ("strict_line_endings", False),
        ("tls_required", False),
        ("request_command", ""),
        ("request_param", ""),
        ("username", None),
        ("password", None),
        ("timestamp", None),
        ("session_timestamp", None),
    ],
)
def test_defaults(name: str, value: object) -> None:
    assert getattr(AbstractPop3Proxy(), name) == value


@pytest.mark.parametrize("name", ["timeout", "max_auth_failures", "max_request_line_length", "max_authline_length"])
@pytest.mark.parametrize("value", ["10", 10.0, None, True])
def test_a_limit_of_another_type_is_an_error_at_once(name: str, value: object) -> None:
    with pytest.raises(TypeError, match=name):
        setattr(AbstractPop3Proxy(), name, value)


@pytest.mark.parametrize("value", [0, -1, 1 << 40])
def test_a_limit_out_of_range_is_an_error_at_once(value: int) -> None:
    with pytest.raises(ValueError, match="timeout"):
        AbstractPop3Proxy().timeout = value


@pytest.mark.parametrize("name", ["username", "password", "timestamp", "session_timestamp", "session"])
def test_what_only_the_gateway_sets(name: str) -> None:
    proxy = AbstractPop3Proxy()
    with pytest.raises(AttributeError, match=name):
        setattr(proxy, name, "x")
    with pytest.raises(AttributeError):
        delattr(proxy, name)


def test_a_wrong_attribute_of_a_class_is_an_error_when_it_is_made() -> None:
    with pytest.raises(TypeError, match=r"Wrong\.timeout"):
        type("Wrong", (Pop3Proxy,), {"timeout": "long"})


def test_a_request_hash_of_the_class_is_an_error_since_no_session_would_look_at_it() -> None:
    with pytest.raises(TypeError, match=r"Wrong\.request: .* self\.request in config\(\)"):
        type("Wrong", (Pop3Proxy,), {"request": {"USER": POP3_REQ_REJECT}})


def test_what_a_class_inherits_from_one_that_is_no_policy_is_checked_too() -> None:
    mixin = type("Mixin", (), {"timeout": "soon"})
    with pytest.raises(TypeError, match=r"Mixin\.timeout"):
        type("Wrong", (mixin, Pop3Proxy), {})
    with pytest.raises(AttributeError, match=r"Mixin\.username"):
        type("Wrong", (type("Mixin", (), {"username": "root"}), Pop3Proxy), {})
    right: Any = type("Right", (type("Mixin", (), {"timeout": 900}), Pop3Proxy), {})
    assert right().timeout == 900
    assert type("Overridden", (mixin, right), {"timeout": 800})().timeout == 800
    assert type("Hidden", (right, mixin), {})().timeout == 900


def test_other_names_are_the_policys_own_and_an_init_of_its_own_is_its_own() -> None:
    class Own(Pop3Proxy):
        def __init__(self) -> None:
            self.seen: list[str] = []

    proxy = instance(Own, SessionFacts(id="s1"))
    assert isinstance(proxy, Own)
    assert proxy.seen == []
    assert proxy.request == {}
    assert proxy.session.id == "s1"


def test_what_pop3proxy_accepts() -> None:
    proxy = Pop3Proxy()
    proxy.config()
    accepted = "GREETING USER PASS APOP STAT LIST RETR DELE NOOP RSET QUIT TOP UIDL LAST CAPA UTF8 LANG"
    assert proxy.request == dict.fromkeys(accepted.split(), POP3_REQ_ACCEPT) | {"*": POP3_REQ_REJECT}


@pytest.mark.parametrize(
    ("key", "value", "action"),
    [
        ("USER", POP3_REQ_ACCEPT, POP3_REQ_ACCEPT),
        ("USER", (POP3_REQ_ACCEPT,), POP3_REQ_ACCEPT),
        ("XTND", POP3_REQ_ACCEPT_MLINE, POP3_REQ_ACCEPT_MLINE),
        ("USER", (POP3_REQ_REJECT, "no"), POP3_REQ_REJECT),
        ("USER", (POP3_REQ_ABORT, ""), POP3_REQ_ABORT),
        ("*", (POP3_REQ_POLICY, callback), POP3_REQ_POLICY),
        ("USER", (POP3_REQ_POLICY, None, callback), POP3_REQ_POLICY),
        ("GREETING", (POP3_REQ_POLICY, None, callback), POP3_REQ_POLICY),
    ],
)
def test_entries(key: str, value: object, action: int) -> None:
    assert entry(key, value, 512).verdict.action == action


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("user", POP3_REQ_ACCEPT),
        ("", POP3_REQ_ACCEPT),
        ("US ER", POP3_REQ_ACCEPT),
        (7, POP3_REQ_ACCEPT),
        ("USER", None),
        ("USER", True),
        ("USER", 2),
        ("USER", "ACCEPT"),
        ("USER", ()),
        ("USER", [POP3_REQ_ACCEPT]),
        ("USER", (POP3_REQ_ACCEPT, "text")),
        ("USER", (POP3_REQ_REJECT, 5)),
        ("USER", (POP3_REQ_REJECT, "a\r\nb")),
        ("USER", (POP3_REQ_REJECT, "a", "b")),
        ("USER", POP3_REQ_POLICY),
        ("USER", (POP3_REQ_POLICY,)),
        ("USER", (POP3_REQ_POLICY, "no function")),
        ("USER", (POP3_REQ_POLICY, None)),
        ("USER", (POP3_REQ_POLICY, None, None)),
        ("USER", (POP3_REQ_POLICY, callback, callback, callback)),
        ("GREETING", (POP3_REQ_POLICY, callback)),
        ("GREETING", POP3_REQ_ACCEPT_MLINE),
    ],
)
def test_malformed_entries_say_why(key: object, value: object) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        entry(key, value, 512)


@pytest.mark.parametrize("returned", [POP3_REQ_ACCEPT, POP3_REQ_REJECT, POP3_REQ_ABORT, POP3_REQ_ACCEPT_MLINE])
def test_what_callbacks_may_return(returned: int) -> None:
    assert verdict(returned) == (returned, None)
    assert verdict((returned, "text")) == (returned, "text")


@pytest.mark.parametrize(
    "returned", [None, True, False, 0, 2, POP3_REQ_POLICY, "1", 1.0, (), (1, 2), (1, "a\n"), (1, "a", 3)]
)
def test_what_is_no_action(returned: object) -> None:
    with pytest.raises(ValueError, match="returned"):
        verdict(returned)


class Text(str):
    """One that is printed in another way."""

    __slots__ = ()

    def __format__(self, _spec: str) -> str:
        return "\r\n+OK"


def test_a_text_is_what_it_is_whatever_its_class_makes_of_it() -> None:
    refusal = (POP3_REQ_REJECT, Text("No such mailbox"))
    for said in (entry("DELE", refusal, 512).verdict.text, verdict(refusal).text):
        assert type(said) is str
        assert said == "No such mailbox"


def test_a_policys_own_names_are_what_it_made_of_them() -> None:
    class Own(Pop3Proxy):
        __slots__ = ("domain",)
        _read_only = False

        @property
        def read_only(self) -> bool:
            return self._read_only

        @read_only.setter
        def read_only(self, value: object) -> None:
            self._read_only = bool(value)

        @property
        def fixed(self) -> int:
            return 1

    own: Any = Own()
    own.read_only, own.domain, own.other = "yes", "example.net", [1]
    assert (own.read_only, own.domain, own.other) == (True, "example.net", [1])
    with pytest.raises(AttributeError, match="fixed"):
        own.fixed = 2
    for name, value in (("__dict__", {}), ("__class__", Pop3Proxy)):
        with pytest.raises(AttributeError, match=f"{name}: can't be set by a policy"):
            setattr(own, name, value)
    del own.other
    assert not hasattr(own, "other")


def test_text_that_no_octets_stand_for_is_unfit() -> None:
    assert policy.unfit("\ud800")
    assert not policy.unfit("\udcff")
    assert policy.unfit_content("a\r\nb")
    assert not policy.unfit_content("a\nb")
