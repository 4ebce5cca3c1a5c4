"""Selection is a pure function of what is there, what is overridden and what failed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlpserve.model.folder import VersionKey
from mlpserve.model.labels import Label
from mlpserve.server.errors import StartError
from mlpserve.server.models.plan import Plan, PlannedModel
from mlpserve.server.models.scanner import FolderState, ModelState
from mlpserve.server.models.selection import Overrides, Rules, select
from mlpserve.server.settings.values import Policies, Policy

NAMES = st.sampled_from(["a", "b"])
NUMBERS = st.integers(1, 8)
KEYS = st.builds(VersionKey, NAMES, NUMBERS)
LABELS = st.dictionaries(
    st.sampled_from(["stable", "canary", "old"]),
    st.builds(Label, NUMBERS, st.lists(NUMBERS, max_size=4).map(tuple)),
)
MODEL_STATES = st.builds(
    ModelState, st.sets(NUMBERS).map(lambda found: tuple(sorted(found, reverse=True))), LABELS
)
STATES = st.builds(FolderState, st.dictionaries(NAMES, MODEL_STATES))
QUARANTINES = st.dictionaries(KEYS, st.just("it is broken"))
POLICIES: st.SearchStrategy[Policy] = st.one_of(
    st.builds(Policy, newest=st.integers(1, 4)),
    st.builds(Policy),
    st.builds(Policy, listed=st.frozensets(NUMBERS, min_size=1)),
)
RULES = st.builds(
    Rules,
    st.builds(Policies, POLICIES, st.dictionaries(NAMES, POLICIES)),
    st.sampled_from(["stable", "canary"]),
)
OVERRIDES = st.builds(
    Overrides,
    st.frozensets(KEYS, max_size=3),
    st.frozensets(KEYS, max_size=3),
    st.frozensets(NAMES),
)
NEWEST_TWO = Rules(Policies(), "stable")


def planned(
    versions: tuple[int, ...],
    labels: dict[str, Label] | None = None,
    quarantined: tuple[int, ...] = (),
    *,
    policy: str = "2",
    overrides: Overrides = Overrides(),  # noqa: B008 - it cannot be changed
) -> PlannedModel | None:
    """Return what is planned for a model with such a folder."""
    plan = select(
        FolderState({"digits": ModelState(versions, labels or {})}),
        {VersionKey("digits", number): f"{number} is broken" for number in quarantined},
        overrides,
        Rules(Policies.parse(policy), "stable"),
    )
    return plan.models.get("digits")


def served(*arguments: object, **options: object) -> tuple[int, ...]:
    model = planned(*arguments, **options)  # type: ignore[arg-type]
    assert model is not None
    return model.versions


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("2", (5, 4)),
        ("1", (5,)),
        ("all", (5, 4, 3, 2, 1)),
        ("1,4,7", (4, 1)),
        ("4,", (4,)),
        ("1 digits=3", (5, 4, 3)),
        ("all other=1", (5, 4, 3, 2, 1)),
        ("digits=2,", (2,)),
        ("other=all", (5, 4)),
    ],
)
def test_the_policy_chooses_among_the_versions(policy: str, expected: tuple[int, ...]) -> None:
    assert served((5, 4, 3, 2, 1), policy=policy) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0", "expected a number N for the newest N, 'all', or versions as '1,4,7'"),
        ("-1", "expected a number N"),
        ("some", "expected a number N"),
        ("1,,2", "expected a number N"),
        (",", "expected a number N"),
        ("digits=", "expected a number N"),
        ("=2", "expected NAME=POLICY, got '=2'"),
        ("../x=2", "expected NAME=POLICY"),
        ("1 2", "expected one policy for each model, got another: '2'"),
        ("a=1 a=all", "expected one policy for each model, got another: 'a=all'"),
    ],
)
def test_a_policy_that_means_nothing_is_refused(text: str, message: str) -> None:
    with pytest.raises(StartError, match=message):
        Policies.parse(text)


def test_a_version_in_quarantine_leaves_its_place_to_an_older_one() -> None:
    model = planned((5, 4, 3, 2), quarantined=(5, 3))
    assert model is not None
    assert model.versions == (4, 2)
    assert dict(model.quarantined) == {5: "5 is broken", 3: "3 is broken"}


def test_a_labelled_version_is_served_whatever_the_policy_says() -> None:
    model = planned((5, 4, 3, 2, 1), {"stable": Label(1), "canary": Label(5)}, policy="1")
    assert model is not None
    assert model.versions == (5, 1)
    assert dict(model.labels) == {"stable": 1, "canary": 5}
    assert model.default_version == 1


def test_without_the_default_label_the_newest_answers() -> None:
    model = planned((3, 2, 1), {"canary": Label(1)})
    assert model is not None
    assert model.default_version == 3


@pytest.mark.parametrize(
    ("quarantined", "meant"),
    [((), 4), ((4,), 2), ((4, 2), 3), ((4, 3, 2), None)],
)
def test_a_label_means_what_it_meant_before_where_its_version_cannot_be_used(
    quarantined: tuple[int, ...], meant: int | None
) -> None:
    # Version 1 was never meant, and 7 is gone.
    model = planned((4, 3, 2, 1), {"stable": Label(4, (7, 3, 2))}, quarantined)
    assert model is not None
    assert model.labels.get("stable") == meant
    assert model.default_version == (meant or 1)


def test_what_was_loaded_stands_beside_what_the_policy_chooses() -> None:
    loaded = Overrides().load(VersionKey("digits", 1))
    assert served((5, 4, 3, 2, 1), overrides=loaded) == (5, 4, 1)
    # Known only because it was asked for: it takes the place of no other.
    assert served((5, 4), overrides=Overrides().load(VersionKey("digits", 6))) == (6, 5, 4)


def test_the_last_override_counts() -> None:
    one = VersionKey("digits", 1)
    assert served((2, 1), overrides=Overrides().load(one).unload(one)) == (2,)
    assert served((2, 1), overrides=Overrides().unload(one).load(one)) == (2, 1)
    gone = Overrides().load(one).unload_model("digits")
    assert planned((2, 1), overrides=gone) is None
    assert served((2, 1), overrides=gone.load(one)) == (1,)
    assert served((2, 1), overrides=gone.load_model("digits")) == (2, 1)


@given(STATES, QUARANTINES, OVERRIDES, RULES)
def test_what_is_planned_can_be_used_and_is_complete(
    state: FolderState, quarantined: dict[VersionKey, str], overrides: Overrides, rules: Rules
) -> None:
    plan = select(state, quarantined, overrides, rules)
    keys = set(plan.version_keys())
    assert not keys & quarantined.keys()
    assert not keys & overrides.unloaded
    assert keys >= overrides.loaded - overrides.unloaded - quarantined.keys()
    assert keys <= state.version_keys() | overrides.loaded
    assert {key for key in keys if key.name in overrides.unloaded_models} <= overrides.loaded
    for model in plan.models.values():
        assert list(model.versions) == sorted(set(model.versions), reverse=True)
        assert set(model.labels.values()) <= set(model.versions)
        assert (model.default_version in model.versions) == bool(model.versions)
        assert not model.quarantined.keys() & set(model.versions)
        assert model.default_version == model.labels.get(
            rules.default_label, max(model.versions, default=0)
        )


@given(STATES, QUARANTINES, RULES)
def test_a_version_that_a_label_means_is_served_where_it_can_be(
    state: FolderState, quarantined: dict[VersionKey, str], rules: Rules
) -> None:
    plan = select(state, quarantined, Overrides(), rules)
    usable = state.version_keys() - quarantined.keys()
    for name, model in state.models.items():
        for label, meaning in model.labels.items():
            if VersionKey(name, meaning.version) in usable:
                assert plan.models[name].labels[label] == meaning.version
        at_least = rules.policies.of(name).choose(
            [number for number in model.versions if VersionKey(name, number) in usable]
        )
        assert {VersionKey(name, number) for number in at_least} <= set(plan.version_keys())


@given(STATES, QUARANTINES, OVERRIDES, RULES)
def test_the_same_is_planned_for_the_same_and_survives_the_way_to_a_worker(
    state: FolderState, quarantined: dict[VersionKey, str], overrides: Overrides, rules: Rules
) -> None:
    plan = select(state, quarantined, overrides, rules)
    mirrored = FolderState(dict(reversed(list(state.models.items()))))
    assert select(mirrored, dict(reversed(list(quarantined.items()))), overrides, rules) == plan
    assert Plan.from_json(plan.to_json()) == plan
    assert list(plan.models) == sorted(plan.models)


def test_a_plan_in_words_is_of_bounded_length() -> None:
    many = PlannedModel(tuple(range(1000, 0, -1)), {f"label-{n}": n for n in range(1, 99)}, 1000)
    plan = Plan({f"model-{number}": many for number in range(1000)})
    assert len(plan.summary) < 5000
    assert plan.summary.startswith("model-0 version 1000 and 999 and 998 ")
    assert plan.summary.endswith(", 990 more")
    assert Plan({"a": PlannedModel((2, 1), {"stable": 1}, 1)}).summary == (
        "a version 2 and 1 (stable: 1)"
    )
    assert Plan({}).summary == "no model"
