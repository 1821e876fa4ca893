"""Loads a policy class, once a template: from a file of a policy folder, else by an ordinary import.

A policy file becomes a module of a private name, compiled from the file that was checked, without bytecode files and
without its folder on ``sys.path``: it can shadow nothing, and two edits within a second are two policies. It must not
know sessions or processes; that loading ends in time (``LOAD_LIMIT``) is seen to by whoever waits for the template.

Known limits: a policy file can't import its neighbours (one file may hold several classes, and what is shared can be
installed as a package). The ancestors of a policy folder are not checked. Source in a package that is imported is
checked file by file only for the module that is named.
"""

from __future__ import annotations

import importlib
import importlib.util
import linecache
import os
import stat
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import TypeGuard

from pop3gw import checking, policy
from pop3gw.backtrace import line_in, summed_up
from pop3gw.distrust import Distrust
from pop3gw.errors import PolicyError
from pop3gw.places import is_folder
from pop3gw.policy import AbstractPop3Proxy, SessionFacts
from pop3gw.values import PolicyName

LOAD_LIMIT = 30.0  # s in which a template must have loaded its policy
_PRIVATE = "pop3gw_policy_"


def load_policy(
    name: PolicyName,
    policy_path: Sequence[str],
    *,
    distrust: Distrust | None,
    doubt: Callable[[str, str], None] | None = None,
) -> type[AbstractPop3Proxy]:
    """Load the class and check what its ``config()`` leaves.

    ``doubt`` is told what looks misspelt, or Python warns of, and what is expected instead.
    Raises PolicyError, whose text names file, class, key and reason, and Python's exception with type, text and line.
    """
    _refuse_a_closed_interpreter()
    file = _find(name.module, policy_path, distrust)
    module = _from_file(name, file, distrust, doubt) if file is not None else _by_import(name, policy_path, distrust)
    found = _class_of(module, name)
    place = f"{_file_of(module)}: class {name.class_name}"
    try:
        made = policy.instance(found, SessionFacts())  # a stand-in session
    except BaseException as error:  # SystemExit and its like, too, are faults of the policy
        raise PolicyError(f"{place}: no instance can be made: {_said(error, _file_of(module))}") from error
    try:
        faults = checking.faults(made)
    except BaseException as error:  # as above
        raise PolicyError(f"{place}: config() raised {_said(error, _file_of(module))}") from error
    if faults:
        raise PolicyError("\n".join(f"{place}: {fault}" for fault in faults))
    if doubt is not None:
        from pop3gw import spelling

        for seen, expected in spelling.doubts(made):
            doubt(f"{place}: {seen}", expected)
    return found


def _refuse_a_closed_interpreter() -> None:
    """What a process has not imported yet it could never import: it would fail somewhere, for no visible reason."""
    package = Path(policy.__file__).parent
    for what, folder in (("Python itself", Path(os.__file__).parent), ("pop3gw", package.parent), ("pop3gw", package)):
        if _is_closed(folder):
            raise PolicyError(
                f"{what} is in {folder}, which can't be entered{_as_whom()}; install it where every account may read it"
            )


def _find(module: str, policy_path: Sequence[str], distrust: Distrust | None) -> Path | None:
    """The policy file of this name; PolicyError where a folder can't be searched, or is not to be trusted.

    It needn't hold the file: by the next reload somebody may have put it there.
    """
    if "." in module:
        return None
    for folder in policy_path:
        file = Path(folder) / f"{module}.py"
        try:
            if distrust is not None and (fault := distrust.fault(Path(folder).stat())):
                raise _distrusted(Path(folder), "folder", fault)
            file.lstat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise PolicyError(
                f"{folder}: this policy folder can't be searched ({error.strerror}){_as_whom()}"
            ) from None
        return file
    return None


def _as_whom() -> str:
    return f" as uid {os.geteuid()}, gid {os.getegid()}"


def _from_file(
    name: PolicyName, file: Path, distrust: Distrust | None, doubt: Callable[[str, str], None] | None
) -> ModuleType:
    source = _read(file, distrust)
    module = ModuleType(_PRIVATE + name.module)
    module.__file__ = str(file)
    # The manual's Example 4.16 uses it and imports nothing. Others are spared what OpenSSL takes.
    if b"hashlib" in source:
        module.__dict__["hashlib"] = importlib.import_module("hashlib")
    # Dataclasses and the like look their module up; tracebacks show this source, whatever the file says by then.
    sys.modules[module.__name__] = module
    linecache.cache[str(file)] = (len(source), None, _lines(source), str(file))
    try:
        # On stderr they would be lines of no log; such as "\d" in a policy has them from Python 3.12 on.
        with warnings.catch_warnings(record=True) as warned:
            code = compile(source, str(file), "exec", dont_inherit=True)
        exec(code, module.__dict__)  # noqa: S102 - what policies are
    except BaseException as error:
        del sys.modules[module.__name__]
        said = _said(error, str(file)) + _neighbour(error, file)
        raise PolicyError(f"{file}: class {name.class_name}: {said}") from error
    if doubt is not None:
        for warning in warned:
            doubt(f"{file}: {warning.message} (line {warning.lineno})", "what Python does not warn of")
    return module


def _neighbour(error: BaseException, file: Path) -> str:
    """What to say where it wanted to import what lies beside it."""
    if type(error) is not ModuleNotFoundError or not isinstance(error.name, str):
        return ""
    beside = file.parent / f"{error.name.partition('.')[0]}.py"
    return f"; {beside} is no module: a policy file can't import its neighbours" if beside.exists() else ""


def _read(file: Path, distrust: Distrust | None) -> bytes:
    """The octets of a file that was checked through the very descriptor that they are read from."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise PolicyError(f"{file}: this policy file can't be read ({error.strerror}){_as_whom()}") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise PolicyError(f"{file}: this is no plain file; put one there")
        _refuse_if_distrusted(file, status, distrust)
        with os.fdopen(descriptor, "rb", closefd=False) as opened:
            return opened.read()
    finally:
        os.close(descriptor)


def _refuse_if_distrusted(file: Path, status: os.stat_result, distrust: Distrust | None) -> None:
    """Refuse a file, or a folder that leads to it, which the wrong people may change."""
    if distrust is None:
        return
    for path, its_status in ((file, status), *_folders(file)):
        if fault := distrust.fault(its_status):
            raise _distrusted(path, "file" if path == file else "folder", fault)


def _distrusted(path: Path, what: str, fault: str) -> PolicyError:
    remedy = "give it to root and let nobody else write it (chown root, chmod go-w)"
    return PolicyError(f"{path}: this policy {what} is not trusted: {fault}; {remedy}")


def _folders(file: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """The folder where the file was looked for and, where that was a link, the one where it is."""
    for folder in dict.fromkeys((file.parent, file.resolve().parent)):
        yield folder, folder.stat()


def _lines(source: bytes) -> list[str]:
    return source.decode("utf-8", "replace").splitlines(keepends=True)


def _by_import(name: PolicyName, policy_path: Sequence[str], distrust: Distrust | None) -> ModuleType:
    file = ""
    try:
        spec = importlib.util.find_spec(name.module)
        if spec is not None and spec.origin is not None and spec.has_location:
            file = spec.origin
            _refuse_if_distrusted(Path(file), Path(file).stat(), distrust)
        return importlib.import_module(name.module)
    except PolicyError:
        raise
    except BaseException as error:
        looked = f"no {name.module}.py in {', '.join(policy_path)}, and " if "." not in name.module else ""
        reason = _said(error, file) + "".join(f"; {folder} can't be entered{_as_whom()}" for folder in _closed())
        place = f"{file}: " if file else ""
        raise PolicyError(
            f"{place}class {name.class_name}: {looked}module {name.module} can't be imported: {reason}"
        ) from error


def _closed() -> Iterator[str]:
    """The folders of ``sys.path`` that can't be entered: import passes over them without a word."""
    return (folder for folder in sys.path if _is_closed(Path(folder)))


def _is_closed(folder: Path) -> bool:
    try:
        return is_folder(folder) and not os.access(folder, os.X_OK, effective_ids=True)
    except PermissionError:
        return True
    except OSError:
        return False


def _class_of(module: ModuleType, name: PolicyName) -> type[AbstractPop3Proxy]:
    file = _file_of(module)
    found: object
    try:
        found = getattr(module, name.class_name, None)
    except BaseException as error:  # of a module's own __getattr__
        raise PolicyError(f"{file}: class {name.class_name}: {_said(error, file)}") from error
    if found is None:
        import difflib  # only who is wrong needs it

        policies = [key for key, value in vars(module).items() if _is_policy(value)]
        close = difflib.get_close_matches(name.class_name, policies, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise PolicyError(f"{file}: there is no class {name.class_name}{hint}")
    if not _is_policy(found):
        raise PolicyError(f"{file}: {name.class_name} is no class that is derived from AbstractPop3Proxy")
    return found


def _is_policy(value: object) -> TypeGuard[type[AbstractPop3Proxy]]:
    return isinstance(value, type) and issubclass(value, AbstractPop3Proxy)


def _file_of(module: ModuleType) -> str:
    return getattr(module, "__file__", None) or module.__name__


def _said(error: BaseException, file: str) -> str:
    """The exception's type, text and line of this file; without its text where that can't be had."""
    text = summed_up(error).removeprefix(_PRIVATE)
    line = line_in(file, error)
    return f"{text} (line {line})" if line else text
