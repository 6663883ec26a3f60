"""Class means, groups of classes by terciles, and a two-dimensional map of clips."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

THIRDS = ("low", "middle", "high")


@dataclass(frozen=True)
class Thirds:
    """Values in three groups of equal size.

    Attributes:
        third: int64 (n,), index into `THIRDS`.
        edges: the two values that separate the groups.
    """

    third: np.ndarray
    edges: tuple[float, float]


def thirds(values: np.ndarray) -> Thirds:
    """Group values (n,) as low, middle and high.

    The edges are the quantiles 1/3 and 2/3 by Hazen's method, which interpolates between neighbors, so that group
    sizes differ by at most one. Equal values share a group; if all are equal, it is the middle one.

    Source: R. J. Hyndman and Y. Fan, Sample Quantiles in Statistical Packages, The American
    Statistician 50, 1996, type 5.
    """
    low, high = np.quantile(values, [1 / 3, 2 / 3], method="hazen")
    return Thirds((values >= low).astype(np.int64) + (values > high), (float(low), float(high)))


def class_means(values: np.ndarray, targets: np.ndarray, n_classes: int) -> np.ndarray:
    """Return the mean of each class: (clips, ...) and (clips,) -> (classes, ...); NaN for a class without clips."""
    by_class = [values[targets == target] for target in range(n_classes)]
    missing = np.full(values.shape[1:], np.nan)
    return np.stack([members.mean(axis=0) if len(members) else missing for members in by_class])


@dataclass(frozen=True)
class Projection:
    """Clips projected onto principal components.

    Attributes:
        points: (clips, components), coordinates in the units of the features.
        explained: (components,), fraction of the total variance explained by each component.
    """

    points: np.ndarray
    explained: np.ndarray


def project(features: np.ndarray, n_components: int = 2) -> Projection:
    """Project clips onto their first principal components: (clips, features) -> projection.

    Features are centered but not scaled, because all have the same unit (dB). The sign of each component is chosen
    such that its farthest clip is positive. Components that do not exist (fewer clips or features, no variance) are 0.
    """
    centered = np.asarray(features, dtype=np.float64)
    centered = centered - centered.mean(axis=0)
    u, s, _ = np.linalg.svd(centered, full_matrices=False)
    n = min(n_components, len(s))
    points, explained = np.zeros((len(centered), n_components)), np.zeros(n_components)
    points[:, :n] = u[:, :n] * s[:n]
    variance = s**2
    if variance.sum() > 0:
        explained[:n] = variance[:n] / variance.sum()
    farthest = points[np.abs(points).argmax(axis=0), range(n_components)]
    return Projection(points * np.where(farthest < 0, -1, 1), explained)
