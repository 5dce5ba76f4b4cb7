"""Regular expressions for hosts and ports in URLs. They reject what clients do not accept."""

PORT = "(:0{0,4}([1-9][0-9]{0,3}|[1-5][0-9]{4}|6([0-4][0-9]{3}|5([0-4][0-9]{2}|5([0-2][0-9]|3[0-5])))))?"
"""A port with its colon, or none: 1 to 65535. Nothing can listen on 0."""

_H = "[0-9A-Fa-f]{1,4}"
_V4 = "[0-9]{1,3}([.][0-9]{1,3}){3}"
_SHORT = "|".join(f"({_H}:){{1,{7 - after}}}(:{_H}){{1,{after}}}" for after in range(1, 7))
_MAPPED = f"(({_H}:){{6}}|({_H}:){{1,5}}:|::({_H}:){{0,5}}){_V4}"
_ADDRESS = rf"\[(({_H}:){{7}}{_H}|({_H}:){{1,7}}:|{_SHORT}|:((:{_H}){{1,7}}|:)|{_MAPPED})\]"
"""An IPv6 address without zone: eight groups, or fewer with one gap; the last two may be written as IPv4."""

_LABEL = r"[^\[\]:/@?#\\\s.]+"
HOST = rf"({_ADDRESS}|{_LABEL}([.]{_LABEL})*[.]?){PORT}"
"""Name or address, and port."""
