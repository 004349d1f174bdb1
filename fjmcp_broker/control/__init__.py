"""Administration: what an operator asks of a running daemon, or of its store."""
