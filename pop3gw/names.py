"""The names that sessions and the processes around them look up: attributes, methods, keys. They lie side by side.

Each lookup writes to the name's reference count, and a page that a process writes to is its own from then on. Made
wherever a module first mentions them, these names lie on a page each: 0.1 MiB of each worker, 0.2 of the master. So
this module is the first of the package to be imported, and imports next to nothing itself.

Known limits: a name that is missing here, or too many, costs memory and nothing else; docs/performance.md says how they
were found. What the interpreter has made before (``close``, ``get``) stays where it is, and is not named here. From
Python 3.12 on names are not counted, in 3.13 those are that only compiled modules mention: the others only lie closer
together.
"""

from __future__ import annotations

import sys

_WORDS = """
AF_UNIX APOP CAPA CONNECT_SECONDS DELE EPOLLIN EPOLLOUT Fork Free GREETING IPPROTO_TCP LANG LAST LIST LOAD_LIMIT Limits
NOOP Offer PASS Pop3Proxy Prepared QUIT RETR RSET SESSIONS SESSION_SECONDS SHUT_WR SOCK_SEQPACKET SPAWN STAT Serve
TCP_INFO TOP UIDL USER UTF8 _USUAL __dataclass_fields__ _accept _alarm _answered _ask _asked_reload _asked_to_leave
_called _client_ready _connected _due _ended _give_up _handle _hear _mask _rings _running _see_outcome
_server_ready accept address adopt ask auth_timeout backtrace began begin board bound callback_timeout callbacks
channel client_tls clients config connect_ex connect_timeout content_line control_socket conversation credit deadline
due ended epoll events expire failed filtered free generation getsockopt group heard host idle ledger limit log_format
log_level log_target max_auth_failures max_authline_length max_password_length max_request_line_length
max_response_line_length max_sessions max_sessions_per_client max_spare max_username_length max_workers metrics_listen
min_spare now on_err origins pack pack_into password permit_longline pid_file plan policy policy_path poll poller port
proxy_protocol_from ready_at recv recvmsg request rows seat seats secret select send_proxy sendmsg served server
services session sessions_per_worker setblocking setsockopt settle shutdown shutdown_timeout slot socket socketpair
stage strict_line_endings timeout timestamp tls tls_certificate tls_required unpack unpack_from username waits
workers
"""
# The interpreter's start has left gaps between older texts, by their size: these texts fill them for the moment.
_filled = [f"{number:0{length}}" for length in (7, 15, 23, 31) for number in range(256)]
NAMES = tuple(map(sys.intern, _WORDS.split()))
del _filled
