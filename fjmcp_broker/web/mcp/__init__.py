"""The MCP endpoint, C{/mcp}: both eras of Streamable HTTP."""
