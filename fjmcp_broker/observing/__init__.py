"""
Parts of the daemon that count what passes through them.

They stand in the place of what they observe, so that nothing below knows of metrics.
"""
