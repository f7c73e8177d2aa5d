"""The error text for a missing optional package."""


def needed(what: str, extra: str) -> str:
    """One line: what needs which extra, and how to install it. There is no public package, so it names a checkout or a wheel."""
    return (
        f"{what} needs the extra `{extra}` of this package: "
        f"pip install -e '.[{extra}]' in a checkout, or pip install 'FILE.whl[{extra}]' with its wheel"
    )
