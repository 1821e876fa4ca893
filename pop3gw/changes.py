"""What one configuration has that another had not, for the administrator who has just reloaded it.

Pure: two configurations in, lines out. Made from the table of settings, so a new setting needs nothing here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pop3gw.settings import Applies, Config, Section, Service, Setting, of_section
from pop3gw.values import show

_MAIN = of_section(Section.MAIN)
_OF_SERVICE = of_section(Section.SERVICE, Section.WORKERS)
UNCHANGED = "no setting has changed; the policies were loaded anew"


def changes(old: Config, new: Config) -> list[str]:
    """One line for each setting that differs, as ``[inbound] max_workers: 256 -> 300``."""
    before = {service.name: service for service in old.services}
    after = {service.name: service for service in new.services}
    lines = list(_differences("main", _MAIN, old, new))
    for name, service in after.items():
        if name in before:
            lines += _differences(name, _OF_SERVICE, before[name], service)
        else:
            lines.append(f"[{name}] is new")
    lines += [f"[{name}] is removed; its sessions may finish" for name in before if name not in after]
    return lines or [UNCHANGED]


def _differences(
    section: str, settings: Iterable[Setting], old: Config | Service, new: Config | Service
) -> Iterator[str]:
    for item in settings:
        was, now = getattr(old, item.key), getattr(new, item.key)
        if was != now:
            late = " (when pop3gw is restarted)" if item.row.applies is Applies.RESTART else ""
            yield f"[{section}] {item.key}: {_shown(item, was)} -> {_shown(item, now)}{late}"


def _shown(item: Setting, value: object) -> str:
    return item.default_shown if value in (None, ()) else show(value)
