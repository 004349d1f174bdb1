"""
fjmcp-broker: an OAuth 2.1 authorization server and Streamable HTTP endpoint in
front of C{forgejo-mcp}, so that every MCP client works on Forgejo with the rights
of the person who signed in.
"""
