"""How pop3gw is built and installed; tool settings are in pyproject.toml.

The modules that every session passes through are compiled by mypyc where it, a C compiler and Python's headers are at
hand: the same source, with less time and memory (docs/performance.md). Where one of them is missing, or POP3GW_PURE is
set, all modules are interpreted, and do the same.
"""

import os
import re
import shutil
import sysconfig
from pathlib import Path
from typing import Any

from setuptools import find_packages, setup

HERE = Path(__file__).parent

# What is compiled, into a library each: the protocol, and the processes around it. Not the language of the policies,
# which their authors derive from; not what runs at a start or a reload alone; and neither ``waiting`` nor
# ``callguard``: handlers of signals run when the interpreter runs, so a worker without sessions must come by it, and
# each call of a policy.
COMPILED = {
    "protocol": [
        *sorted(str(path.relative_to(HERE)) for path in HERE.glob("pop3gw/proto/[a-z]*.py")),
        *("pop3gw/times.py", "pop3gw/values.py"),
    ],
    "master": [
        *("pop3gw/master.py", "pop3gw/serving.py", "pop3gw/crew.py", "pop3gw/generation.py", "pop3gw/succession.py"),
        *("pop3gw/listeners.py", "pop3gw/pool.py", "pop3gw/clientele.py", "pop3gw/respawn.py"),
        *("pop3gw/spares.py", "pop3gw/closing.py", "pop3gw/orders.py", "pop3gw/congestion.py"),
        *("pop3gw/patience.py", "pop3gw/seating.py", "pop3gw/backoff.py", "pop3gw/agenda.py", "pop3gw/attention.py"),
        *("pop3gw/template.py", "pop3gw/rehearsal.py", "pop3gw/heap.py", "pop3gw/process.py", "pop3gw/privileges.py"),
        *("pop3gw/refusals.py", "pop3gw/notify.py", "pop3gw/stages.py", "pop3gw/replacement.py"),
    ],
    "worker": [
        *("pop3gw/worker.py", "pop3gw/relay.py", "pop3gw/conversation.py", "pop3gw/pump.py", "pop3gw/admission.py"),
        *("pop3gw/arrival.py", "pop3gw/handshake.py", "pop3gw/farewell.py", "pop3gw/leavers.py"),
        *("pop3gw/tally.py", "pop3gw/net.py", "pop3gw/loops.py", "pop3gw/poller.py"),
        *("pop3gw/stream.py", "pop3gw/tlsstream.py", "pop3gw/messages.py", "pop3gw/fdpass.py"),
        *("pop3gw/scoreboard.py", "pop3gw/ledger.py"),
        *("pop3gw/logs.py", "pop3gw/logline.py", "pop3gw/logsinks.py", "pop3gw/redaction.py"),
        *("pop3gw/credit.py", "pop3gw/signals.py"),
    ],
}

# The libraries without what no process of ours reads: tables for unwinding (which debuggers miss), names for others to
# link to, and stubs for what would be linked only when it is called.
SMALLER = ["-fno-asynchronous-unwind-tables", "-fno-unwind-tables", "-fvisibility=hidden", "-fno-plt"]

# The functions, by their names in C, that each session calls: bench/usual.py finds them out.
USUAL = HERE / "bench" / "usual.txt"
# What is called by errors alone, of mypyc's own.
ERRORS = ("CPy_AddTraceback", "CPy_TypeErrorTraceback", "CPy_TypeError", "CPy_AttributeError")


def source(library: str, made: list[str], inits: list[str]) -> str:
    """The one source of a library: how it is laid out, what mypyc has ``made``, and the ``inits`` of its modules.

    What sessions call is put together, and apart what only errors reach: a process that was asleep fetches each page
    anew that it touches, a tenth fewer this way. The inits mypyc would have in a file for each module, which are
    mappings of memory for each fork to copy; ``pop3gw/compiled.py`` finds them here (docs/performance.md).
    """
    declarations = f"__native_internal_{library}.h"
    declared = set(re.findall(r"\b(CPy\w+)\(", Path("build", declarations).read_text(encoding="utf-8")))
    usual = declared.intersection(USUAL.read_text(encoding="utf-8").split()) if USUAL.exists() else ()
    lines = [f"#include <{header}>" for header in ("Python.h", "CPy.h", declarations)]
    for kind, names in (("hot", sorted(usual)), ("cold", ERRORS)):
        lines += [f"extern __typeof__({name}) {name} __attribute__(({kind}));" for name in names]
    lines += [f'#include "{Path(path).absolute()}"' for path in made]
    for path in inits:
        # Each of them has one of this name too, for another system's linker.
        lines += [f"#define PyInit___init__ PyInit___init___{Path(path).stem}", f'#include "{Path(path).absolute()}"']
        lines.append("#undef PyInit___init__")
    text = "\n".join([*lines, ""])
    file = Path("build", f"{library}.c")
    if not file.exists() or file.read_text(encoding="utf-8") != text:  # else all would be built anew each time
        file.write_text(text, encoding="utf-8")
    return str(file)


def compiled() -> list[Any]:
    """The extension modules (of setuptools), none where they can't be built here."""
    compiler = shutil.which((sysconfig.get_config_var("CC") or "cc").split()[0])
    headers = Path(sysconfig.get_path("include"), "Python.h")
    if os.environ.get("POP3GW_PURE") or compiler is None or not headers.exists():
        return []
    try:
        from mypyc.build import mypycify
    except ImportError:
        return []
    # That the types fit is checked by "make lint"; what is imported beside them need not be here.
    checks = ["--config-file=", "--ignore-missing-imports"]
    groups: list[tuple[list[str], str | None]] = [(paths, f"pop3gw_{name}") for name, paths in COMPILED.items()]
    paths = [path for group in COMPILED.values() for path in group]
    extensions: list[Any] = mypycify([*checks, *paths], opt_level="2", debug_level="0", separate=groups)
    by_name = {extension.name: extension for extension in extensions}
    libraries = [extension for extension in extensions if extension.name.endswith("__mypyc")]
    for group, modules in COMPILED.items():
        library = by_name[f"pop3gw_{group}__mypyc"]
        inits = [path for module in modules for path in by_name[module.removesuffix(".py").replace("/", ".")].sources]
        library.depends += [*library.sources, *inits]
        library.sources = [source(f"pop3gw_{group}", library.sources, inits)]
        library.extra_compile_args = [*library.extra_compile_args, *SMALLER]  # until here they share one list
    # The master's is cold whenever it runs: there counts how much of it there is.
    by_name["pop3gw_master__mypyc"].extra_compile_args.append("-Os")
    return libraries


def version() -> str:
    """The version is written once, in the package; read as text, since nothing is installed yet."""
    text = (HERE / "pop3gw" / "__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "([^"]+)"$', text, re.MULTILINE)
    if found is None:
        raise SystemExit("pop3gw/__init__.py has no __version__")
    return found[1]


def shipped(pattern: str) -> list[str]:
    """The files of the source tree that the pattern names, as data_files wants them."""
    return sorted(str(path.relative_to(HERE)) for path in HERE.glob(pattern))


setup(
    name="pop3gw",
    version=version(),
    description="A preforking POP3 gateway whose policies are Python classes",
    author="the pop3gw authors",
    license="MIT",
    packages=find_packages(include=["pop3gw", "pop3gw.*"]),
    # Said, though it is the default: a checkout that is installed in place is then a line of a .pth file, and not a
    # finder whose modules every process carries.
    package_dir={"": "."},
    package_data={"pop3gw": ["py.typed"]},
    ext_modules=compiled(),
    options={"build_ext": {"parallel": str(os.cpu_count() or 1)}},
    python_requires=">=3.11",
    install_requires=["configobj>=5.0.8", "python-daemon>=2.3.2", "setproctitle>=1.3.1"],
    extras_require={
        "demo": ["Twisted>=22.4"],
        "metrics": ["prometheus_client>=0.16"],
        "top": ["rich>=13.3"],
    },
    entry_points={"console_scripts": ["pop3gw = pop3gw.cli:main", "pop3gwctl = pop3gw.ctl:main"]},
    # All below the prefix, since a wheel can't write to /etc: the sample is there to be copied.
    data_files=[
        ("share/man/man5", shipped("man/*.5")),
        ("share/man/man7", shipped("man/*.7")),
        ("share/bash-completion/completions", ["completion/pop3gwctl"]),
        ("share/doc/pop3gw", ["docs/alerts.yml", "docs/grafana.json"]),
        ("share/man/man8", shipped("man/*.8")),
        ("share/doc/pop3gw/examples", ["etc/pop3gw.conf", *shipped("init/pop3gw")]),
        ("share/doc/pop3gw/examples/logrotate.d", shipped("etc/logrotate.d/*")),
        ("share/doc/pop3gw/examples/fail2ban/filter.d", shipped("etc/fail2ban/filter.d/*")),
        ("share/doc/pop3gw/examples/fail2ban/jail.d", shipped("etc/fail2ban/jail.d/*")),
        ("lib/systemd/system", [*shipped("init/*.service"), *shipped("init/*.socket")]),
        ("lib/sysusers.d", shipped("init/sysusers.d/*")),
        ("lib/tmpfiles.d", shipped("init/tmpfiles.d/*")),
    ],
    classifiers=[
        "Environment :: No Input/Output (Daemon)",
        "Intended Audience :: System Administrators",
        "License :: OSI Approved :: MIT License",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3 :: Only",
        "Topic :: Communications :: Email :: Post-Office :: POP3",
    ],
)
