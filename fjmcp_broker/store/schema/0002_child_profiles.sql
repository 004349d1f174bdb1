-- What a kind of child speaks and how it describes itself, so that clients can be
-- told without starting one. It is about the program, never about a person.

CREATE TABLE child_profiles (
    identity BLOB PRIMARY KEY,                  -- of argv, inode and mtime
    era TEXT NOT NULL CHECK (era IN ('legacy', 'dual', 'modern')),
    initialize_result BLOB,                     -- raw JSON, as the child wrote it
    discover_result BLOB,
    updated_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
