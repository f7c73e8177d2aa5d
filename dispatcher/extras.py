"""What to say where a package of an extra is missing."""


def needed(what: str, extra: str) -> str:
    """One line: what needs which extra, and how to get it. The package is on no public index, so it is named by its files."""
    return (
        f"{what} needs the extra `{extra}` of this package: "
        f"pip install -e '.[{extra}]' in a checkout, or pip install 'FILE.whl[{extra}]' with its wheel"
    )
