"""Starts email-oauth2-proxy for the benchmark: `emailproxy_start.py PORT BACKEND_PORT`.

It wants an account for each user name, with a token that is still good, encrypted under the user's password: here they
are the mailboxes that the workloads use. Two things are turned off, because the others do not do them either: the key
derivation (by default over a million rounds of PBKDF2 at each login, 0.3 s) and TLS towards the server, which it has
no setting for; and its backlog of five becomes one that does not drop sixteen clients.
"""

from __future__ import annotations

import configparser
import importlib
import sys
import tempfile
import time
from pathlib import Path

from bench.workloads import MAILBOXES

_SUFFIX = "@bench"
_PASSWORD = "secret"
_SALT = "YmVuY2hiZW5jaGJlbmNoYg=="
_NOWHERE = "http://127.0.0.1:9/"


def main() -> None:
    port, backend = int(sys.argv[1]), int(sys.argv[2])
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "emailproxy.config"
        sys.argv = ["emailproxy", "--no-gui", "--config-file", str(file), "--log-file", str(Path(folder) / "log")]
        emailproxy = importlib.import_module("emailproxy")  # reads sys.argv as it is imported
        emailproxy.Cryptographer.ITERATIONS = emailproxy.Cryptographer.LEGACY_ITERATIONS = 1
        emailproxy.OAuth2ServerConnection.handle_connect = lambda _: None
        listen = emailproxy.OAuth2Proxy.listen
        emailproxy.OAuth2Proxy.listen = lambda proxy, _: listen(proxy, 1024)
        config = configparser.ConfigParser(interpolation=None)
        config[f"POP-{port}"] = {
            "local_address": "127.0.0.1",
            "server_address": "127.0.0.1",
            "server_port": str(backend),
        }
        for account in (mailbox + _SUFFIX for mailbox in MAILBOXES):
            config[account] = {
                **dict.fromkeys(("token_url", "redirect_uri"), _NOWHERE),
                **dict.fromkeys(("oauth2_scope", "client_id"), "none"),
                "token_salt": _SALT,
                "token_iterations": "1",
                "access_token_expiry": str(int(time.time()) + 86400),
            }
            keys = emailproxy.Cryptographer(config, account, _PASSWORD)
            config[account]["access_token"] = keys.encrypt("token")
        with file.open("w") as output:
            config.write(output)
        emailproxy.AppConfig.unload()  # it has looked for the file already
        emailproxy.App()


if __name__ == "__main__":
    main()
