"""pop3gw: a preforking POP3 gateway that enforces, command by command, what a policy class says."""

from pop3gw import names  # noqa: F401 - before any other module mentions one of them
from pop3gw.compiled import install
from pop3gw.lazily import load_without, own_annotations

# Which wants the rest of it for classes without a docstring alone.
load_without("inspect", "dataclasses", get_annotations=own_annotations)
install()

__version__ = "1.0.0"
