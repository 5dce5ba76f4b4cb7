"""The command by which people make rows anew with jq. Pure."""


def by_jq(file_format: str, program: str) -> str:
    """The command that makes rows by a program of jq, which gets one row at a time, whatever the file has them in."""
    each = ".[] | " if file_format.split(",", maxsplit=1)[0] == "JSON" else ""
    return f"jq -c '{each}{program}' FILE > ROWS.jsonl"
