"""The start: what must be had while there is a terminal to complain on, and root's rights to have it; then the master.

What fails before the gateway has detached is told on the terminal, what fails later in the log. It knows all parts by
name and does the work of none.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack

from pop3gw import activation, listeners, notify, preflight, privileges, process, template
from pop3gw.backtrace import backtrace
from pop3gw.doors import Doors
from pop3gw.errors import ConfigurationError, Exit, Pop3gwError
from pop3gw.logs import Log
from pop3gw.master import Master
from pop3gw.pidfile import PidFile
from pop3gw.privileges import Account
from pop3gw.settings import Config


def run(
    config: Config,
    *,
    foreground: bool,
    reload: Callable[[], Config],
    ready: Callable[[], None] | None = None,
) -> int:
    """Run the gateway until it is stopped; returns the exit status.

    ``reload`` reads the configuration anew (HUP), ``ready`` is called once every service can serve. Raises Pop3gwError
    where the gateway can't start: ConfigurationError names all that is wrong.
    """
    with ExitStack() as stack:
        pid_file = None
        if config.pid_file is not None:
            pid_file = PidFile(config.pid_file)
            stack.callback(pid_file.remove)
        account = privileges.find_account(config.user, config.group)
        bound = listeners.bind(config, activation.take(os.environ))
        doors = Doors.open(config, account)
        stack.callback(doors.close)
        log = Log.open(config.log_target, config.log_level, config.log_format, account=account)
        if not foreground:
            problems, _doubts = template.check(config)  # of these the templates warn, which are started then
            if problems:
                raise ConfigurationError(problems)
            kept = [listener.socket.fileno() for listener in bound]
            kept += [] if pid_file is None else [pid_file.fileno()]
            process.detach([*kept, *doors.descriptors(), *log.descriptors()])
        process.limit_resources()
        process.forbid_dumps()  # where all run as one account a worker could read, and write, the master's memory
        process.give_way()  # a client that connects does not interrupt the worker of another
        process.title(f"pop3gw: master {config.source}")
        _introduce(log, config, doors, account)
        try:
            master = Master(log, reload, ready, notify.manager(os.environ), doors, account, pid_file)
            return master.run(config, bound)
        except Pop3gwError as error:
            if not foreground:
                log.error(f"the gateway can't start: {error}")
            raise
        except Exception as fault:  # noqa: BLE001 - the last place where it can be said
            told = backtrace(fault)
            log.error(f"the master ends by a fault of the gateway; running sessions may finish: {told}")
            return Exit.FAILED


def _introduce(log: Log, config: Config, doors: Doors, account: Account | None) -> None:
    """Log what an administrator may not expect."""
    if (metrics := doors.metrics_at()) is not None:
        log.info(f"metrics are at http://{metrics}/metrics")
    if account is not None and account.assumed:
        log.info(f"started as root without user: workers run as the account {account.name}")
    if account is not None and account.uid == 0:
        log.warning("user = root: policies and sessions run as root; name another account unless that is really wanted")
    for doubt in preflight.doubtful_places(config):
        log.warning(str(doubt))
