"""The one exception that bad input raises."""


class InputError(Exception):
    """Something the user gave cannot be used: one paragraph that says what, where, the rule and the remedy.

    The scripts print the paragraph without a traceback and exit with status 2.
    """
