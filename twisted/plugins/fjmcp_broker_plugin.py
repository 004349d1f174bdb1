"""Makes C{fjmcp} known to C{twistd} and C{twist}."""

from twisted.application.service import ServiceMaker

fjmcp = ServiceMaker(
    "fjmcp-broker",
    "fjmcp_broker.tap",
    "OAuth 2.1 sign-in and Streamable HTTP for forgejo-mcp",
    "fjmcp",
)
