"""
What the HTTP server asks of an endpoint.
"""

from typing import Any

from zope.interface import Attribute, Interface

from fjmcp_broker.limits.memory import Holder


class IAdmission(Interface):
    """
    What an endpoint asks of a request before its body.
    """

    maximum_body_bytes = Attribute("longest body that is accepted")
    memory = Attribute("the L{Memory} that bodies are held in")

    def admit(  # type: ignore[no-untyped-def]  # a Deferred at times
        request,  # noqa: N805 - zope
        method,
        length,
    ):
        """
        @param request: its headers are complete.
        @param method: as sent.
        @param length: of the body, C{None} when not known yet, 0 without one.
        @return: C{None}, a L{Refusal}, or a Deferred of either, which does not fail.
        """

    def too_large(request: Any) -> object:  # noqa: N805 - zope
        """
        @param request: its body is longer than allowed.
        @return: the answer.
        """

    def no_room(request: Any) -> object:  # noqa: N805 - zope
        """
        @param request: there is no memory for its body now.
        @return: the answer.
        """

    def holder(request: Any) -> Holder | None:  # noqa: N805 - zope
        """
        @param request: it has been admitted.
        @return: whose share of the memory its body takes, C{None}: nobody's.
        """
