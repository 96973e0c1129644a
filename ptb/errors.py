"""The two ways in which a run ends before its time without a fault of the program."""


class UserError(ValueError):
    """Says in one line what is wrong, where, and what to do; a script ends with exit status 2."""


class Stopped(Exception):
    """The run was asked to stop, and has been saved; the message says how to go on.

    Args:
      signum: the signal that asked; a script ends with exit status 128 + signum.
      message: one line for the person who reads the end of the output.
    """

    def __init__(self, signum, message):
        super().__init__(message)
        self.signum = signum
