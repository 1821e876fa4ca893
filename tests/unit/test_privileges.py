"""Whom templates and workers run as; that a whole gateway does is in tests/process."""

from __future__ import annotations

import grp
import os
import pwd
import subprocess
import sys

import pytest

from pop3gw import privileges
from pop3gw.errors import StartError


def test_an_account_that_is_not_there_is_named() -> None:
    with pytest.raises(StartError, match="user = no-such-user: there is no such account"):
        privileges.find_account("no-such-user", None)
    with pytest.raises(StartError, match="group = no-such-group: there is no such group"):
        privileges.find_account(None, "no-such-group")


def test_who_is_not_root_can_only_be_who_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 65534)
    assert privileges.find_account(None, None) is None
    assert privileges.find_account(pwd.getpwuid(65534).pw_name, None) is None
    with pytest.raises(StartError, match="user = root: only root can become another account"):
        privileges.find_account("root", None)


def test_root_serves_as_somebody_else_unless_it_says_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assumed = privileges.find_account(None, None)
    assert assumed is not None
    assert assumed.name in ("pop3gw", "nobody")
    assert assumed.assumed
    assert assumed.uid != 0
    said = privileges.find_account("root", None)
    assert said is not None
    assert (said.uid, said.assumed) == (0, False)


def test_the_group_may_be_another_than_the_accounts_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    account = privileges.find_account("daemon", "mail")
    assert account is not None
    assert (account.uid, account.gid) == (pwd.getpwnam("daemon").pw_uid, grp.getgrnam("mail").gr_gid)
    assert account.gid in account.groups


NOBODY = privileges.Account("nobody", 65534, 65534, (65534,))


@pytest.fixture
def unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls that would change who this process is change nothing."""
    for name in ("setgroups", "setresgid", "setresuid", "setuid"):
        monkeypatch.setattr(os, name, lambda *_: None)


@pytest.mark.usefixtures("unchanged")
def test_an_account_that_can_not_be_become_is_told_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    remedy = "start pop3gw as root with CAP_SETUID and CAP_SETGID, or as that account$"
    monkeypatch.setattr(os, "getgroups", list)
    with pytest.raises(StartError, match=f"become the account nobody: the system kept privileges .*; {remedy}"):
        privileges.drop_privileges(NOBODY)

    def refused(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "setgroups", refused)
    with pytest.raises(StartError, match=f"become the account nobody: Operation not permitted; {remedy}"):
        privileges.drop_privileges(NOBODY)


@pytest.mark.usefixtures("unchanged")
def test_an_account_that_can_become_root_again_does_not_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getresuid", lambda: (65534,) * 3)
    monkeypatch.setattr(os, "getresgid", lambda: (65534,) * 3)
    monkeypatch.setattr(os, "getgroups", lambda: [65534])
    with pytest.raises(StartError, match="can become root again; start pop3gw without"):
        privileges.drop_privileges(NOBODY)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give them")
def test_capabilities_of_an_account_without_privileges_are_given_up_for_good() -> None:
    asked = "import re; print(*re.findall('Cap(?:Inh|Prm|Eff|Amb):.([0-9a-f]+)', open('/proc/self/status').read()))"
    code = f"import subprocess, sys; from pop3gw import privileges; privileges.drop_privileges(None)\n{asked}\n"
    code += f"subprocess.run([sys.executable, '-c', {asked!r}])"
    as_it = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    low = ["--inh-caps=+net_bind_service", "--ambient-caps=+net_bind_service"]
    given = subprocess.run([*as_it, *low, sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(given.stdout.split()) == {"0" * 16}
