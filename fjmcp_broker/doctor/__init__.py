"""C{fjmcp-broker doctor}: is this installation well, and if not, what to do."""
