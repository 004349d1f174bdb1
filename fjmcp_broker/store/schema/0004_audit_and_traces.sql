-- Who did what and how it ended, never what it was about. Events outlive the users,
-- clients and grants that they name, so that they refer to none of them.

CREATE TABLE audit_events (
    event_id INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,                        -- when it was over
    kind TEXT NOT NULL,                         -- 'tool_call', 'sign_in', ...
    user_id INTEGER,
    client_id TEXT,
    grant_id TEXT,
    session TEXT,                               -- what the log calls it
    tool TEXT,
    outcome TEXT NOT NULL,                      -- one of our own words
    duration_ms INTEGER,
    actor TEXT                                  -- of administration: who asked
) STRICT;
CREATE INDEX audit_events_by_time ON audit_events (at);
CREATE INDEX audit_events_by_user ON audit_events (user_id, at);

-- How far sign-ins have come. No state, no code, no query, no full address.

CREATE TABLE sign_in_traces (
    trace_id TEXT PRIMARY KEY,
    network TEXT NOT NULL,                      -- that it began in, or 'unknown'
    began_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    client_id TEXT,
    pending_id TEXT,
    grant_id TEXT,
    user_id INTEGER,
    steps TEXT NOT NULL,                        -- JSON, our own
    related TEXT NOT NULL                       -- JSON, our own
) STRICT, WITHOUT ROWID;
CREATE INDEX sign_in_traces_by_time ON sign_in_traces (began_at);
