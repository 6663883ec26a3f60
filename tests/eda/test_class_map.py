import numpy as np
import pytest
from sklearn.decomposition import PCA

from soundfold.eda.class_map import class_means, project, thirds


@pytest.mark.parametrize("count", [3, 4, 5, 9, 10, 50])
def test_thirds_are_of_equal_size_and_in_order(count):
    values = np.random.default_rng(count).normal(size=count)
    groups = thirds(values)
    sizes = np.bincount(groups.third, minlength=3)
    assert sizes.max() - sizes.min() <= 1
    assert (np.diff(groups.third[np.argsort(values)]) >= 0).all()
    assert ((values > groups.edges[1]) == (groups.third == 2)).all()
    assert ((values < groups.edges[0]) == (groups.third == 0)).all()


def test_equal_values_share_a_third():
    assert thirds(np.array([1.0, 1.0, 1.0, 1.0])).third.tolist() == [1, 1, 1, 1]
    assert thirds(np.array([5.0])).third.tolist() == [1]
    groups = thirds(np.array([0.0, 0.0, 0.0, 0.0, 1.0, 2.0]))
    assert len(set(groups.third[:4])) == 1


def test_means_of_classes():
    values = np.array([[1.0, 2.0], [3.0, 4.0], [10.0, 10.0]])
    got = class_means(values, np.array([2, 2, 0]), 3)
    np.testing.assert_array_equal(got, [[10, 10], [np.nan, np.nan], [2, 3]])


def test_projection_matches_scikit_learn():
    features = np.random.default_rng(0).normal(size=(60, 20)) @ np.diag(np.linspace(5, 0.1, 20)) + 7
    got, reference = project(features), PCA(2)
    expected = reference.fit_transform(features)
    np.testing.assert_allclose(np.abs(got.points), np.abs(expected), atol=1e-9)
    np.testing.assert_allclose(got.explained, reference.explained_variance_ratio_)
    # the sign does not depend on the decomposition
    mirrored = project(-features[::-1])
    assert (got.points.max(axis=0) > -got.points.min(axis=0)).all()
    assert (mirrored.points.max(axis=0) > -mirrored.points.min(axis=0)).all()


def test_projection_of_constant_features():
    got = project(np.ones((3, 1)))
    assert got.points.tolist() == [[0, 0]] * 3
    assert got.explained.tolist() == [0, 0]
