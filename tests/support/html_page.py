"""Pages of ours as tests read them."""

import re
from html.parser import HTMLParser


class Page(HTMLParser):
    """A page read strictly: every element is closed, in its turn."""

    VOID = frozenset({"br", "img", "meta"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.headings: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"{tag} has an attribute twice: {names}"
        for name, value in attrs:
            assert value is not None, f"{tag} {name} has no value"
            assert not re.search(r"\bnan\b|\binf\b", value), f"{tag} {name} is {value}"
            self.attributes.append((name, value))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            return
        self.text += data
        if self.open and self.open[-1] in ("h1", "h2"):
            self.headings.append(data)

    def values(self, attribute: str) -> list[str]:
        return [value for name, value in self.attributes if name == attribute]


def check_needs_nothing(html: str) -> None:
    """Check that a page asks for no other file, runs no script, and names no address."""
    page = Page(html)
    assert not {"script", "link", "iframe", "object", "embed", "form", "base"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    for name in ("src", "href", "xlink:href", "srcset", "action"):
        assert all(value.startswith("data:image/png;base64,") for value in page.values(name))
    without_pictures = re.sub(r"data:image/png;base64,[A-Za-z0-9+/=]+", "", html)
    assert not re.search(r"//|url\(|@import", without_pictures)
