"""The names that a session looks up: attributes, methods, keys. They are made here, first of all, and lie side by side.

Each lookup writes to the name's reference count, and a page that a process writes to is its own from then on. Made
wherever a module first mentions them, these names lie on a page each: 0.1 MiB of each worker, and as many cold lines of
the caches for each event. So this module is the first of the package to be imported.

Known limits: a name that is missing here, or too many, costs memory and nothing else; docs/performance.md says how they
were found. What the interpreter has made before (``close``, ``get``) stays where it is, and is not named here.
"""

from __future__ import annotations

import sys
from typing import Final

_WORDS: Final = """
APOP CAPA CONNECT_SECONDS DELE ERR Free GREETING LANG LAST LIST NOOP Offer PASS QUIT RETR RSET SESSIONS
SESSION_SECONDS SHUT_WR STAT Serve TOP UIDL USER UTF8 _USUAL _alarm _answered _ask _asked_to_leave
_client_ready _connected _due _ended _give_up _handle _hear _rings _running _server_ready address adopt
ask auth_timeout begin callback_timeout callbacks client_tls config connect_ex connect_timeout
conversation deadline ended epoll expire host idle max_auth_failures max_authline_length
max_password_length max_request_line_length max_response_line_length max_sessions_per_client
max_username_length pack pack_into password permit_longline poll poller port proxy_protocol_from recv
recvmsg request seat secret send_proxy server session setblocking setsockopt settle shutdown slot socket
strict_line_endings timeout timestamp tls tls_required unpack unpack_from used username
"""
# The interpreter's start has left gaps between older texts, by their size: these texts fill them for the moment.
_filled = [f"{number:0{length}}" for length in (15, 31) for number in range(256)]
NAMES: Final = tuple(map(sys.intern, _WORDS.split()))
del _filled
