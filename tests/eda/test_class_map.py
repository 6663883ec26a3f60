import numpy as np
import pytest
from sklearn.decomposition import PCA

from soundfold.eda.class_map import class_means, principal_map, thirds


@pytest.mark.parametrize("count", [3, 4, 5, 9, 10, 50])
def test_thirds_are_of_equal_size_and_in_order(count):
    values = np.random.default_rng(count).normal(size=count)
    found = thirds(values)
    sizes = np.bincount(found.third, minlength=3)
    assert sizes.max() - sizes.min() <= 1
    assert (np.diff(found.third[np.argsort(values)]) >= 0).all()
    assert ((values > found.edges[1]) == (found.third == 2)).all()
    assert ((values < found.edges[0]) == (found.third == 0)).all()


def test_equal_values_share_a_third():
    assert thirds(np.array([1.0, 1.0, 1.0, 1.0])).third.tolist() == [1, 1, 1, 1]
    assert thirds(np.array([5.0])).third.tolist() == [1]
    found = thirds(np.array([0.0, 0.0, 0.0, 0.0, 1.0, 2.0]))
    assert len(set(found.third[:4])) == 1


def test_means_of_classes():
    values = np.array([[1.0, 2.0], [3.0, 4.0], [10.0, 10.0]])
    got = class_means(values, np.array([2, 2, 0]), 3)
    np.testing.assert_array_equal(got, [[10, 10], [np.nan, np.nan], [2, 3]])


def test_the_map_is_scikit_learns():
    features = np.random.default_rng(0).normal(size=(60, 20)) @ np.diag(np.linspace(5, 0.1, 20)) + 7
    got, reference = principal_map(features), PCA(2)
    theirs = reference.fit_transform(features)
    np.testing.assert_allclose(np.abs(got.points), np.abs(theirs), atol=1e-9)
    np.testing.assert_allclose(got.explained, reference.explained_variance_ratio_)
    # turned the same way, whatever the signs of the decomposition
    mirrored = principal_map(-features[::-1])
    assert (got.points.max(axis=0) > -got.points.min(axis=0)).all()
    assert (mirrored.points.max(axis=0) > -mirrored.points.min(axis=0)).all()


def test_a_map_of_what_does_not_vary():
    got = principal_map(np.ones((3, 1)))
    assert got.points.tolist() == [[0, 0]] * 3
    assert got.explained.tolist() == [0, 0]
