"""pop3gw: a preforking POP3 gateway that enforces, command by command, what a policy class says."""

__version__ = "1.0.0"
