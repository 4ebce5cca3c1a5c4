from collections.abc import Sequence
from typing import Any

import pytest

from contenders import comparison_of
from html_page import Page, check_needs_nothing
from mlpserve.model.metadata import Metadata
from mlpserve.trainer.comparison.comparison import Comparison
from mlpserve.trainer.comparison.page import render_comparison
from mlpserve.trainer.comparison.speed import Speed

SPEEDS = (Speed(1, (40_000.0, 20_000.0), 0.5, 25), Speed(1024, (300_000.0, 100_000.0), 0.33, 25))
SECTIONS = [
    "tiny:2 compared to tiny:1",
    "Which is right more often",
    "Side by side",
    "Class by class",
    "What is confused more often, or less",
    "How far their confidence can be trusted",
    "Images on which they differ",
    "How they were made",
]


def page_of(comparison: Comparison) -> str:
    return render_comparison(comparison, SPEEDS)


def test_a_page_shows_all_that_it_promises(metadata: Metadata) -> None:
    found = comparison_of(metadata.training)
    page = Page(page_of(found))
    assert page.headings == SECTIONS
    only_first, only_second = found.disagreements
    expected = [
        *("200\xa0test images of pets", "McNemar's exact test", "Brier score", "log loss, nats"),
        *("40,000", "20,000", "0.50 times", "0.33 times", "cat", "dog", "bird", "16-5-3"),
        *(f"{100 * said.accuracy:.2f}" for said in (found.said_first, found.said_second)),
        f"{only_first} are tiny:1's and {only_second} are tiny:2's",
        f"Only version 2 is right: {only_second}\xa0images",
        f"Only version 1 is right: {only_first}\xa0images",
        f"They say different classes of {found.is_different.sum()}\xa0images",
    ]
    for text in expected:
        assert text in page.text
    assert page.tags.count("svg") == 4  # accuracy, classes, and reliability twice
    assert all(page.values("aria-label"))
    assert all(page.values("alt"))


def test_a_page_needs_nothing_but_itself(metadata: Metadata) -> None:
    check_needs_nothing(page_of(comparison_of(metadata.training)))


def test_the_same_comparison_gives_the_same_bytes(metadata: Metadata) -> None:
    pages = [page_of(comparison_of(metadata.training)) for _ in range(2)]
    assert pages[0] == pages[1]


def test_pictures_are_bounded_and_begin_with_the_surest(metadata: Metadata) -> None:
    found = comparison_of(metadata.training, count=1000)
    page = Page(page_of(found))
    assert page.tags.count("img") == 3 * 24
    assert page.text.count("The first 24 of them.") == 3
    shown = [int(alt.split()[2].rstrip(":")) for alt in page.values("alt")]
    sure = [
        min(found.said_first.confidences[each], found.said_second.confidences[each])
        for each in shown
    ]
    for start in range(0, 3 * 24, 24):
        assert sure[start : start + 24] == sorted(sure[start : start + 24], reverse=True)
    kinds = (found.only_second_right, found.only_first_right, found.is_different)
    for number, kind in enumerate(kinds):
        assert kind[shown[24 * number : 24 * (number + 1)]].all()
    best = max(
        min(found.said_first.confidences[each], found.said_second.confidences[each])
        for each in found.only_second_right.nonzero()[0]
    )
    assert sure[0] == best


def test_names_from_data_cannot_become_markup(metadata: Metadata) -> None:
    labels = ('<script>alert("1")</script>', "\"'><img src=x onerror=alert(1)>", "\u202e\x00 ")
    page = Page(page_of(comparison_of(metadata.training, class_labels=labels)))
    assert "script" not in page.tags
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert labels[0] in page.text


MANY = [f"class {number}" for number in range(3000)]


@pytest.mark.parametrize(
    "options",
    [
        {"class_labels": ("only",)},
        {"class_labels": ("an ankle boot " * 30, "x" * 500, "")},
        {"class_labels": MANY[:64]},
        {"class_labels": MANY[:65]},
        {"class_labels": MANY},
        {"shape": (5, 6, 3)},
        {"shape": (27,)},
        {"seeds": (1, 1)},
        {"count": 1},
    ],
    ids=str,
)
def test_every_comparison_has_a_page(metadata: Metadata, options: dict[str, Any]) -> None:
    page = page_of(comparison_of(metadata.training, **options))
    assert Page(page).headings == SECTIONS
    assert len(page.encode()) < 1_000_000


@pytest.mark.parametrize(
    ("options", "texts"),
    [
        ({"class_labels": MANY[:64]}, ["Changes of what images of each class"]),
        (
            {"class_labels": MANY[:65]},
            ["The 64 of 65 classes that changed most", "The 30 largest of"],
        ),
        (
            {"seeds": (1, 1)},
            [
                "Both have the same weights, so all that differs is the time that they take.",
                "tiny:1 and tiny:2 are right on the same images.",
            ],
        ),
        (
            {"data_digest": "sha256:4567"},
            ["They were trained on different data (both called pets): one that has learned from"],
        ),
    ],
    ids=["matrix", "no matrix", "same weights", "other data"],
)
def test_what_limits_a_comparison_is_said(
    metadata: Metadata, options: dict[str, Any], texts: Sequence[str]
) -> None:
    text = Page(page_of(comparison_of(metadata.training, count=400, **options))).text
    for each in texts:
        assert each in text
