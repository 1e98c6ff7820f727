"""The one exception that users meet."""


class LogpiError(Exception):
    """Something a user can mend: one line that says what was wrong, where, and what to do."""
