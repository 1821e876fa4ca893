"""The process behind pop3gwctl: answers questions on the Unix socket, one JSON line each way (pop3gwctl(8)).

What it tells it reads from shared memory; what it is asked to do it asks the master to do, which decides. So a user of
the socket reaches neither the master nor a worker: whatever is sent here, here it ends. It runs as the workers do.

Known limit: rates begin anew when this process does, at each reload and where the log is reopened, say.
"""

from __future__ import annotations

import json
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

from pop3gw import __version__, messages
from pop3gw.answering import Question
from pop3gw.fdpass import Channel
from pop3gw.logline import quoted
from pop3gw.logs import current as log
from pop3gw.messages import Message
from pop3gw.proto import counts
from pop3gw.proto.events import Ending
from pop3gw.times import NEVER
from pop3gw.view import Overview, Running, Totals, Watched

_SAMPLE_EVERY: Final = 5.0  # s
_SAMPLES: Final = 13  # a minute, both ends
_LOOK_EVERY: Final = 0.02  # s, while a session that is to end is looked at
_KILL_LIMIT: Final = 5.0  # s
_CREDENTIALS: Final = struct.Struct("3i")
_PEERGROUPS: Final = 59  # SO_PEERGROUPS, which the module socket does not name
WAITING: Final = 16  # who may wait for a reload, or for the end of a session: the other places stay free
_SHORTEST_ID: Final = 4  # characters of a session's id that may stand for it

Json = dict[str, Any]


class AskedWronglyError(Exception):
    """The request can't be understood, or names what isn't there; the text says how."""


def peer(connection: socket.socket) -> tuple[int, frozenset[int]]:
    """Who is at the other end, as the system says: its uid, and its groups (of more than 256, the main one)."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, uid, gid = _CREDENTIALS.unpack(raw)
    try:
        more = connection.getsockopt(socket.SOL_SOCKET, _PEERGROUPS, 1024)
    except OSError:
        more = b""
    return uid, frozenset((gid, *struct.unpack(f"{len(more) // 4}I", more)))


class Control:
    """The responder of this process (``answering.Responder``)."""

    mark = b"\n"
    limit = 4096

    def __init__(self, overview: Overview, channel: Channel, uid: int, gid: int, workers: int | None = None) -> None:
        """``uid``: who may ask besides root; ``gid``: whose members may, but for ``workers``: policies run as that."""
        self._overview = overview
        self._channel = channel
        self._uids = (0, uid)
        self._gid = gid
        self._workers = workers
        self._tokens = 0
        self._asked: dict[int, Question] = {}  # until the master has said what became of it
        self._ending: dict[int, Running] = {}  # the sessions that the master was asked to end
        self._watched: list[tuple[float, Running, Question]] = []  # until they are gone
        self._samples: deque[tuple[float, dict[str, tuple[int, int, int]]]] = deque(maxlen=_SAMPLES)
        self._sample_at = -NEVER
        self.too_long = _failed(f"a request is one line of at most {self.limit} octets")
        self._commands: Mapping[str, tuple[Callable[[Question, Json], None], Mapping[str, type]]] = {
            "status": (self._status, {}),
            "sessions": (self._sessions, {}),
            "kill": (self._kill, {"session": str}),
            "drain": (self._drain, {"service": str}),
            "resume": (self._resume, {"service": str}),
            "reload": (self._reload, {}),
            "stop": (self._stop, {"now": bool}),
        }

    # answering.Responder

    def refusal(self, connection: socket.socket) -> bytes | None:
        """What to say to somebody who is neither root nor of the group."""
        uid, groups = peer(connection)
        if uid in self._uids or (self._gid in groups and uid != self._workers):
            return None
        log().warning(f"pop3gwctl: uid {uid} may not use the control socket")
        return _failed("only root and the group of the workers' account may use this socket, not that account itself")

    def ask(self, question: Question) -> None:
        """Answer a request, or refuse it."""
        try:
            request = _read(bytes(question.text))
            command = request.pop("command", None)
            if not isinstance(command, str) or command not in self._commands:
                raise AskedWronglyError(f"command must be one of {', '.join(self._commands)}")
            do, known = self._commands[command]
            for key, value in request.items():
                if key not in known or not isinstance(value, known[key]):
                    expected = ", ".join(f"{name} ({kind.__name__})" for name, kind in known.items())
                    raise AskedWronglyError(f"{command} takes {expected or 'nothing more'}")
            do(question, request)
        except AskedWronglyError as error:
            question.answer(_failed(str(error)))

    def hear(self, message: Message) -> None:
        """What became of something that the master was asked to do."""
        if not isinstance(message, messages.Outcome):
            return
        question = self._asked.pop(message.token, None)
        running = self._ending.pop(message.token, None)
        if question is None:
            return
        if not message.done:
            question.answer(_failed(message.text))
        elif running is not None:
            self._watched.append((time.monotonic() + _KILL_LIMIT, running, question))
        else:
            question.answer(_told({"said": message.text.splitlines()}))

    def tick(self, now: float) -> float:
        """Sample the counters, and look whether the sessions that are to end have ended."""
        if now >= self._sample_at:
            self._sample_at = now + _SAMPLE_EVERY
            self._samples.append((now, {one.name: _measured(one.totals()) for one in self._overview.services}))
        for entry in list(self._watched):
            until, running, question = entry
            shown = running.seat.read()
            if shown is None or shown.session != running.shown.session:
                question.answer(_told({"session": _session(running)}))
            elif now >= until:
                question.answer(
                    _failed(
                        f"the worker of {running.shown.session}, process {running.pid}, has not ended it within"
                        f" {_KILL_LIMIT:g} s; kill -9 {running.pid} ends it, and whatever else that worker serves"
                    )
                )
            else:
                continue
            self._watched.remove(entry)
        return min(self._sample_at, now + _LOOK_EVERY if self._watched else NEVER)

    # What can be asked.

    def _status(self, question: Question, _request: Json) -> None:
        overview = self._overview
        reloads = overview.gateway.totals(())[0]
        question.answer(
            _told(
                {
                    "version": __version__,
                    "pid": overview.pid,
                    "source": overview.source,
                    "seconds": round(time.monotonic() - overview.since, 3),
                    "reloads": {outcome: reloads[counts.RELOADS.index(outcome)] for outcome in ("ok", "failed")},
                    "services": [self._of_service(service) for service in overview.services],
                }
            )
        )

    def _of_service(self, service: Watched) -> Json:
        totals, workers = service.totals(), service.workers()
        return {
            "name": service.name,
            "state": service.state,
            "policy": service.policy,
            "server": service.server,
            "listen": list(service.listen),
            "workers": {
                "total": workers.total,
                "busy": workers.busy,
                "idle": workers.idle,
                "starting": workers.starting,
                "max": workers.most,
            },
            "sessions": service.running(),
            "rates": self._rates(service.name, totals),
            "total": {
                "sessions": totals[counts.SESSIONS.at],
                "logins": totals.of(counts.LOGINS, outcome="ok"),
                "logins_failed": totals.of(counts.LOGINS, outcome="failed"),
                "logins_refused": totals.of(counts.LOGINS, outcome="refused"),
                "requests": totals.of(counts.REQUESTS),
                "requests_refused": totals.of(counts.REQUESTS, verdict="refused")
                + totals.of(counts.REQUESTS, verdict="aborted"),
                "answers_refused": totals[counts.ANSWERS_REFUSED.at],
                "clients_refused": totals.of(counts.CLIENTS_REFUSED),
                "messages": totals[counts.MESSAGES.at],
                "from_client": totals[counts.FROM_CLIENT],
                "to_client": totals[counts.TO_CLIENT],
            },
            "errors": {
                "connect": totals[counts.CONNECT_FAILURES.at],
                "tls": totals.of(counts.TLS_FAILURES),
                "server_protocol": totals.of(counts.SESSIONS_ENDED, end=Ending.PROTOCOL.value),
                "callbacks": sum(totals.callback_errors.values()),
                "faults": totals.of(counts.SESSIONS_ENDED, end=Ending.FAULT.value),
                "sessions_lost": totals[counts.SESSIONS_LOST.at],
                "workers": totals.of(counts.WORKERS_ENDED, how=counts.WorkerEnd.EXIT)
                + totals.of(counts.WORKERS_ENDED, how=counts.WorkerEnd.SIGNAL),
                "accept": totals[counts.ACCEPT_FAILURES.at],
            },
        }

    def _rates(self, service: str, totals: Totals) -> Json:
        then, samples = self._samples[0]
        seconds = max(time.monotonic() - then, 0.001)
        before = samples.get(service, (0, 0, 0))
        new = [(now - old) / seconds for now, old in zip(_measured(totals), before, strict=True)]
        keys = ("sessions_per_second", "logins_per_second", "octets_per_second")
        return {"seconds": round(seconds, 1), **{key: round(rate, 2) for key, rate in zip(keys, new, strict=True)}}

    def _sessions(self, question: Question, _request: Json) -> None:
        found = [running for service in self._overview.services for running in service.sessions()]
        found.sort(key=lambda running: running.shown.started)
        question.answer(_told({"sessions": [_session(running) for running in found]}))

    def _kill(self, question: Question, request: Json) -> None:
        wanted = request.get("session", "")
        if len(wanted) < _SHORTEST_ID:
            raise AskedWronglyError(f"kill takes the id of a session, or at least its first {_SHORTEST_ID} characters")
        found = [
            running
            for service in self._overview.services
            for running in service.sessions()
            if running.shown.session.startswith(wanted)
        ]
        if len(found) != 1:
            how = "no session" if not found else f"more than one session ({len(found)})"
            raise AskedWronglyError(f"there is {how} whose id begins with {wanted}")
        self._let_wait()
        (running,) = found
        token = self._do(
            question, messages.Kill, running.pid, running.seat.number, running.shown.session, what=f"kill {wanted}"
        )
        self._ending[token] = running

    def _drain(self, question: Question, request: Json) -> None:
        self._turn_away(question, request, 1, "drain")

    def _resume(self, question: Question, request: Json) -> None:
        self._turn_away(question, request, 0, "resume")

    def _turn_away(self, question: Question, request: Json, on: int, command: str) -> None:
        service = request.get("service")
        if service == "":
            raise AskedWronglyError(f"{command} takes the name of a service; without one it is meant for every service")
        named = "every service" if service is None else quoted(service)
        self._do(question, messages.Drain, on, service or "", what=f"{command} {named}")

    def _reload(self, question: Question, _request: Json) -> None:
        self._let_wait()
        self._do(question, messages.Reload, what="reload")

    def _stop(self, question: Question, request: Json) -> None:
        self._do(question, messages.Stop, int(request.get("now", False)), what="stop")

    def _let_wait(self) -> None:
        if len(self._asked) + len(self._watched) >= WAITING:
            raise AskedWronglyError("too many wait already for what they have asked for; ask again later")

    def _do(self, question: Question, kind: Callable[..., Message], *fields: object, what: str) -> int:
        """Ask the master; its Outcome will bring the answer."""
        self._tokens += 1
        uid, _ = peer(question.connection)
        log().info(f"pop3gwctl: {what}, asked for by uid {uid}")
        try:
            self._channel.send(kind(self._tokens, *fields))
        except OSError:
            raise AskedWronglyError("the gateway is just ending") from None
        self._asked[self._tokens] = question
        return self._tokens


def _measured(totals: Totals) -> tuple[int, int, int]:
    octets = totals[counts.FROM_CLIENT] + totals[counts.TO_CLIENT]
    return totals[counts.SESSIONS.at], totals.of(counts.LOGINS, outcome="ok"), octets


def _session(running: Running) -> Json:
    shown = running.shown
    return {
        "session": shown.session,
        "service": running.service,
        "user": shown.user or None,
        "client": shown.client,
        "server": shown.server or None,
        "state": shown.state or None,
        "from_client": shown.from_client,
        "to_client": shown.to_client,
        "seconds": round(max(0.0, time.monotonic() - shown.started), 3),
        "client_tls": shown.client_tls or None,
        "server_tls": shown.server_tls or None,
        "pid": running.pid,
    }


def _read(line: bytes) -> Json:
    try:
        request = json.loads(line)
    except (ValueError, RecursionError):
        raise AskedWronglyError('a request is a JSON object in one line, as {"command": "status"}') from None
    if not isinstance(request, dict):
        raise AskedWronglyError('a request is a JSON object, as {"command": "status"}')
    return request


def _told(result: Json) -> bytes:
    return json.dumps({"ok": True, "result": result}).encode() + b"\n"


def _failed(error: str) -> bytes:
    return json.dumps({"ok": False, "error": error}).encode() + b"\n"
