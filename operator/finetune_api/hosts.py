"""Hosts and ports in URLs, as regular expressions: what no client takes for one is no URL."""

PORT = "(:0{0,4}([1-9][0-9]{0,3}|[1-5][0-9]{4}|6([0-4][0-9]{3}|5([0-4][0-9]{2}|5([0-2][0-9]|3[0-5])))))?"
"""A port with its colon, or none: 1 to 65535. Nobody listens on 0."""

_ADDRESS = r"\[([0-9A-Fa-f]{0,4}:){2,7}([0-9A-Fa-f]{0,4}|[0-9]{1,3}([.][0-9]{1,3}){3})\]"
"""Of IPv6, without its zone."""

HOST = rf"({_ADDRESS}|[^\[\]:/@?#\\\s]+){PORT}"
"""Name or address, and port."""
