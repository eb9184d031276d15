"""The two ways in which a database fails.

Takes nothing, gives exceptions. Never holds a password or a token.
"""


class InfluxError(Exception):
    """What every error of this package is; its text is fit for the user."""


class InfluxUnreachable(InfluxError):  # noqa: N818 - says what is so
    """Nothing answered in time: the request may or may not have been carried out."""


class InfluxRefused(InfluxError):  # noqa: N818 - says what is so
    """The server answered, but not with what was asked for.

    `status` is the HTTP status, `reason` the server's own words, `remedy` what the user can change.
    """

    def __init__(self, status: int, reason: str, remedy: str) -> None:
        super().__init__(f"{reason}: {remedy}")
        self.status = status
        self.reason = reason
        self.remedy = remedy
