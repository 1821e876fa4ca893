"""What a start would refuse, found before one: at ``--check``, at a start and at a reload.

It looks at the log, at the paths of what is made, and for a check at keys and policies, which ``template`` loads in
processes of their own. It knows no options and writes nothing: what it finds, its caller tells. What is wrong in the
file itself is found by ``config`` and ``consistency``.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from pop3gw import doors, logs, pidfile, privileges, template
from pop3gw.distrust import Distrust
from pop3gw.errors import Problem
from pop3gw.settings import Config
from pop3gw.values import Tls


def check(
    config: Config, known: Sequence[Problem], *, foreground: bool, passed_over: Callable[[str], None]
) -> tuple[list[Problem], list[Problem]]:
    """What is wrong beside what is ``known`` to be, and what is only doubtful.

    Nothing is looked at that would be blamed for what is known: then ``passed_over`` is told what, and why. StartError:
    the account of the workers is not there, or can't be used.
    """
    wrong = {key for problem in known for key in _meant(problem)}
    if wrong & {"user", "group"}:  # then as the account that would be taken by default
        config = dataclasses.replace(config, user=None, group=None)
    config = _without_doubtful_tls(config, known, passed_over)
    problems: list[Problem] = []
    if ("", "log_target") in config.origins:  # else a start in the foreground would not ask for syslog
        problems += of_log(config, foreground=foreground)
    problems += of_places(config)
    # Without the folders that were meant, policies would be accused of what isn't theirs.
    if wrong & {"policy_path", "main"}:
        culprit = "policy_path" if "policy_path" in wrong else "[main]"
        passed_over(f"no policy was checked, since {culprit} is wrong")
        return problems, doubtful_places(config)
    wrong_with_policies, doubts = template.check(config)
    return problems + wrong_with_policies, doubts + doubtful_places(config)


def of_log(config: Config, *, foreground: bool) -> list[Problem]:
    """What a start would refuse of log_target. StartError: as for ``check``."""
    if config.log_target == "stderr":
        found = "" if foreground else "stderr, which a daemon does not have"
    else:
        found = logs.fault(config.log_target, privileges.find_account(config.user, config.group))
    if found:
        expected = (
            "a syslog daemon that runs, a file that can be written in a folder that exists, or stderr and a start with"
            " --foreground"
        )
        return [config.problem("", "log_target", found, expected)]
    return []


def of_places(config: Config) -> list[Problem]:
    """What a start would refuse of the other paths that are set for what it makes."""
    problems = []
    for key, fault, what in (("pid_file", pidfile.fault, "file"), ("control_socket", doors.fault, "socket")):
        path = getattr(config, key) if ("", key) in config.origins else None
        if path is not None and (found := fault(path)):
            expected = f"the path of a {what} of its own, in a folder that exists and that this account may write"
            problems.append(config.problem("", key, found, expected))
    return problems


def doubtful_places(config: Config) -> list[Problem]:
    """Where the workers' account could put something else than root makes. StartError: as for ``check``."""
    account = privileges.find_account(config.user, config.group)
    if account is None:
        return []
    distrust = Distrust.of(account)
    problems = []
    for key in ("pid_file", "control_socket"):
        path = getattr(config, key)
        with contextlib.suppress(OSError):  # there is no such folder: root makes it
            if path is not None and distrust.may_redirect(Path(path)):
                found = f"{path}, in whose place the workers' account {account.name} may put another"
                problems.append(config.problem("", key, found, "a path in a folder that belongs to root alone"))
    return problems


def _meant(problem: Problem) -> tuple[str, str]:
    """The setting that is wrong; and what is expected, which is the one that is meant where it is misspelt."""
    return problem.key.rpartition(" ")[2], problem.expected


def _without_doubtful_tls(config: Config, known: Sequence[Problem], passed_over: Callable[[str], None]) -> Config:
    """With TLS off for services of which one TLS setting is wrong, else the others would be blamed for it."""
    wrong = {
        problem.key[1:].partition("]")[0]
        for problem in known
        if any(key.startswith(("tls", "server_")) for key in _meant(problem))
    }
    services = []
    for service in config.services:
        doubtful = service.name in wrong and not service.tls is service.server_tls is Tls.OFF
        if doubtful:
            passed_over(f"no certificate and no key of [{service.name}] was read, since a setting of its TLS is wrong")
        services.append(dataclasses.replace(service, tls=Tls.OFF, server_tls=Tls.OFF) if doubtful else service)
    return dataclasses.replace(config, services=tuple(services))
