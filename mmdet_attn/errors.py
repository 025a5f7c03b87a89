"""The one exception for what a user can put right."""


class InputError(ValueError):
    """Bad input: the message names the value, the rule and the way out."""
