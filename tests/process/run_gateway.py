"""Runs the master as the command line would: ``run_gateway.py CONFIG [--daemon] [--load-limit SECONDS]``.

``--passed DESCRIPTOR:NAME`` passes it a listening socket as systemd would.
"""

from __future__ import annotations

import argparse
import os
import sys

from pop3gw import config, loading, startup
from pop3gw.errors import Pop3gwError
from pop3gw.settings import Config


def main() -> int:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("config")
    arguments.add_argument("--daemon", action="store_true")
    arguments.add_argument("--load-limit", type=float)
    arguments.add_argument("--passed", action="append", default=[])
    given = arguments.parse_args()
    if given.passed:
        for number, passed in enumerate(given.passed):
            os.dup2(int(passed.partition(":")[0]), 3 + number)
        names = ":".join(passed.partition(":")[2] for passed in given.passed)
        os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(given.passed)), LISTEN_FDNAMES=names)
    if given.load_limit is not None:
        loading.LOAD_LIMIT = given.load_limit

    def load(*, again: bool = False) -> Config:
        return config.load(given.config, foreground=not given.daemon, again=again)

    try:
        return startup.run(load(), foreground=not given.daemon, reload=lambda: load(again=True))
    except Pop3gwError as error:
        print(error, file=sys.stderr)
        return error.exit


if __name__ == "__main__":
    sys.exit(main())
