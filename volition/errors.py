"""The one error a user should ever see: what is wrong, where, and how to mend it, in one line."""


class VolitionError(Exception):
    """A mistake in what Volition was given; the command line prints it and exits with 2."""
