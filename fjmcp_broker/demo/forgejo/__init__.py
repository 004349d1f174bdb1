"""A stand-in Forgejo: L{fjmcp_broker.demo.forgejo.stand_in}."""
