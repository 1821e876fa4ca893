"""The command ``pop3gw``: reads its arguments, and starts, checks or explains.

A mistake of the user is told in plain lines on stderr and in the exit status (``errors.Exit``), never in a traceback.
What is slow or optional to import is imported by the command that needs it.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, TextIO

from pop3gw import __version__, config, process, reference, signals
from pop3gw.errors import ConfigurationError, Exit, Pop3gwError, Problem, StartError
from pop3gw.redaction import escaped
from pop3gw.settings import Config

CONFIG_FILE = "/etc/pop3gw.conf"
_EPILOG = """\
examples:
  pop3gw --listen 127.0.0.1:1110 --server mail.example.com:110   a first try, without any file
  pop3gw --demo                                                  the same with a server and a mailbox of its own
  pop3gw --check                                                 is /etc/pop3gw.conf right?

exit status: 0 stopped as told, or nothing wrong; 1 could not start or go on; 2 wrong options; 78 wrong configuration.
More is in pop3gw(8), pop3gw.conf(5) and pop3gw-policy(7).
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    process.open_standard_streams()
    signals.disinherit()
    parser = _parser()
    options = parser.parse_args(arguments)
    if fault := _misused(options):
        parser.error(fault)
    try:
        return _command(options)(options)
    except Pop3gwError as error:
        _complain(str(error))
        return error.exit
    except KeyboardInterrupt:
        return Exit.FAILED


class _Parser(argparse.ArgumentParser):
    """One that writes as the commands do."""

    def _print_message(self, message: str, file: object = None) -> None:
        if file is not sys.stdout:
            _write(sys.stderr, message)
        elif status := _print(message):
            raise SystemExit(status)


# Without it the terminal is asked, by a module (shutil) that takes 0.4 MiB whether help is wanted or not.
_HELP_WIDTH: Final = 80


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="pop3gw",
        description="A preforking POP3 gateway whose policies are Python classes.",
        epilog=_EPILOG,
        formatter_class=partial(argparse.RawDescriptionHelpFormatter, width=_HELP_WIDTH),
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"pop3gw {__version__}")
    parser.add_argument("--config", metavar="FILE", help=f"read this configuration (default: {CONFIG_FILE})")
    parser.add_argument(
        "--foreground", action="store_true", help="stay attached; log to stderr unless log_target is set"
    )
    act = parser.add_mutually_exclusive_group()
    act.add_argument("--check", action="store_true", help="say everything that is wrong, policies included, and exit")
    act.add_argument("--dump-config", action="store_true", help="print each effective setting and where it comes from")
    act.add_argument("--print-sample", action="store_true", help="print a configuration with every setting explained")
    act.add_argument("--demo", action="store_true", help="serve a sample mailbox, in the foreground")
    quick = parser.add_argument_group("without a configuration file, in the foreground")
    quick.add_argument("--listen", metavar="ADDR", help="where clients connect, as 127.0.0.1:1110")
    quick.add_argument("--server", metavar="ADDR", help="the POP3 server, as mail.example.com:110")
    quick.add_argument(
        "--policy", metavar="MODULE:CLASS", help="the policy, from MODULE.py in this folder or any importable module"
    )
    return parser


def _misused(options: argparse.Namespace) -> str:
    """Why these options don't go together; "" where they do."""
    quick = [f"--{name}" for name in ("listen", "server", "policy") if getattr(options, name) is not None]
    alone = "--demo" if options.demo else "--print-sample" if options.print_sample else ""
    if options.config == "":
        return "--config names no file"
    if quick and options.config is not None:
        return f"{quick[0]} and --config exclude each other"
    if alone and (quick or options.config is not None):
        return f"{alone} needs no configuration"
    if quick and (options.listen is None or options.server is None):
        return "--listen and --server are needed together"
    return ""


def _command(options: argparse.Namespace) -> Callable[[argparse.Namespace], int]:
    if options.print_sample:
        return _print_sample
    if options.demo:
        return _demo
    if options.dump_config:
        return _dump_config
    return _check if options.check else _run


def _load(options: argparse.Namespace, *, again: bool = False) -> Config:
    if options.listen is not None:
        return config.from_command_line(options.listen, options.server, options.policy)
    return config.load(options.config or CONFIG_FILE, foreground=options.foreground, again=again)


def _print_sample(_options: argparse.Namespace) -> int:
    return _print(reference.sample())


def _dump_config(options: argparse.Namespace) -> int:
    return _print(reference.dump(_load(options)))


def _check(options: argparse.Namespace) -> int:
    from pop3gw import preflight

    if options.listen is not None:
        loaded, problems = _load(options), list[Problem]()
    else:
        loaded, problems = config.examine(options.config or CONFIG_FILE, foreground=options.foreground)

    def passed_over(what: str) -> None:
        _complain(f"{loaded.source}: {what}; check again once it is right")

    more, doubts = preflight.check(loaded, problems, foreground=_in_foreground(options), passed_over=passed_over)
    problems += more
    for problem in [*problems, *doubts]:
        _complain(str(problem))
    return Exit.CONFIG if problems else _print(f"{loaded.source}: nothing {'else ' if doubts else ''}is wrong\n")


def _in_foreground(options: argparse.Namespace) -> bool:
    return options.foreground or options.listen is not None


def _run(options: argparse.Namespace) -> int:
    from pop3gw import preflight, startup

    loaded = _load(options)
    foreground = _in_foreground(options)
    if problems := preflight.of_log(loaded, foreground=foreground):
        # What may be there in a while, a folder or a daemon, is worth another try of whoever supervises this.
        raise ConfigurationError(problems) if loaded.log_target == "stderr" else StartError(str(problems[0]))
    if options.listen is None:
        options.config = loaded.source  # its whole path: a daemon is in another folder when it reads it again
    return startup.run(loaded, foreground=foreground, reload=lambda: _reload(options, loaded))


def _reload(options: argparse.Namespace, started: Config) -> Config:
    """The configuration anew. ConfigurationError, also where the next start could not use what is new for it."""
    from pop3gw import preflight

    loaded = _load(options, again=True)
    problems = [*preflight.of_log(loaded, foreground=_in_foreground(options)), *preflight.of_places(loaded)]
    if new := [problem for problem in problems if getattr(loaded, problem.key) != getattr(started, problem.key)]:
        raise ConfigurationError(new)
    return loaded


def _demo(_options: argparse.Namespace) -> int:
    try:
        from pop3gw import demo
    except ImportError as error:
        raise StartError(f"the demonstration is not installed ({error}): pip install 'pop3gw[demo]'") from None
    return demo.run_demo()


def _complain(text: str) -> None:
    for line in text.rstrip("\n").split("\n"):
        _write(sys.stderr, f"pop3gw: {escaped(line)}\n")


def _print(text: str) -> int:
    """Print the result of a command; returns the exit status."""
    error = _write(sys.stdout, text)
    if error is None:
        return Exit.OK
    if not isinstance(error, BrokenPipeError):  # its reader has left: nobody is there to be told
        _complain(f"the output can't be written: {error.strerror}")
    return Exit.FAILED


def _write(stream: TextIO, text: str) -> OSError | None:
    """Write to a standard stream, what it can't show as escapes; returns why it could not be written."""
    try:
        stream.write(text.encode(stream.encoding, "backslashreplace").decode(stream.encoding))
        stream.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # else the interpreter tries again at its end
        return error
    return None
