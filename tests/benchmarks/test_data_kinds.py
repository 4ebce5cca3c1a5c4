from pathlib import Path

import pytest

from data_kinds import KINDS, Kind, table_row
from mlpserve.datasets import Dataset
from mlpserve.datasets.drawn import draw_digits


@pytest.fixture(scope="module")
def digits() -> Dataset:
    train, test = draw_digits(400, seed=1), draw_digits(100, seed=2)
    return Dataset("drawn", tuple("0123456789"), train, test)


@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_each_kind_of_data_has_a_row_and_is_predicted_as_it_was_tested(
    kind: Kind, digits: Dataset, tmp_path: Path
) -> None:
    row = table_row(kind, tmp_path, digits)
    if row is not None:  # scikit-learn need not be there
        _, name, command, said, tested, predicted, _ = (cell.strip() for cell in row.split("|"))
        assert name == kind.name
        assert command.startswith("`mlpserve-train --data ")
        assert " images of " in said
        assert tested == predicted
