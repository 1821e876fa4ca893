"""Imports go one way: reads those of every module, and keeps the order below and its pure rooms."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "pop3gw"

# From left to right: a module imports only from lines above its own.
ORDER = """
names compiled errors times waiting backtrace draining stages
lazily joined signals values agenda backoff clientele credit orders redaction scan stream poller notify demo.server
policy
checking policies.apop policies.tls
farewell places privileges messages attention listing respawn spares closing congestion replacement patience seating
settings loops leavers proto.wire proto.commands proto.events proto.capabilities proto.proxyheader
proto.asking proto.content proto.counts proto.sasl proto.turns
proto.upgrade proto.outcome spelling
proto.requests
proto.answers proto.clientside
proto.serverside
proto.fastpath
proto.session
consistency reference changes pool
config
callguard heap arrival net process pidfile logline listeners refusals scoreboard tlsstream
distrust fdpass
loading logfile ledger
activation answering doors logsinks tls view
logs
tally uncaught pump
admission control metrics handshake
conversation
relay attendant
worker
rehearsal
template
generation
succession
crew
serving
attendance
master preflight
startup
demo
top
cli ctl
"""
RANK = {name: rank for rank, line in enumerate(ORDER.split("\n")) for name in line.split()}

# Rooms without effects: they are told what happened and what time it is.
PURE: tuple[str, ...] = ("policy", "times", "backtrace", "pool", "agenda", "backoff", "clientele", "credit", "draining")
PURE += ("orders", "messages", "attention", "seating", "spares", "respawn", "closing", "congestion", "patience")
PURE += ("stages", "replacement")
PURE += ("redaction", "values", "listing", "scan", "changes", "settings", "policies.", "proto.", "checking", "spelling")
EFFECTS = {"asyncio", "datetime", "fcntl", "io", "logging", "mmap", "os", "pathlib", "random", "select", "selectors"}
EFFECTS |= {"shutil", "signal", "socket", "ssl", "subprocess", "sys", "tempfile", "threading", "time"}

# Who alone imports what; all else is the standard library or pop3gw itself.
ALONE = {
    "configobj": {"config"},
    "daemon": {"process"},
    "setproctitle": {"process"},
    "ssl": {"tls", "tlsstream"},
    "prometheus_client": {"metrics"},
    "rich": {"top"},
    "twisted": {"demo.server"},
    "typing_extensions": {"demo.server"},
    "traceback": {"backtrace"},  # what it raises of its own must end nothing
}


def modules() -> dict[str, Path]:
    """Every module by its name below pop3gw; packages that only hold modules are none."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
        if name not in ("__init__", "proto", "policies"):
            found[name] = path
    return found


MODULES = modules()


def imported(node: ast.AST) -> Iterator[str]:
    """What is imported anywhere below, also within functions; what only a type checker reads is not."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING":
            continue
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "imports are absolute"
            for alias in child.names:
                whole = f"{child.module}.{alias.name}"
                yield whole if whole.removeprefix("pop3gw.") in MODULES else str(child.module)
        else:
            yield from imported(child)


def imports(name: str) -> set[str]:
    return set(imported(ast.parse(MODULES[name].read_text())))


def own(name: str) -> set[str]:
    """The modules of pop3gw that a module imports."""
    return {found.removeprefix("pop3gw.") for found in imports(name) if found.startswith("pop3gw.")}


def test_the_order_names_every_module_and_no_other() -> None:
    assert set(RANK) == set(MODULES)


@pytest.mark.parametrize("name", sorted(MODULES))
def test_imports_go_one_way(name: str) -> None:
    assert {other for other in own(name) if RANK[other] >= RANK[name]} == set()


@pytest.mark.parametrize("name", sorted(name for name in MODULES if name.startswith(PURE)))
def test_pure_rooms_have_no_effects(name: str) -> None:
    assert {found.partition(".")[0] for found in imports(name)} & EFFECTS == set()
    impure = {other for other in own(name) if not other.startswith((*PURE, "errors"))}
    assert impure == set()


@pytest.mark.parametrize("library", sorted(ALONE))
def test_libraries_are_imported_only_where_they_belong(library: str) -> None:
    users = {name for name in MODULES if any(found.partition(".")[0] == library for found in imports(name))}
    assert users <= ALONE[library]


def test_the_protocol_does_not_know_the_gateway_around_it() -> None:
    known = set().union(*(own(name) for name in MODULES if name.startswith("proto.")))
    assert {name for name in known if not name.startswith("proto.")} <= {"policy", "values", "backtrace"}
