"""The gateway on a machine with systemd, as its administrator has it: unit, drop-ins, configuration, journal."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

from tests.integration.clients import Account
from tests.integration.servers import Server, free_port
from tests.systemd.box import Box
from tests.until import until

UNIT = "pop3gw.service"
CONFIG = "/etc/pop3gw.conf"


class Service:
    """pop3gw.service in front of a Dovecot on the same machine."""

    def __init__(self, machine: Box, server: Server) -> None:
        self.box = machine
        self.server = server
        self.port = free_port()
        self.cursor = ""  # where the journal was at the reset
        self.is_pristine = False  # running as a reset and a start have left it

    @property
    def account(self) -> Account:
        """The user with the sample mailbox."""
        return Account(self.port, "reader")

    def reset(self) -> None:
        """Back to what a fresh installation has, the gateway stopped at once. The journal is read from here on."""
        self.box.shell(
            f"systemctl kill --kill-who=main --signal=INT {UNIT} || true;"
            f" systemctl stop pop3gw.socket {UNIT};"
            f" rm -rf /etc/systemd/system/pop3gw.*.d /etc/pop3gw/policies/*;"
            f" systemctl daemon-reload; systemctl reset-failed; journalctl --sync"
        )
        shown = self.box.run("journalctl", "--no-pager", "--lines=0", "--show-cursor")
        self.cursor = shown.partition("cursor: ")[2].strip()
        self.port = free_port()
        self.configure()

    def serve(self) -> None:
        """Run as a fresh installation that was configured for the Dovecot."""
        self.reset()
        self.start()
        self.is_pristine = True

    def configure(self, main: str = "", **settings: object) -> None:
        """Write the configuration; ``main`` are lines of its first section."""
        fixed: Mapping[str, object] = {
            "listen": f"127.0.0.1:{self.port}",
            "server": f"127.0.0.1:{self.server.port}",
        }
        lines = [f"{key} = {value}" for key, value in {**fixed, **settings}.items()]
        self.box.write(CONFIG, "\n".join(["[main]", main, "[services]", "[[inbound]]", *lines, ""]))

    def drop_in(self, text: str, unit: str = UNIT) -> None:
        """What ``systemctl edit`` does."""
        self.box.write(f"/etc/systemd/system/{unit}.d/test.conf", text)
        self.box.run("systemctl", "daemon-reload")

    def start(self) -> None:
        self.box.run("systemctl", "start", UNIT)

    def hold_listeners(self) -> None:
        """Let systemd have the listeners, as the manual says."""
        listen = f"[Socket]\nListenStream=\nListenStream=127.0.0.1:{self.port}\n"
        self.drop_in(listen, "pop3gw.socket")
        self.box.shell(f"systemctl stop {UNIT}; systemctl start pop3gw.socket; systemctl start {UNIT}")

    @property
    def master(self) -> int:
        """The pid of the master, inside; 0 where there is none."""
        return int(self.box.show(UNIT, "MainPID"))

    def entries(self) -> list[dict[str, Any]]:
        """What the unit has logged since the reset, as journald has it."""
        self.box.run("journalctl", "--sync")
        # Not --after-cursor: it passes over an entry where the one at the cursor is another unit's.
        command = ("journalctl", "--no-pager", "--output=json", f"--cursor={self.cursor}", f"_SYSTEMD_UNIT={UNIT}")
        entries = [json.loads(line) for line in self.box.run(*command).splitlines()]
        return [entry for entry in entries if entry["__CURSOR"] != self.cursor]

    @property
    def log(self) -> str:
        """What the unit has logged since the reset."""
        return "\n".join(str(entry["MESSAGE"]) for entry in self.entries())

    def wait_for(self, text: str) -> None:
        """Wait until it has logged this."""
        until(f"the journal says {text!r}", lambda: text in self.log)

    def inside(self, script: str, *arguments: str) -> str:
        """Run a Python script on the machine; returns what it prints."""
        return self.box.shell(f"exec python3 -c {shlex.quote(script)} {shlex.join(arguments)}")
