"""How much of what anybody may ask for: arithmetic without clock and network."""
