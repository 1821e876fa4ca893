"""POP3 without input and output: framing, the command table, and the session state machine."""
