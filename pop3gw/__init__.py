"""pop3gw: a preforking POP3 gateway that enforces, command by command, what a policy class says."""

from pop3gw import names  # noqa: F401 - before any other module mentions one of them

__version__ = "1.0.0"
