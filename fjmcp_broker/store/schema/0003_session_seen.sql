-- What of its children a session's client has seen, as digests: a later daemon tells
-- it when a child offers something else.

ALTER TABLE sessions ADD COLUMN seen TEXT;      -- JSON, our own
