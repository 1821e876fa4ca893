"""The policies that the benchmark measures: the same decisions as Pop3Proxy's, taken by callbacks."""

from pop3gw.policy import *  # noqa: F403


class LoginCallbacks(Pop3Proxy):  # noqa: F405
    """A request callback on USER and on PASS."""

    def config(self):
        Pop3Proxy.config(self)  # noqa: F405
        self.request["USER"] = (POP3_REQ_POLICY, self.allow)  # noqa: F405
        self.request["PASS"] = (POP3_REQ_POLICY, self.allow)  # noqa: F405

    def allow(self, command):
        return POP3_REQ_ACCEPT  # noqa: F405


class LineCallback(Pop3Proxy):  # noqa: F405
    """A response callback that sees every line of every message."""

    def config(self):
        Pop3Proxy.config(self)  # noqa: F405
        self.request["RETR"] = (POP3_REQ_POLICY, None, self.look)  # noqa: F405

    def look(self, line):
        return POP3_RSP_ACCEPT  # noqa: F405
