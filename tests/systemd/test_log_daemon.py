"""A log daemon that goes away from the installed gateway, and comes back."""

from __future__ import annotations

import time

import pytest

from tests.integration.clients import transcript
from tests.systemd.service import UNIT, Service
from tests.until import until

pytestmark = pytest.mark.timeout(1200)  # the image may have to be made first

MAIL_LOG = "/var/log/mail.log"
# rsyslog itself listens, where the gateway sees /dev/log.
LISTENS = 'input(type="imuxsock" Socket="/run/test/dev-log" CreatePath="on")\n'
SEES = "[Service]\nBindPaths=/run/test:/run/systemd/journal\n"


def test_a_log_daemon_that_went_away_holds_up_nobody_and_hears_what_it_missed(service: Service) -> None:
    service.box.write("/etc/rsyslog.d/test.conf", LISTENS)
    service.box.run("systemctl", "restart", "rsyslog")
    until("rsyslog listens", lambda: service.box.attempt("test", "-S", "/run/test/dev-log").returncode == 0)
    service.drop_in(SEES)
    service.configure(main="log_target = syslog")
    service.box.run("systemctl", "restart", UNIT)

    def logs(text: str) -> bool:
        assert transcript(service.account, 1)
        return text in service.box.read(MAIL_LOG)

    until("it is logged to rsyslog", lambda: logs("session ended"))
    service.box.run("systemctl", "stop", "rsyslog", "syslog.socket")
    began = time.monotonic()
    for _ in range(5):
        assert transcript(service.account, 1)
    assert time.monotonic() - began < 20
    service.box.run("systemctl", "start", "rsyslog")
    until("the loss is told", lambda: logs("lines of the log were lost"))
