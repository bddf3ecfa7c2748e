"""The errors a person can act on. The command line prints each as one line, without a traceback."""


class OnwardError(Exception):
    """Something the user can put right; the message says what and how."""


class NotFinite(OnwardError):
    """A number became NaN or infinite while learning."""


class Stopped(OnwardError):
    """The run was asked to stop, and can be resumed."""
