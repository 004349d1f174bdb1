"""The HTTP surface: parse a request, ask the core, render the answer."""
