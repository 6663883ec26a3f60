"""Why OmegaConf refused a value, in the words of the command line."""

from __future__ import annotations

import re

# by the end of OmegaConf's message
RULES = {
    "could not be converted to Float": "must be a number",
    "could not be converted to Integer": "must be a whole number",
    r"is not a valid bool \(type \w+\)": "must be true or false",
    "is not a ListConfig, list or tuple": "must be a list, such as [a,b]",
    r"is incompatible with type hint 'Union\[int, str\]'": "must be a single whole number or word",
    "is not Optional": "requires a value",
    r"is not a subclass of Uniform\. value: .*": "must be a range, such as {low: 1, high: 2}, or null",
    r"is not a subclass of \w+\. value: .*": "must be a section of keys, {KEY: VALUE, ...}, or null",
    "Cannot merge DictConfig with ListConfig": "must be a section of keys, {KEY: VALUE, ...}, not a list",
}


def explain_refusal(assignment: str, error: BaseException) -> str:
    """Return a sentence that says what OmegaConf refused.

    Args:
        assignment: what was set, ``KEY=VALUE``.
        error: OmegaConf's.

    Example:
        >>> from omegaconf import OmegaConf
        >>> from omegaconf.errors import ValidationError
        >>> from soundfold.config.schema import Crops
        >>> try:
        ...     OmegaConf.structured(Crops).test = "many"
        ... except ValidationError as error:
        ...     print(explain_refusal("crops.test=many", error))
        crops.test=many must be a whole number.
    """
    text = str(error)
    reason = text.splitlines()[0].rstrip(".")
    rule = next((rule for ending, rule in RULES.items() if re.search(f"{ending}$", reason)), None)
    if rule is None:
        return f"{assignment}: {reason}."
    # in a value such as {lr: abc}, a key within it is at fault
    key = re.search("full_key: (.*)", text)
    within = key is not None and not f".{assignment}".partition("=")[0].endswith(f".{key[1]}")
    return f"{assignment}: {key[1]} {rule}." if key and within else f"{assignment} {rule}."
