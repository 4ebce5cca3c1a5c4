import numpy as np
import pytest

from mlpserve.model.network import Network
from mlpserve.trainer.learning.initialization import he
from mlpserve.trainer.learning.parameters import vector_of, views


@pytest.fixture(params=[(5, 3), (5, 4, 3), (2, 7, 1, 3)], ids=str)
def net(request: pytest.FixtureRequest) -> Network:
    return he(request.param, "relu", seed=1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_views_of_a_networks_vector_are_its_parameters(
    net: Network, dtype: type[np.floating]
) -> None:
    typed = net.astype(dtype)
    vector = vector_of(typed)
    assert vector.dtype == dtype
    assert vector.shape == (sum(array.size for array in net.parameters),)
    for view, array in zip(views(vector, net), typed.parameters, strict=True):
        np.testing.assert_array_equal(view, array, strict=True)


def test_who_changes_a_view_changes_the_vector_and_the_other_way_round(net: Network) -> None:
    vector = np.arange(len(vector_of(net)), dtype=np.float64)
    parts = views(vector, net)
    np.testing.assert_array_equal(np.concatenate([part.ravel() for part in parts]), vector)
    parts[-1][-1] = -1
    assert vector[-1] == -1
    vector[:] = 7
    assert all((part == 7).all() for part in parts)


def test_a_networks_vector_is_a_copy(net: Network) -> None:
    before = [array.copy() for array in net.parameters]
    vector_of(net)[:] = 7
    for array, old in zip(net.parameters, before, strict=True):
        np.testing.assert_array_equal(array, old)
