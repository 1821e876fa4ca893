"""An attendant by itself; what it answers is in tests/process."""

from __future__ import annotations

import os
import socket
import sys
import time
from contextlib import closing
from pathlib import Path
from unittest.mock import Mock

import pytest

from pop3gw import attendant, privileges
from pop3gw.agenda import Agenda
from pop3gw.attendant import Attendant
from pop3gw.errors import StartError
from pop3gw.logline import FILE_FORMS
from pop3gw.logs import Log
from pop3gw.logsinks import FileSink
from pop3gw.poller import Poller
from pop3gw.privileges import Account
from pop3gw.values import LogFormat, LogLevel


def test_one_that_can_not_become_its_account_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_account: Account) -> None:
        raise StartError("the system said no")

    monkeypatch.setattr(privileges, "drop_privileges", refused)
    monkeypatch.setattr(sys, "stderr", sys.__stderr__)  # descriptor 2, which a child keeps
    file = tmp_path / "log"
    with socket.create_server(("127.0.0.1", 0)) as listener, closing(Poller()) as poller:
        one = Attendant(
            "metrics",
            attendant.metrics,
            listener,
            account=Account("nobody", 65534, 65534, ()),
            log=Log(FileSink.open(str(file), FILE_FORMS[LogFormat.TEXT], None), LogLevel.INFO, str(file)),
            poller=poller,
            agenda=Agenda(),
            hear=lambda _asker, _message: None,
        )
        one.renew()
        one.carry_out(time.monotonic(), Mock())
        asker = one._current
        assert asker is not None
        assert os.waitstatus_to_exitcode(os.waitpid(asker.pid, 0)[1]) == 1
        one.close()
    assert "the metrics process can't run: the system said no" in file.read_text()
