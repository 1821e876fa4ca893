"""The proxies that are compared: how each is configured and started, from an empty folder, on loopback ports.

Each does the same work with its own means: take a login, find the server (always the same one), relay. Settings that
are not about that stay at their defaults. Must not know what is measured.
Known limits: POP3 in clear but for the `-tls` rows; one process of a kind (the benchmark gives a proxy one core).
"""

from __future__ import annotations

import importlib.util
import shutil
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.measure import Tree

REPOSITORY = Path(__file__).resolve().parent.parent
GATEWAY = REPOSITORY / ".venv" / "bin" / "pop3gw"
FLOOR = REPOSITORY / "bench" / "build" / "floor"
MANY = 200  # sessions a worker, in pop3gw's dense mode
MOST = 2200  # sessions that every proxy must be able to hold
_READY_TIMEOUT = 15.0  # seconds


@dataclass(frozen=True, slots=True)
class Site:
    """Where a proxy is started: an empty folder of its own, the port to listen on, a spare one, the server's port."""

    folder: Path
    port: int
    spare_port: int
    backend: int

    def write(self, name: str, text: str) -> str:
        path = self.folder / name
        path.write_text(textwrap.dedent(text).lstrip())
        return str(path)


@dataclass(frozen=True, slots=True)
class Peer:
    """One proxy in one configuration. `command` writes what it needs and says how to start it in the foreground."""

    name: str
    title: str
    missing: Callable[[], str | None]  # why it cannot be started here, or None
    command: Callable[[Site], Sequence[str]]
    suffix: str = ""  # appended to user names, where the proxy wants a domain
    tls: bool = False


class Running:
    """A peer that has been started and has greeted. Raises PeerError where it does not."""

    def __init__(
        self, peer: Peer, folder: Path, backend: int, cores: set[int], *, patience: float = _READY_TIMEOUT
    ) -> None:
        port, spare_port = free_ports(2)
        self.peer = peer
        self.port = port
        self._logs = [folder / "output", folder / "pop3gw.log", folder / "dovecot.log", folder / "error.log"]
        folder.chmod(0o755)  # unprivileged workers read their files here
        self.tree = Tree(peer.command(Site(folder, port, spare_port, backend)), cores=cores, log=self._logs[0])
        try:
            self._await_greeting(patience)
        except PeerError:
            self.tree.stop()
            raise

    def stop(self) -> None:
        self.tree.stop()

    def _await_greeting(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self.tree.alive:
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                    if self.peer.tls or connection.recv(3) == b"+OK":
                        return
            except OSError:
                pass
            time.sleep(0.05)
        said = "\n".join(file.read_text(errors="replace")[-800:].strip() for file in self._logs if file.exists())
        state = "did not greet" if self.tree.alive else "did not start"
        raise PeerError(f"{state}: {said.strip() or 'it says nothing'}")


class PeerError(Exception):
    """A proxy that did not start; the text holds the end of what it said."""


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on at this moment."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(listener.getsockname()[1]) for listener in sockets]
    for listener in sockets:
        listener.close()
    return ports


def certificate(site: Site) -> tuple[str, str]:
    """A self-signed certificate and its key, made by openssl."""
    cert, key = site.folder / "cert.pem", site.folder / "key.pem"
    request = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    subject = ["-subj", "/CN=localhost", "-days", "2", "-keyout", str(key), "-out", str(cert)]
    subprocess.run([*request, *subject], check=True, capture_output=True)
    return str(cert), str(key)


def _program(name: str) -> str | None:
    return shutil.which(name, path="/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin")


def _needs(*names: str) -> Callable[[], str | None]:
    def missing() -> str | None:
        absent = [name for name in names if not (_program(name) or Path(name).exists())]
        return f"not installed: {', '.join(absent)}" if absent else None

    return missing


# haproxy: sees no POP3 at all, only two sockets.
def _haproxy(options: str) -> Callable[[Site], Sequence[str]]:
    def command(site: Site) -> Sequence[str]:
        config = site.write(
            "haproxy.cfg",
            f"""
            global
                maxconn 5000
                nbthread 1
            defaults
                mode tcp
                {options}
                timeout connect 5s
                timeout client 10m
                timeout server 10m
            listen pop3
                bind 127.0.0.1:{site.port}
                server backend 127.0.0.1:{site.backend}
            """,
        )
        return ["/usr/sbin/haproxy", "-db", "-f", config]

    return command


# nginx mail: does the login, then relays blindly. Its http side answers auth_http in the same process, which is the
# cheapest such service there is. It never sets TCP_NODELAY on mail connections (no directive does), so that a small
# write behind an unacknowledged one waits for the peer's delayed acknowledgement: 40 ms a request.
def _nginx(site: Site) -> Sequence[str]:
    module = "/usr/lib/nginx/modules/ngx_mail_module.so"
    config = site.write(
        "nginx.conf",
        f"""
        {f"load_module {module};" if Path(module).exists() else ""}
        daemon off;
        worker_processes 1;
        worker_rlimit_nofile 10000;
        error_log {site.folder}/error.log warn;
        pid {site.folder}/nginx.pid;
        events {{ worker_connections 8192; }}
        http {{
            access_log off;
            server {{
                listen 127.0.0.1:{site.spare_port};
                location / {{
                    add_header Auth-Status OK;
                    add_header Auth-Server 127.0.0.1;
                    add_header Auth-Port {site.backend};
                    return 204;
                }}
            }}
        }}
        mail {{
            auth_http 127.0.0.1:{site.spare_port}/;
            timeout 10m;
            server {{
                listen 127.0.0.1:{site.port} backlog=1024;
                protocol pop3;
                pop3_auth plain;
            }}
        }}
        """,
    )
    return ["/usr/sbin/nginx", "-e", f"{site.folder}/error.log", "-p", str(site.folder), "-c", config]


def _dovecot(*, sessions_per_process: int, tls: bool = False) -> Callable[[Site], Sequence[str]]:
    """`service_count` 0: login processes that serve many sessions; 1: each session has a process to itself."""

    def command(site: Site) -> Sequence[str]:
        listener = "pop3s" if tls else "pop3"
        other = "pop3" if tls else "pop3s"
        ssl = "no"
        if tls:
            cert, key = certificate(site)
            ssl = f"yes\nssl_cert = <{cert}\nssl_key = <{key}\nssl_min_protocol = TLSv1.3"
        config = site.write(
            "dovecot.conf",
            f"""
            protocols = pop3
            listen = 127.0.0.1
            base_dir = {site.folder}/run
            state_dir = {site.folder}/state
            log_path = {site.folder}/dovecot.log
            disable_plaintext_auth = no
            ssl = SSL
            default_internal_user = dovecot
            default_login_user = dovenull
            default_client_limit = 10000
            default_process_limit = {MOST + 200}
            passdb {{
                driver = static
                args = proxy=y host=127.0.0.1 port={site.backend} nopassword=y
            }}
            service pop3-login {{
                service_count = {0 if sessions_per_process > 1 else 1}
                process_min_avail = 1
                process_limit = {1 if sessions_per_process > 1 else MOST + 200}
                client_limit = {sessions_per_process}
                inet_listener {listener} {{
                    port = {site.port}
                    ssl = {"yes" if tls else "no"}
                }}
                inet_listener {other} {{
                    port = 0
                }}
            }}
            """.replace("ssl = SSL", f"ssl = {ssl}".replace("\n", "\n            ")),
        )
        return ["/usr/sbin/dovecot", "-F", "-c", config]

    return command


def _perdition(site: Site) -> Sequence[str]:
    flags = ["--no_daemon", "--no_lookup", "-M", "", "--ssl_mode", "none", "--pid_file", f"{site.folder}/pid"]
    where = ["-b", "127.0.0.1", "-l", str(site.port), "-s", "127.0.0.1", "-p", str(site.backend)]
    config = site.write("perdition.conf", "")
    return ["/usr/sbin/perdition.pop3", "-f", config, *flags, *where, "-u", "nobody", "-g", "nogroup"]


def _emailproxy_missing() -> str | None:
    return None if importlib.util.find_spec("emailproxy") else "not installed: emailproxy (bench/requirements.txt)"


def _emailproxy(site: Site) -> Sequence[str]:
    return [sys.executable, "-m", "bench.emailproxy_start", str(site.port), str(site.backend)]


# The floor: the gateway's process model in bare C, with nothing in it that a gateway is for (bench/floor.c).
def _floor(*, workers: int, seats: int) -> Callable[[Site], Sequence[str]]:
    def command(site: Site) -> Sequence[str]:
        return [str(FLOOR), str(site.port), str(site.backend), str(workers), str(seats)]

    return command


def _pop3gw_missing() -> str | None:
    if not GATEWAY.exists():
        return "no .venv/bin/pop3gw (make venv)"
    tried = subprocess.run([str(GATEWAY), "--version"], capture_output=True, timeout=30, check=False)
    return None if tried.returncode == 0 else "pop3gw --version fails"


def _pop3gw(
    *, sessions_per_worker: int, policy: str | None = None, tls: bool = False
) -> Callable[[Site], Sequence[str]]:
    def command(site: Site) -> Sequence[str]:
        settings = [f"sessions_per_worker = {sessions_per_worker}", f"max_workers = {MOST}"]
        if policy is not None:
            settings.append(f'policy = "bench_policy:{policy}"')
            shutil.copy(REPOSITORY / "bench" / "bench_policy.py", site.folder)
        if tls:
            cert, key = certificate(site)
            settings += ["tls = implicit", f"tls_certificate = {cert}", f"tls_key = {key}"]
        log = site.folder / "pop3gw.log"
        config = site.write(
            "pop3gw.conf",
            f"""
            [main]
            policy_path = {site.folder}
            log_target = {log}
            [services]
              [[bench]]
              listen = 127.0.0.1:{site.port}
              server = 127.0.0.1:{site.backend}
            """,
        )
        with Path(config).open("a") as file:
            file.writelines(f"  {line}\n" for line in settings)
        return [str(GATEWAY), "--foreground", "--config", config]

    return command


def _gateway(name: str, title: str, *, policy: str | None = None, tls: bool = False) -> tuple[Peer, Peer]:
    """pop3gw in both modes: NAME-1, one session a worker, and NAME-200."""
    single = _pop3gw(sessions_per_worker=1, policy=policy, tls=tls)
    dense = _pop3gw(sessions_per_worker=MANY, policy=policy, tls=tls)
    return (
        Peer(f"{name}-1", f"{title}, one session a worker", _pop3gw_missing, single, tls=tls),
        Peer(f"{name}-{MANY}", f"{title}, {MANY} sessions a worker", _pop3gw_missing, dense, tls=tls),
    )


_DOVECOT = _needs("dovecot", "/usr/lib/dovecot/pop3-login")
_SHARED = MOST + 200

PEERS: tuple[Peer, ...] = (
    Peer("haproxy", "haproxy, TCP only", _needs("haproxy"), _haproxy("")),
    Peer("haproxy-splice", "haproxy, TCP only, splice", _needs("haproxy"), _haproxy("option splice-auto")),
    Peer("nginx", "nginx mail (no policy after login)", _needs("nginx"), _nginx),
    Peer(
        "dovecot-shared",
        "Dovecot proxy, shared login processes",
        _DOVECOT,
        _dovecot(sessions_per_process=_SHARED),
    ),
    Peer("dovecot-single", "Dovecot proxy, one process a session", _DOVECOT, _dovecot(sessions_per_process=1)),
    Peer(
        "dovecot-tls",
        "Dovecot proxy, shared, TLS 1.3",
        _DOVECOT,
        _dovecot(sessions_per_process=_SHARED, tls=True),
        tls=True,
    ),
    Peer("emailproxy", "email-oauth2-proxy (asyncore)", _emailproxy_missing, _emailproxy, suffix="@bench"),
    Peer("perdition", "perdition (fork each)", _needs("perdition.pop3"), _perdition),
    Peer("floor-1", "bare relay in C, a process a session", _needs(str(FLOOR)), _floor(workers=64, seats=1)),
    Peer(f"floor-{MANY}", f"bare relay in C, {MANY} a process", _needs(str(FLOOR)), _floor(workers=1, seats=MANY)),
    *_gateway("pop3gw", "pop3gw"),
    *_gateway("pop3gw-login", "pop3gw, callbacks on USER and PASS", policy="LoginCallbacks"),
    *_gateway("pop3gw-lines", "pop3gw, callback on every line of RETR", policy="LineCallback"),
    *_gateway("pop3gw-tls", "pop3gw, TLS 1.3", tls=True),
)
