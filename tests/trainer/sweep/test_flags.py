"""The flags of a sweep, and its file: what is taken, and what is refused before the first trial."""

import argparse
from pathlib import Path
from typing import Any

import pytest

from mlpserve.trainer.errors import TrainingError
from mlpserve.trainer.search_space import Choices, Range
from mlpserve.trainer.sweep.command import sweep_parser
from mlpserve.trainer.sweep.plan import Plan, make_plan
from mlpserve.trainer.sweep.space import read_space

RATE = ("--vary", "learning-rate=0.001..0.01:log")


def plan(*arguments: object) -> Plan:
    options, training = sweep_parser().parse_known_args(list(map(str, arguments)))
    assert isinstance(options, argparse.Namespace)
    return make_plan(options, training)


def test_file_and_flags_say_the_same(tmp_path: Path) -> None:
    file = tmp_path / "space.toml"
    file.write_text(
        "learning-rate = { low = 0.001, high = 0.01, log = true }\n"
        "layers = [[16, 16], 32, []]\n"
        'batch-size = { low = 16, high = 64 }\nwarp = ["none", "slight"]\n'
    )
    flags = ["learning-rate=0.001..0.01:log", "layers=16,16|32|", "batch-size=16..64"]
    of_flags = read_space([*flags, "warp=none|slight"], None)
    assert list(of_flags.values()) == list(read_space([], file).values())
    assert list(of_flags.values()) == [
        Range("learning-rate", 0.001, 0.01, is_logarithmic=True),
        Choices("layers", ("16,16", "32", "")),
        Range("batch-size", 16, 64, is_integer=True),
        Choices("warp", ("none", "slight")),
    ]


def test_trials_are_spread_differ_and_depend_on_the_seed_alone() -> None:
    first, again, other = (
        plan(*RATE, "--vary", "layers=16|32", "--trials", 8, "--seed", seed) for seed in (1, 1, 2)
    )
    assert first.sweep == again.sweep
    assert first.sweep.trials != other.sweep.trials
    rates = sorted(float(trial.values["learning-rate"]) for trial in first.sweep.trials)
    # Each eighth of the range, by factors, has one.
    parts = [0.001 * 10 ** (part / 8) for part in range(9)]
    assert all(
        low <= rate <= high for rate, low, high in zip(rates, parts, parts[1:], strict=False)
    )
    layers = [trial.values["layers"] for trial in first.sweep.trials]
    assert sorted(layers) == ["16"] * 4 + ["32"] * 4
    assert {config.recipe.learning_rate for config in first.configs} == set(rates)


def test_a_small_space_is_tried_whole_and_nothing_twice() -> None:
    tried = plan("--vary", "layers=8|16", "--vary", "batch-size=7..9", "--trials", 50).sweep.trials
    assert sorted(tuple(trial.values.values()) for trial in tried) == sorted(
        (layers, size) for layers in ("8", "16") for size in ("7", "8", "9")
    )
    some = plan(
        "--vary", "layers=8|16", "--vary", "batch-size=1..3:log", "--trials", 5
    ).sweep.trials
    assert len({tuple(trial.values.values()) for trial in some}) == 5


REFUSED: list[tuple[tuple[Any, ...], str]] = [
    ((), "--vary: expected a setting and its values"),
    (("--vary", "learning-rate"), "--vary learning-rate: expected NAME=VALUES, as in 0.001..0.01"),
    (("--vary", "depth=1|2"), "--vary depth=1|2: expected one of activation, average-decay,"),
    (
        ("--vary", "learning-rate=0.01..0.001"),
        "expected a lowest value below the highest, got 0.01 and 0.001",
    ),
    (
        ("--vary", "learning-rate=0..1:log"),
        "expected a lowest value above 0, which has a logarithm",
    ),
    (("--vary", "learning-rate=a..b"), "learning-rate=a..b: expected a number, got 'a'"),
    (("--vary", "batch-size=1.5..3"), "batch-size=1.5..3: expected a whole number, got '1.5'"),
    (("--vary", "learning-rate=nan..1"), "expected a lowest value below the highest, got nan"),
    (("--vary", "dropout=0..1.5"), "--vary dropout=0..1.5: dropout: expected from 0 to below 1"),
    (("--vary", "layers=16|0"), "--vary layers=16|0: layers: expected widths from 1 to 65536"),
    (("--vary", "layers=16|x"), "expected widths with commas between them, as in 256,128, got 'x'"),
    (("--vary", "layers=16..64"), "layers=16..64: expected values, as in A|B|C"),
    (("--vary", "activation=relu|rel"), "activation=relu|rel: expected tanh, relu"),
    (("--vary", "dropout=0.1"), "expected at least two values, as in 0.001..0.01"),
    (("--vary", "dropout=0.1|0.1"), "expected different values, got one of them twice"),
    ((*RATE, *RATE), "learning-rate is given twice; leave one out"),
    ((*RATE, "--learning-rate", 1), "learning-rate is varied, and --learning-rate given as well"),
    (("--vary", "epochs=1|2"), "epochs cannot be varied: trials are compared after so many"),
    (("--vary", "teacher=a|b"), "teacher cannot be varied: it is loaded once, with the data"),
    (("--vary", "seed=1|2"), "seed cannot be varied: it draws the validation images"),
    (
        ("--vary", "batch-size=0|8", "--vary", "warp=none|slight"),
        "(batch-size 0, warp slight): batch size: expected at least 1 with distorted images",
    ),
    ((*RATE, "--validation-share", 0), "validation share: expected above 0, to compare trials by"),
    ((*RATE, "--min-epochs", 9), "--min-epochs: expected from 1 to the 3 epochs of a whole"),
    ((*RATE, "--trials", 0), "--trials: expected from 1 to 1000, got 0"),
    ((*RATE, "--parallel", 0), "--parallel: expected from 1 to 1024, got 0"),
    ((*RATE, "--reduction", 1), "--reduction: expected at least 2, got 1"),
    ((*RATE, "--checkpoint", "x"), "--checkpoint: expected no such flag in a sweep"),
    ((*RATE, "--checkpoint", "x", "--resume"), "expected no such flag in a sweep"),
    ((*RATE, "--progress-every", 1, "--log-format", "json"), "--progress-every: expected no such"),
    ((*RATE, "--threads", 0), "--threads: expected from 1 to 256, got 0"),
    (("--space", "missing.toml"), "--space missing.toml: cannot be read: No such file"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED, ids=lambda value: str(value)[:50])
def test_what_cannot_be_is_refused_with_a_sentence(
    arguments: tuple[Any, ...], message: str
) -> None:
    with pytest.raises(TrainingError) as raised:
        plan(*arguments)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("layers = 3\n", "layers: expected a list or a table, as in [16, 32, 64] or { low"),
        (
            "dropout = { low = 0.1 }\n",
            "dropout: expected low and high, and log if need be, got low",
        ),
        ("dropout = { low = 0.1, high = 0.2, log = 1 }\n", "log: expected true or false, got 1"),
        ("dropout = { low = 0.1, high = 0.2, step = 1 }\n", "got low, high, step"),
        ("layers = [\n", "expected TOML: "),
        ("", "--vary: expected a setting and its values"),
    ],
)
def test_a_file_that_is_none_of_a_space_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "space.toml"
    file.write_text(text)
    with pytest.raises(TrainingError) as raised:
        plan("--space", file)
    assert message in str(raised.value)
