"""The policies that the benchmark measures: the same decisions as Pop3Proxy's, taken by callbacks."""

from pop3gw.policy import POP3_REQ_ACCEPT, POP3_REQ_POLICY, POP3_RSP_ACCEPT, Pop3Proxy


class LoginCallbacks(Pop3Proxy):
    """A request callback on USER and on PASS."""

    def config(self) -> None:
        Pop3Proxy.config(self)
        self.request["USER"] = (POP3_REQ_POLICY, self.allow)
        self.request["PASS"] = (POP3_REQ_POLICY, self.allow)

    def allow(self, _command: str) -> int:
        return POP3_REQ_ACCEPT


class LineCallback(Pop3Proxy):
    """A response callback that sees every line of every message."""

    def config(self) -> None:
        Pop3Proxy.config(self)
        self.request["RETR"] = (POP3_REQ_POLICY, None, self.look)

    def look(self, _line: str) -> int:
        return POP3_RSP_ACCEPT
