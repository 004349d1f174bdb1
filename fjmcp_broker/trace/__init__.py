"""Sign-in traces: how far each attempt came, from registration to the first request."""
