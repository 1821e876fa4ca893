"""How pop3gw is built and installed; tool settings are in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent


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
