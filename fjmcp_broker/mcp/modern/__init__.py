"""
A client of the stateless revisions (MCP 2026-07-28) in front of a child of the older
ones: judging, translation both ways, questions, subscriptions; no I/O.
"""
