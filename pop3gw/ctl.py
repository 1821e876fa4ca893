"""The command ``pop3gwctl``: asks a running gateway how it is, and tells it what to do (pop3gwctl(8)).

It knows the control socket's protocol; how answers look is in ``listing``. ``rich`` is imported by ``top`` alone.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import socket
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, cast

from pop3gw import __version__, process
from pop3gw.errors import Exit, RefusedError
from pop3gw.listing import in_a_line, session_lines, status_lines
from pop3gw.redaction import escaped

SOCKET: Final = "/run/pop3gw/pop3gw.sock"
_PATIENCE: Final = 10.0  # s for an answer
_RELOAD_PATIENCE: Final = 90.0  # s: every policy may take half a minute to load
_EPILOG = """\
examples:
  pop3gwctl sessions alice       which sessions has alice, from where, and what are they doing?
  pop3gwctl kill 3f2a90c1        end this one
  pop3gwctl drain inbound        let no more clients into this service

exit status: 0 done; 1 not done, or no gateway answers; 2 wrong options. More is in pop3gwctl(8).
"""

Json = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    process.open_standard_streams()
    # Any name may have been chosen by a client, in letters that are not of this locale: columns keep their widths.
    cast(io.TextIOWrapper, sys.stdout).reconfigure(errors="replace")
    try:
        try:
            return _done(_parser().parse_args(arguments))
        finally:
            sys.stdout.flush()  # while it can be said that it fails
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):  # else the reader has left: nobody is there to be told
            print(f"pop3gwctl: standard output: {error.strerror}", file=sys.stderr)
        return Exit.FAILED
    except KeyboardInterrupt:
        return Exit.FAILED


def _done(options: argparse.Namespace) -> int:
    """Do what they say; returns the exit status. OSError: the answer can't be written."""
    try:
        return int(options.do(options))
    except RefusedError as error:
        if options.json:
            print(json.dumps({"ok": False, "error": str(error)}))
        else:
            for line in str(error).splitlines():
                print(f"pop3gwctl: {escaped(line)}", file=sys.stderr)
        return Exit.FAILED


def ask(path: str, command: str, patience: float = _PATIENCE, **arguments: object) -> Json:
    """Ask the gateway at this socket; returns the result. RefusedError: it was refused, or nobody answers."""
    request = json.dumps({"command": command, **arguments}).encode() + b"\n"
    answer = bytearray()
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(patience)
            connection.connect(path)
            connection.sendall(request)
            with contextlib.suppress(ConnectionResetError):  # it was refused before all of it was read
                while data := connection.recv(65536):
                    answer += data
    except TimeoutError:
        raise RefusedError(f"no answer from {path} within {patience:g} s; what was asked may still be done") from None
    except OSError as error:
        raise RefusedError(f"{path}: {error.strerror or error}{_advice(error)}") from None
    try:
        told = json.loads(answer)
    except ValueError:
        raise RefusedError("the gateway ended before it had answered") from None
    if not told["ok"]:
        raise RefusedError(told["error"])
    result: Json = told["result"]
    return result


def _advice(error: OSError) -> str:
    if isinstance(error, FileNotFoundError | ConnectionRefusedError):
        return "; is the gateway running, and is this its control_socket?"
    return "; only root and the group of the workers' account may ask" if isinstance(error, PermissionError) else ""


class _Parser(argparse.ArgumentParser):
    """One that does not keep to itself that help can't be written, as Python's does from 3.12 on."""

    def _print_message(self, message: str, file: Any = None) -> None:
        if file is sys.stdout:
            file.write(message)
        else:
            super()._print_message(message, file)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="pop3gwctl",
        description="Ask a running pop3gw how it is, and tell it what to do.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"pop3gwctl {__version__}")
    parser.add_argument(
        "--socket", metavar="PATH", type=_path, default=SOCKET, help=f"the control socket (default: {SOCKET})"
    )
    parser.add_argument("--json", action="store_true", help="print the gateway's answer as one line of JSON")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(name: str, do: Callable[[argparse.Namespace], int], about: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=about, description=about, allow_abbrev=False)
        added.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        added.set_defaults(do=do)
        return added

    command("status", _status, "services, workers, sessions, rates, refusals and errors since the start")
    found = command("sessions", _sessions, "the sessions that run: who, from where, to where, state, octets, age, TLS")
    found.add_argument("word", nargs="*", help="only those in whose service, user, client, state or id this occurs")
    top = command("top", _top, "status and sessions, live")
    top.add_argument("--interval", metavar="SECONDS", type=_seconds, default=2.0, help="between two pictures")
    kill = command("kill", _kill, "end a session")
    kill.add_argument("session", help="its id, or the beginning of it")
    drain = command("drain", _drain, "let no more clients in; sessions go on")
    drain.add_argument("service", nargs="?", help="default: every service")
    resume = command("resume", _drain, "let clients in again")
    resume.add_argument("service", nargs="?", help="default: every service")
    drain.set_defaults(command="drain")
    resume.set_defaults(command="resume")
    command("reload", _reload, "read the configuration anew; wait, and say what has changed or why nothing has")
    stop = command("stop", _stop, "stop the gateway; its sessions may finish within shutdown_timeout")
    stop.add_argument("--now", action="store_true", help="end the sessions at once")
    return parser


def _path(text: str) -> str:
    if text:
        return text
    raise argparse.ArgumentTypeError("it names no file")


def _seconds(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0.1 <= (seconds := float(text)) <= 3600:
            return seconds
    raise argparse.ArgumentTypeError(f"{text!r} is no number from 0.1 to 3600")


# What can be asked.


def _status(options: argparse.Namespace) -> int:
    return _print(options, ask(options.socket, "status"), status_lines)


def _sessions(options: argparse.Namespace) -> int:
    result = ask(options.socket, "sessions")
    result["sessions"] = [session for session in result["sessions"] if matches(session, options.word)]
    return _print(options, result, session_lines)


def _top(options: argparse.Namespace) -> int:
    if options.json:
        raise RefusedError("top has no JSON; status and sessions have")
    try:
        from pop3gw import top
    except ImportError as error:
        raise RefusedError(f"top needs rich ({error}): apt-get install python3-rich, or pip install rich") from None
    return top.run(lambda command: ask(options.socket, command), options.interval)


def _kill(options: argparse.Namespace) -> int:
    result = ask(options.socket, "kill", session=options.session)
    return _print(options, result, lambda told: [f"ended: {in_a_line(told['session'])}"])


def _drain(options: argparse.Namespace) -> int:
    named = {} if options.service is None else {"service": options.service}
    return _print(options, ask(options.socket, options.command, **named), _said)


def _reload(options: argparse.Namespace) -> int:
    return _print(options, ask(options.socket, "reload", _RELOAD_PATIENCE), _said)


def _stop(options: argparse.Namespace) -> int:
    return _print(options, ask(options.socket, "stop", now=options.now), _said)


# How it is printed.


def _print(options: argparse.Namespace, result: Json, lines: Callable[[Json], Iterable[str]]) -> int:
    # Whoever answers at the socket: no terminal obeys it.
    text = json.dumps({"ok": True, "result": result}) if options.json else "\n".join(map(escaped, lines(result)))
    print(text)
    return Exit.OK


def _said(result: Json) -> Iterable[str]:
    return list(result["said"])


def matches(session: Mapping[str, Any], words: Iterable[str]) -> bool:
    """Whether each word occurs in what the session is called by, whatever its case."""
    text = " ".join(str(session[key] or "") for key in ("session", "service", "user", "client", "state")).casefold()
    return all(word.casefold() in text for word in words)
