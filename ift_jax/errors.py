"""The one exception that a user's mistake raises."""


class UserError(Exception):
    """A mistake in a config, a data file or a command line.

    The message is one clear line: what is wrong, where (file, line, field), and what
    was expected. Commands print it after `error:` and exit with status 2; a traceback
    is for our own mistakes only.
    """
