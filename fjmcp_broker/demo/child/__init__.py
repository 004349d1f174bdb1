"""A stand-in for forgejo-mcp: L{fjmcp_broker.demo.child.program}."""
