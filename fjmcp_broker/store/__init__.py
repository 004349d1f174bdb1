"""The SQLite store: pools, migrations, sealing, the statements of each aggregate."""
