"""Writes the table of all settings into configuration.md; `make settings`."""

from pathlib import Path
from typing import Final

from mlpserve.server.config import ServerConfig
from mlpserve.server.configuration import as_markdown

DOCUMENT: Final = Path(__file__).parent / "configuration.md"
_BEGIN: Final = "<!-- settings: begin -->\n"
_END: Final = "<!-- settings: end -->\n"


def with_current_table(document: str) -> str:
    """Return a document with the table in its place."""
    before, _, rest = document.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    return f"{before}{_BEGIN}{as_markdown(ServerConfig)}\n{_END}{after}"


if __name__ == "__main__":
    DOCUMENT.write_text(with_current_table(DOCUMENT.read_text()))
