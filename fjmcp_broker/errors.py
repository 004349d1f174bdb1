"""The common base of the errors that this software raises on purpose."""


class BrokerError(Exception):
    """
    A failure that some layer above is expected to turn into an answer.

    The message never contains a token, code, cookie, verifier or body.
    """
