"""
A load harness: the broker, and other bridges from stdio to Streamable HTTP, under the
same load in one run. C{make bench} and C{make bench-peers}; see docs/performance.md.
"""
