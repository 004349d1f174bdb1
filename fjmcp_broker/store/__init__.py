"""The SQLite store: pools, migrations, sealing, and the statements of each aggregate."""
