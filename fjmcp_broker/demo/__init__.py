"""Stand-ins for Forgejo and forgejo-mcp, used by the demo and by the tests."""
