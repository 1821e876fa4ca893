"""What settings say together: clashing listeners, loops, accounts, folders, contradicting numbers, a missing library.

Each value is well-formed by itself when it gets here. This asks the machine about accounts, folders, libraries and its
own addresses, but resolves no name.
"""

from __future__ import annotations

import grp
import importlib.util
import itertools
import os
import pwd
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from pop3gw.errors import Problem
from pop3gw.loops import leads_to
from pop3gw.places import is_folder
from pop3gw.settings import Config, Service
from pop3gw.values import Address, Tls

# What is set for TLS with one side or either, where it is these settings that say whether there is any.
_FOR_TLS: Final = (
    (("tls",), ("tls_certificate", "tls_key", "tls_client_ca")),
    (("server_tls",), ("server_name", "server_ca", "server_fingerprint", "server_certificate", "server_key")),
    (("tls", "server_tls"), ("tls_key_passphrase", "tls_min_version", "tls_ciphers")),
)

_MADE: Final = ("pid_file", "control_socket", "log_target")
_LONGEST: Final = 107  # octets of a Unix socket's path, unix(7)


def problems(config: Config, *, whole: bool = True) -> list[Problem]:
    """Everything in a configuration that can't be true at once, or not here.

    Where it could not be read ``whole``, nobody is told that a mode is off: it may be what could not be read.
    """
    found = [
        *_listener_clashes(config),
        *_metrics(config),
        *_loops(config),
        *_spares(config),
        *(_tls_without_effect(config) if whole else ()),
        *_shown_to_nobody(config),
        *accounts(config, os.geteuid(), os.getegid()),
        *_folders(config),
        *_shared_paths(config),
        *_long_path(config),
    ]
    return list(dict.fromkeys(found))  # what is wrong in [workers] is wrong for each service


def with_spares(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values with, where only one of min_spare and max_spare is set, a default of the other that fits it."""
    low, high = values.get("min_spare"), values.get("max_spare")
    defaults = Service.__dataclass_fields__
    if low is not None and high is None:
        return {**values, "max_spare": max(low, defaults["max_spare"].default)}
    if high is not None and low is None:
        return {**values, "min_spare": min(high, defaults["min_spare"].default)}
    return dict(values)


def _spares(config: Config) -> Iterator[Problem]:
    for service in config.services:
        low, high = service.min_spare, service.max_spare
        if low <= high:
            continue
        if config.origin(service.name, "max_spare").note and not config.origin(service.name, "min_spare").note:
            found = f"{low}, which is more than max_spare = {high}"
            yield config.problem(service.name, "min_spare", found, "max_spare or less")
        else:
            found = f"{high}, which is less than min_spare = {low}"
            yield config.problem(service.name, "max_spare", found, "min_spare or more")


def _tls_without_effect(config: Config) -> Iterator[Problem]:
    """Who says whom to trust, or what to show, expects TLS: without it passwords would cross in clear."""
    for service in config.services:
        for modes, keys in _FOR_TLS:
            if any(getattr(service, mode) is not Tls.OFF for mode in modes):
                continue
            for key in keys:
                if getattr(service, key) != Service.__dataclass_fields__[key].default:
                    found = f"set, but {' and '.join(modes)} = off: there is no TLS that it could be for"
                    yield config.problem(service.name, key, found, f"another {' or '.join(modes)}, or no {key}")


def _shown_to_nobody(config: Config) -> Iterator[Problem]:
    """Who names a certificate expects that somebody is shown it."""
    for service in config.services:
        names: set[str] = set()
        for number, certificate in enumerate(service.tls_certificate):
            name = certificate.name
            if number and not name:
                found = f"{certificate}, which nobody is shown: it has no name, and is not the first"
                yield config.problem(service.name, "tls_certificate", found, f"NAME={certificate.file}")
            elif name and name in names:
                found = f'{certificate}, but "{name}" has a certificate already'
                yield config.problem(service.name, "tls_certificate", found, "one for each name")
            names.add(name)


def clash(one: Address, other: Address) -> bool:
    """Whether both can't be bound. An IPv6 wildcard leaves IPv4 alone: ``listeners`` sees to that (IPV6_V6ONLY)."""
    if one.port != other.port or one.port == 0 or one.ip is None or other.ip is None:
        return False
    return one.ip == other.ip or (
        one.ip.version == other.ip.version and (one.ip.is_unspecified or other.ip.is_unspecified)
    )


def _listener_clashes(config: Config) -> Iterator[Problem]:
    listeners = [(service.name, address) for service in config.services for address in service.listen]
    for (first, taken), (second, address) in itertools.combinations(listeners, 2):
        if clash(taken, address):
            line = config.origin(first, "listen").line
            where = f"[{first}] in line {line}" if line else f"[{first}]"
            yield config.problem(second, "listen", f'"{address}", but {where} listens on {taken}', "a free address")


def _metrics(config: Config) -> Iterator[Problem]:
    wanted = config.metrics_listen
    if wanted is None:
        return
    if importlib.util.find_spec("prometheus_client") is None:
        found = f'"{wanted}", which needs the library prometheus_client'
        expected = "an apt-get install python3-prometheus-client, or pip install 'pop3gw[metrics]', before"
        yield config.problem("", "metrics_listen", found, expected)
    for service in config.services:
        if any(clash(taken, wanted) for taken in service.listen):
            found = f'"{wanted}", where [{service.name}] listens for clients'
            yield config.problem("", "metrics_listen", found, "a free address")


def _loops(config: Config) -> Iterator[Problem]:
    listeners = [(service.name, address) for service in config.services for address in service.listen]
    for service in config.services:
        for name, listener in listeners:
            if leads_to(service.server, listener):
                found = f'"{service.server}", where [{name}] of this gateway listens ({listener}): a loop'
                yield config.problem(service.name, "server", found, "the address of a POP3 server")
                break


def accounts(config: Config, uid: int, gid: int) -> Iterator[Problem]:
    """Whether the named accounts exist and who starts the gateway (``uid``, ``gid``) may become them."""
    if config.user is not None:
        try:
            wanted = pwd.getpwnam(config.user).pw_uid
        except KeyError:
            yield config.problem("", "user", f'"{config.user}", which is no account here', "an existing account")
        else:
            if uid not in (0, wanted):
                yield _not_root(config, "user", config.user, "account")
    if config.group is not None:
        try:
            wanted = grp.getgrnam(config.group).gr_gid
        except KeyError:
            yield config.problem("", "group", f'"{config.group}", which is no group here', "an existing group")
        else:
            if uid != 0 and gid != wanted:
                yield _not_root(config, "group", config.group, "group")


def _not_root(config: Config, key: str, name: str, what: str) -> Problem:
    found = f'"{name}", another {what} than the one that starts the gateway, which is not root'
    return config.problem("", key, found, f"no {key}, or a start as root")


def _folders(config: Config) -> Iterator[Problem]:
    """Named policy folders must be there; the default one need not."""
    if ("", "policy_path") not in config.origins:
        return
    for folder in config.policy_path:
        try:
            found = "" if is_folder(Path(folder)) else f'"{folder}", which is no folder'
        except OSError as error:
            found = f'"{folder}": {error.strerror}'
        if found:
            yield config.problem("", "policy_path", found, "an existing folder")


def _shared_paths(config: Config) -> Iterator[Problem]:
    """What the gateway writes, makes and removes must neither be each other nor the configuration."""
    owners = {os.path.realpath(config.source): "the configuration itself"}
    keys = [key for key in _MADE if getattr(config, key) not in (None, "syslog", "stderr")]
    for key in sorted(keys, key=lambda key: config.origin("", key).line):
        path, line = getattr(config, key), config.origin("", key).line
        place = os.path.realpath(path)
        if place in owners:
            yield config.problem("", key, f'"{path}", which is {owners[place]}', "a path of its own")
        else:
            owners[place] = f"{key} in line {line}" if line else key


def _long_path(config: Config) -> Iterator[Problem]:
    """The system takes no long paths for sockets."""
    path = config.control_socket
    if path is not None and (octets := len(os.fsencode(path))) > _LONGEST:
        found = f'"{path}", which has {octets} octets'
        yield config.problem("", "control_socket", found, f"a path of at most {_LONGEST} octets, as a socket has")
