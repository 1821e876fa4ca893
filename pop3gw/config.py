"""From a configuration file to a frozen ``Config``, or to everything that is wrong with it at once.

ConfigObj reads the file against a configspec made from ``settings``; what it lets pass (unknown names, values cut at
``#``, ``[DEFAULT]``) is looked for here. Not checked here: whether a policy loads (``template``), whether a port is
free (``listeners``), whether a server's name leads back to the gateway (``net`` sees the resolved address).
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from configobj import (
    ConfigObj,
    ConfigObjError,
    DuplicateError,
    NestingError,
    flatten_errors,
    get_extra_values,
)
from configobj.validate import ValidateError, VdtMissingValue

from pop3gw import consistency
from pop3gw.errors import ConfigurationError, Problem, StartError
from pop3gw.scan import line_numbers
from pop3gw.settings import SETTINGS, Config, Origin, Section, Service, Setting, of_section
from pop3gw.values import Address, Certificate

_SERVICE_SETTINGS = of_section(Section.SERVICE, Section.WORKERS)
_SERVICE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}")
_SECTIONS = {
    "main": of_section(Section.MAIN),
    "workers": of_section(Section.WORKERS),
    "services": (),
}
_AFTER_WORD = re.compile(r"[^\w.-]")
_BY_KEY = {item.key: item for item in SETTINGS}
_SHAPE = "[main], [workers] or [services], and below [services] one [[NAME]] a service"
_KINDS = {item.row.kind.check: item.row.kind for item in SETTINGS}

_LARGEST = 1 << 20  # octets of a file
_OWN_DESCRIPTORS = ("/dev/stdin", "/dev/fd/", "/proc/self/fd/")  # what is read from there ends some time

_FOREGROUND: dict[str, Any] = {"pid_file": None, "control_socket": None, "log_target": "stderr"}

Place = tuple[str, ...]


def configspec() -> list[str]:
    """The configspec, as lines: each setting and the name of its check."""

    def rows(settings: Iterable[Setting]) -> list[str]:
        return [f"{item.key} = {item.row.kind.check}" for item in settings]

    spec = [line for name, settings in _SECTIONS.items() for line in (f"[{name}]", *rows(settings))]
    return [*spec, "[[__many__]]", *rows(_SERVICE_SETTINGS)]


class _Checks:
    """What ``ConfigObj.validate`` asks about each key: the kinds of ``settings``, in place of its own checks."""

    baseErrorClass = ValidateError  # noqa: N815 - ConfigObj's name

    def check(self, check: str, value: Any, missing: bool = False) -> Any:
        if missing:
            raise VdtMissingValue
        try:
            return _KINDS[check].parse(value)
        except ValueError as error:
            raise ValidateError(*error.args) from None


def load(path: str, *, foreground: bool, again: bool = False) -> Config:
    """Read and check a configuration file.

    ``foreground`` decides three defaults: there the log goes to stderr, and there is no pid file and, but in a unit of
    systemd, no control socket. Relative paths start at the file's folder. ``again``: at a reload, which waits for no
    writer. Raises ConfigurationError with every problem that was found.
    """
    config, problems = examine(path, foreground=foreground, again=again)
    if problems:
        raise ConfigurationError(problems)
    return config


def examine(path: str, *, foreground: bool, again: bool = False) -> tuple[Config, list[Problem]]:
    """What ``load`` would make of the file, as far as it can be read, and what is wrong with it.

    For ``--check``, which goes on to the policies. Raises ConfigurationError where there is no text to read at all.
    """
    file = path if Path(path).is_absolute() else str(_current_folder() / path)
    document = _Document(file, _read(file, again))
    config = document.config(foreground)
    problems = document.problems + consistency.problems(config, whole=not document.problems)
    return config, sorted(problems, key=lambda problem: problem.line)


def from_command_line(listen: str, server: str, policy: str | None) -> Config:
    """The configuration of a first try without a file: one service, in the foreground, policies in this folder."""
    source = "command line"
    values: dict[str, Any] = {}
    problems: list[Problem] = []
    for key, text in (("listen", listen), ("server", server), ("policy", policy)):
        if text is None:
            continue
        kind = _BY_KEY[key].row.kind
        try:
            values[key] = kind.parse(re.split(r"\s*,\s*", text) if key == "listen" else text)
        except ValueError as error:
            problems += [Problem(source, 0, f"--{key}", fault, kind.expected) for fault in error.args]
    if problems:
        raise ConfigurationError(problems)
    config = Config(
        source=source,
        policy_path=(str(_current_folder()),),
        services=(Service(name="try", **values),),
        **_FOREGROUND,
        origins={("try", key): Origin(file=source) for key in values}
        | {("", "policy_path"): Origin(file=source, note="current folder,")},
    )
    if problems := consistency.problems(config):
        raise ConfigurationError(problems)
    return config


def _current_folder() -> Path:
    try:
        return Path.cwd()
    except OSError as error:
        raise StartError(f"the current folder is gone ({error.strerror}); go to another one") from None


def _read(file: str, again: bool) -> list[str]:
    """The lines of the file; ConfigurationError where it is not there, not readable, or not text."""
    expected = "a readable configuration file; pop3gw --print-sample writes one with explanations"
    try:
        data = _content(file, wait=not again and file.startswith(_OWN_DESCRIPTORS))
    except OSError as error:
        raise ConfigurationError([Problem(file, 0, "", error.strerror or str(error), expected)]) from None
    if data is None:
        raise ConfigurationError([Problem(file, 0, "", "is no plain file", expected)])
    if len(data) > _LARGEST:
        raise ConfigurationError([Problem(file, 0, "", "holds more than 1 MiB", expected)])
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    except UnicodeDecodeError as error:
        line = len((data[: error.start] + b"?").splitlines())
        found = f"the byte 0x{data[error.start]:02x}, which is no UTF-8"
        raise ConfigurationError([Problem(file, line, "", found, "text in UTF-8")]) from None


def _content(file: str, *, wait: bool) -> bytes | None:
    """What the file holds, as far as it is not too much; None: it is no plain file, and nobody waits for its writer."""
    flags = os.O_NOCTTY | (0 if wait else os.O_NONBLOCK)
    with open(file, "rb", opener=lambda path, usual: os.open(path, usual | flags)) as stream:
        if not wait and not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            return None
        return stream.read(_LARGEST + 1)


def _home(key: str) -> str:
    """Where the setting of this name belongs, capitals or not; "" where there is none."""
    found = _BY_KEY.get(key.lower())
    if found is None:
        return ""
    place = {
        Section.MAIN: "in [main]",
        Section.WORKERS: "below a [[NAME]] in [services] or in [workers]",
        Section.SERVICE: "below a [[NAME]] in [services]",
    }[found.row.section]
    return f"{'it' if found.key == key else found.key} {place}"


def _read_by_configobj(lines: Sequence[str]) -> tuple[ConfigObj, list[ConfigObjError]]:
    """What it could read, and what it could not."""
    try:
        return ConfigObj(list(lines), interpolation=False), []
    except ConfigObjError as error:
        return error.config, error.errors


def _depth(line: str) -> int:
    """How many brackets the head of a section begins with; 0: this is none."""
    return line[: len(line) - len(line.lstrip("[ \t"))].count("[")


def _name(path: Place, key: str) -> str:
    """How a setting is called: services are named, other sections are known by their settings."""
    return f"[{path[1]}] {key}".strip() if len(path) > 1 else key


class _Document:
    """One file on its way to a Config; ``problems`` grows with whatever is wrong."""

    def __init__(self, file: str, lines: Sequence[str]) -> None:
        self.file = file
        self.lines = list(lines)
        self.problems: list[Problem] = []
        self._misread: set[Place] = set()  # settings and sections: what stands there isn't called missing
        self._sections_lost = False
        self._tree = self._parse()
        self._numbers = line_numbers(self.lines)
        self._tree.configspec = ConfigObj(configspec(), interpolation=False, list_values=False, _inspec=True)
        # A copy of the texts: validate() puts values in their places, but leaves a text that equals its value.
        self._texts: dict[str, Any] = self._tree.dict()
        result = self._tree.validate(_Checks(), preserve_errors=True)
        self._bad = {(*path, key): error for path, key, error in flatten_errors(self._tree, result) if key and error}
        self._report_values()
        self._report_unknown()

    def config(self, foreground: bool) -> Config:
        """The configuration as far as it could be read: only to be used where there are no problems."""
        origins: dict[tuple[str, str], Origin] = {}
        main: dict[str, Any] = dict(_FOREGROUND) if foreground else {}
        if foreground and (folders := os.environ.get("RUNTIME_DIRECTORY")):  # a unit of systemd gives it one
            main["control_socket"] = f"{folders.partition(':')[0]}/pop3gw.sock"
        for item in _SECTIONS["main"]:
            if (value := self._value(("main",), item)) is not None:
                main[item.key] = value
                origins["", item.key] = self._origin(("main", item.key))
        if "control_socket" not in main and main.get("pid_file"):
            pid_file = Path(main["pid_file"])
            main["control_socket"] = str(pid_file.parent / f"{pid_file.stem}.sock")
        services = tuple(self._services(origins))
        if not self._names() and not self._sections_lost:
            self._add((), "", "no service", "[services] with at least one [[NAME]], which has listen and server")
        return Config(source=self.file, services=services, origins=origins, **main)

    def _services(self, origins: dict[tuple[str, str], Origin]) -> Iterator[Service]:
        for name in self._names():
            place = ("services", name)
            values: dict[str, Any] = {}
            for item in _SERVICE_SETTINGS:
                defaults = [(("workers",), "[workers]")] if item.row.section is Section.WORKERS else []
                for path, note in ((place, ""), *defaults):
                    if (value := self._value(path, item)) is not None:
                        values[item.key] = value
                        origins[name, item.key] = self._origin((*path, item.key), note)
                        break
            if not _SERVICE_NAME.fullmatch(name):
                expected = "up to 32 letters, digits, dots, hyphens and underscores"
                self._add(place, "", f'the service name "{name}"', expected)
            missing = [item for item in _SERVICE_SETTINGS if item.required and item.key not in values]
            for item in missing:
                if (*place, item.key) not in self._bad and not {place, (*place, item.key)} & self._misread:
                    self._add(place, item.key, f"not set in [[{name}]]", item.row.kind.expected)
            # A service that lacks something is never used, but what it has can still clash with the others.
            stand_ins = {"listen": (), "server": Address("", 0)}
            yield Service(name=name, **{**stand_ins, **consistency.with_spares(values)})

    def _parse(self) -> ConfigObj:
        """What ConfigObj reads of the lines.

        A section whose head it can't read, or has read before, is left out: else the keys below would be taken for
        those of the section before.
        """
        while True:
            tree, faults = _read_by_configobj(self.lines)
            head = next((fault for fault in faults if _depth(str(fault.line))), None)
            if head is None:
                break
            self._report_misread(head)
            self._leave_out(head.line_number)
        for fault in faults:
            self._report_misread(fault)
        return tree

    def _leave_out(self, number: int) -> None:
        """Empty the section whose head is this line, and those below it."""
        depth = _depth(self.lines[number - 1])
        self.lines[number - 1] = ""
        for index in range(number, len(self.lines)):
            if 0 < _depth(self.lines[index]) <= depth:
                break
            self.lines[index] = ""

    def _report_misread(self, fault: ConfigObjError) -> None:
        line = str(fault.line).strip()
        depth = _depth(line)
        word = _AFTER_WORD.split(line.lstrip("[ \t"), maxsplit=1)[0]
        self._sections_lost = self._sections_lost or depth > 0
        path: Place
        if depth:
            path, key = (("services", word), "") if depth > 1 else ((), word)
        else:
            path, key = self._section_of(fault.line_number), word if word in _BY_KEY else ""
        if key or depth:
            self._misread.add((*path, key) if key else path)
        if isinstance(fault, DuplicateError):
            found, expected = f'"{line}", which stands here for the second time', "each name once"
        elif isinstance(fault, NestingError) or depth:
            found, expected = f'"{line}"', _SHAPE
        else:
            found, expected = f'"{line}"', "KEY = VALUE; a value that holds a comma, # or a quote is written in quotes"
        self.problems.append(Problem(self.file, fault.line_number, _name(path, key), found, expected))

    def _section_of(self, number: int) -> Place:
        """The section that this line stands in."""
        heads = line_numbers([line if _depth(line) else "" for line in self.lines[:number]])
        return next(reversed(heads), ())

    def _report_values(self) -> None:
        for path, error in self._bad.items():
            item = _BY_KEY.get(path[-1])
            faults = error.args if isinstance(error, ValidateError) else (str(error),)
            for fault in faults:
                self._add(path[:-1], path[-1], fault, item.row.kind.expected if item else _SHAPE)
        for path, section in self._sections():
            for key in section.scalars:
                comment = section.inline_comments.get(key) or ""
                line = self.lines[self._numbers.get((*path, key), 1) - 1]
                before = line[: line.rfind(comment)] if comment else ""
                if before and not before[-1].isspace() and before[-1] not in "\"'":
                    found = f'"{before.partition("=")[2].strip()}", since "{comment}" reads as a comment'
                    self._add(path, key, found, "quotes around a value that holds #, or a blank before a comment")

    def _report_unknown(self) -> None:
        extra: list[tuple[Place, str]] = list(get_extra_values(self._tree))
        if "DEFAULT" in self._tree.sections:  # ConfigObj's own name, which validate() passes over
            extra.append(((), "DEFAULT"))
        if not extra:
            return
        import difflib  # only who is wrong needs it

        for path, key in extra:
            if key in self._at(path).sections:
                what, known, otherwise = f"[{key}] is no section here", [] if path else list(_SECTIONS), _SHAPE
            else:
                what, known = "is no setting here", [item.key for item in self._settings(path)]
                otherwise = "a setting that pop3gw.conf(5) names"
            close = difflib.get_close_matches(key.lower(), known, n=1)
            home = "" if key.lower() in close else _home(key)
            self._add(path, key, what, home or (close[0] if close else otherwise))

    def _settings(self, path: Place) -> Sequence[Setting]:
        """The settings that may stand at this place."""
        if len(path) == 2 and path[0] == "services":
            return _SERVICE_SETTINGS
        return _SECTIONS[path[0]] if len(path) == 1 else ()

    def _sections(self) -> Iterator[tuple[Place, Any]]:
        """Each section where a setting may stand."""
        places: list[Place] = [("main",), ("workers",), *(("services", name) for name in self._names())]
        return ((path, self._at(path)) for path in places)

    def _names(self) -> list[str]:
        return list(self._at(("services",)).sections)

    def _at(self, path: Place) -> Any:
        section = self._tree
        for name in path:
            section = section[name] if name in section.sections else ConfigObj()
        return section

    def _value(self, path: Place, item: Setting) -> Any:
        """The value of this setting at this place; None where there is none, or a bad one."""
        if item.key not in self._at(path).scalars or (*path, item.key) in self._bad:
            return None
        texts = self._texts
        for name in path:
            texts = texts[name]
        value = item.row.kind.parse(texts[item.key])
        return self._absolute(value) if item.row.kind.names_files else value

    def _absolute(self, value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(self._absolute(item) for item in value)
        if isinstance(value, Certificate):
            return replace(value, file=self._absolute(value.file))
        return value if value in ("syslog", "stderr") else os.path.normpath(Path(self.file).parent / value)

    def _origin(self, path: Place, note: str = "") -> Origin:
        return Origin(self.file, self._numbers.get(path, 0), note)

    def _add(self, path: Place, key: str, found: str, expected: str) -> None:
        line = self._numbers.get((*path, key), self._numbers.get(path, 0))
        self.problems.append(Problem(self.file, line, _name(path, key), found, expected))
