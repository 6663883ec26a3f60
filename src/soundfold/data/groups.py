"""The five major groups of ESC-50's classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# K. J. Piczak, ESC: Dataset for Environmental Sound Classification, ACM Multimedia 2015, table 1
ESC50 = {
    "animals": "dog rooster pig cow frog cat hen insects sheep crow",
    "natural soundscapes, water": "rain sea_waves crackling_fire crickets chirping_birds water_drops wind "
    "pouring_water toilet_flush thunderstorm",
    "human, not speech": "crying_baby sneezing clapping breathing coughing footsteps laughing brushing_teeth snoring "
    "drinking_sipping",
    "interior, domestic": "door_wood_knock mouse_click keyboard_typing door_wood_creaks can_opening washing_machine "
    "vacuum_cleaner clock_alarm clock_tick glass_breaking",
    "exterior, urban": "helicopter chainsaw siren car_horn engine train church_bells airplane fireworks hand_saw",
}


def esc50_groups(classes: Sequence[str]) -> tuple[list[str], np.ndarray] | None:
    """Return the group names that occur and the group of each class, int64 (C,); None if a class is not ESC-50's."""
    of_class = {name: group for group, names in ESC50.items() for name in names.split()}
    if not set(classes) <= set(of_class):
        return None
    names = [group for group in ESC50 if any(of_class[name] == group for name in classes)]
    return names, np.array([names.index(of_class[name]) for name in classes])
