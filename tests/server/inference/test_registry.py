from dataclasses import replace

import pytest

from mlpserve.model.compiled import CompiledModel
from mlpserve.model.weights import Model
from mlpserve.server.errors import NotReadyError, NotServedError, RequestError, ServerError
from mlpserve.server.inference.registry import Registry, ServedModel


@pytest.fixture
def digits(model: Model) -> ServedModel:
    """Return versions 3, 2 and 1, of which 2 is the default and stable, and 1 the canary."""
    versions = tuple(
        CompiledModel(replace(model, metadata=replace(model.metadata, version=number)))
        for number in (3, 2, 1)
    )
    return ServedModel(versions, {"stable": 2, "canary": 1}, 2, {4: "it is broken"})


@pytest.mark.parametrize("name", ["digits", ""])
@pytest.mark.parametrize(
    ("version", "label", "found"),
    [(0, "", 2), (3, "", 3), (1, "", 1), (0, "canary", 1), (0, "stable", 2)],
)
def test_a_version_is_found_by_its_number_by_its_label_or_as_the_default(
    digits: ServedModel, name: str, version: int, label: str, found: int
) -> None:
    assert Registry({"digits": digits}).find(name, version, label).metadata.version == found


@pytest.mark.parametrize(
    ("asked", "kind", "message"),
    [
        (("mnist", 0, ""), NotServedError, "no model 'mnist' is served; served are: digits, let"),
        (("digits", 9, ""), NotServedError, "version 9 of model 'digits' is not .* are: 3, 2, 1$"),
        (("digits", 4, ""), NotServedError, "version 4 .*; it failed its checks: it is broken$"),
        (("digits", 0, "new"), NotServedError, "label 'new'; labels are: stable, canary"),
        (("letters", 0, "new"), NotServedError, "label 'new'; labels are: none"),
        (("digits", -1, ""), RequestError, "model_version: expected a positive number, .* got -1"),
        (("digits", 2, "stable"), RequestError, "model_label: expected none beside model_version"),
        (("", 0, ""), RequestError, "model_name: required, .*: digits, letters"),
        (("broken", 0, ""), NotServedError, "any version of model 'broken' is not served; .* none"),
    ],
    ids=str,
)
def test_what_is_not_served_is_refused_with_what_is(
    digits: ServedModel, asked: tuple[str, int, str], kind: type[ServerError], message: str
) -> None:
    letters = ServedModel(digits.versions, {}, 3)
    broken = ServedModel((), {}, 0, {1: "it is broken"})
    registry = Registry({"letters": letters, "digits": digits, "broken": broken})
    with pytest.raises(kind, match=message):
        registry.find(*asked)


@pytest.mark.parametrize("asked", [("", 0, ""), ("digits", 1, ""), ("digits", 0, "stable")])
def test_who_asks_while_nothing_is_served_is_told_to_ask_again(
    asked: tuple[str, int, str],
) -> None:
    for registry in (Registry({}), Registry({"other": ServedModel((), {}, 0, {1: "broken"})})):
        assert not registry.is_ready
        with pytest.raises(NotReadyError, match="no model is served yet"):
            registry.find(*asked)


def test_a_model_of_which_nothing_is_served_does_not_make_a_name_necessary(
    digits: ServedModel,
) -> None:
    registry = Registry({"digits": digits, "broken": ServedModel((), {}, 0, {1: "it is broken"})})
    assert registry.find("", 0) is digits.versions[1]


def test_the_default_model_answers_where_none_is_named_and_no_other_takes_its_place(
    digits: ServedModel,
) -> None:
    letters = ServedModel(digits.versions[:1], {}, 3)
    both = {"digits": digits, "letters": letters}
    for name, number in (("digits", 2), ("letters", 3)):
        registry = Registry(both, default_model=name)
        assert registry.find("", 0).metadata.version == number
        assert registry.model("") == (name, both[name])
    assert Registry(both, default_model="digits").find("", 0, "canary").metadata.version == 1
    with pytest.raises(NotServedError, match="default_model 'digits' is not served; .*: letters$"):
        Registry({"letters": letters}, default_model="digits").find("", 0)
    broken = ServedModel((), {}, 0, {1: "it is broken"})
    with pytest.raises(NotServedError, match="any version of model 'digits' is not served"):
        Registry({"letters": letters, "digits": broken}, default_model="digits").find("", 0)
    with pytest.raises(NotReadyError):
        Registry({}, default_model="digits").find("", 0)


def test_a_long_name_is_not_repeated_in_full(digits: ServedModel) -> None:
    registry = Registry({"digits": digits})
    for asked in (("x" * 100_000, 0, ""), ("digits", 0, "x" * 100_000)):
        with pytest.raises(NotServedError) as caught:
            registry.find(*asked)
        assert len(str(caught.value)) < 250


def test_a_message_lists_a_few_models_and_how_many_more_there_are(digits: ServedModel) -> None:
    registry = Registry({f"model-{number:03}": digits for number in range(400)})
    with pytest.raises(NotServedError) as caught:
        registry.find("none", 0)
    assert str(caught.value).endswith("model-008, model-009 and 390 more (see ListModels)")
