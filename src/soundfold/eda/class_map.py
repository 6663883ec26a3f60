"""Where the clips and the classes of a collection lie: thirds of energy and tone, and a map in two dimensions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

THIRDS = ("low", "middle", "high")


@dataclass(frozen=True)
class Thirds:
    """Values in three groups of equal size.

    Attributes:
        third: int64 (n,), 0, 1 or 2: low, middle, high.
        edges: the two values between the groups.
    """

    third: np.ndarray
    edges: tuple[float, float]


def thirds(values: np.ndarray) -> Thirds:
    """Group values as low, middle and high: (n,) -> thirds.

    The edges are the quantiles 1/3 and 2/3, taken between neighbours (Hazen's), so that groups differ by one member at
    most; equal values share a group, and where all are equal that is the middle one.

    Source: R. J. Hyndman and Y. Fan, Sample Quantiles in Statistical Packages, The American
    Statistician 50, 1996, type 5.
    """
    low, high = np.quantile(values, [1 / 3, 2 / 3], method="hazen")
    return Thirds((values >= low).astype(np.int64) + (values > high), (float(low), float(high)))


def class_means(values: np.ndarray, targets: np.ndarray, classes: int) -> np.ndarray:
    """Mean over the clips of each class: (clips, ...) and (clips,) -> (classes, ...); NaN for a class without clips."""
    of_class = [values[targets == target] for target in range(classes)]
    empty = np.full(values.shape[1:], np.nan)
    return np.stack([part.mean(axis=0) if len(part) else empty for part in of_class])


@dataclass(frozen=True)
class Map:
    """Principal components.

    Attributes:
        points: (clips, dimensions), coordinates along the directions of most variance.
        explained: (dimensions,), share of the total variance along each.
    """

    points: np.ndarray
    explained: np.ndarray


def principal_map(features: np.ndarray, dimensions: int = 2) -> Map:
    """Project clips to the directions in which they vary most: (clips, features) -> map.

    Features are centred and not scaled: to_db of one band compare with to_db of another. Directions are turned
    so that the farthest clip along each lies on its positive side; directions that do not exist (fewer clips or
    features, no variance) are zeros.
    """
    centred = np.asarray(features, dtype=np.float64)
    centred = centred - centred.mean(axis=0)
    left, scale, _ = np.linalg.svd(centred, full_matrices=False)
    kept = min(dimensions, len(scale))
    points, explained = np.zeros((len(centred), dimensions)), np.zeros(dimensions)
    points[:, :kept] = left[:, :kept] * scale[:kept]
    total = (scale**2).sum()
    if total > 0:
        explained[:kept] = scale[:kept] ** 2 / total
    farthest = np.abs(points).argmax(axis=0)
    points *= np.where(points[farthest, range(dimensions)] < 0, -1, 1)
    return Map(points, explained)
