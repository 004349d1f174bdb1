"""The children of a session: started, greeted, supervised, replaced."""
