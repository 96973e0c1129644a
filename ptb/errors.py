"""The one kind of error that is the user's to mend."""


class UserError(ValueError):
    """Says in one line what is wrong, where, and what to do; a script ends with exit status 2."""
