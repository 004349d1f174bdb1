-- Times are whole seconds since the epoch, UTC. Digests are SHA-256.
-- A column named sealed_* holds key id, nonce and AES-256-GCM ciphertext.

CREATE TABLE instance (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    forgejo_url TEXT NOT NULL,
    oauth_client_id TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE clients (
    client_id TEXT PRIMARY KEY,
    kind TEXT NOT NULL CHECK (kind IN ('dynamic', 'metadata-document', 'static')),
    metadata TEXT NOT NULL,                     -- JSON, RFC 7591 client metadata
    secret_digest BLOB,
    created_at INTEGER NOT NULL,
    last_used_at INTEGER,                       -- NULL: never completed a sign-in
    metadata_expires_at INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX clients_by_use ON clients (last_used_at, created_at);

CREATE TABLE users (
    user_id INTEGER PRIMARY KEY,                -- Forgejo's
    login TEXT NOT NULL,
    display_name TEXT NOT NULL,
    first_seen_at INTEGER NOT NULL,
    last_seen_at INTEGER NOT NULL
) STRICT;

CREATE TABLE upstream_tokens (
    user_id INTEGER PRIMARY KEY REFERENCES users ON DELETE CASCADE,
    sealed_access_token BLOB NOT NULL,
    sealed_refresh_token BLOB NOT NULL,
    expires_at INTEGER NOT NULL,                -- of the access token
    scope TEXT,                                 -- as introspected; NULL: not yet
    state TEXT NOT NULL CHECK (state IN ('usable', 'needs_sign_in')),
    grant_number INTEGER,                       -- gnt and cnt of the refresh token,
    counter INTEGER,                            -- for ordering only
    refresh_digest BLOB NOT NULL,               -- tells whether the set has changed
    updated_at INTEGER NOT NULL
) STRICT;

CREATE TABLE pending_authorizations (
    pending_id TEXT PRIMARY KEY,                -- named in the consent form
    client_id TEXT NOT NULL REFERENCES clients ON DELETE CASCADE,
    request TEXT NOT NULL,                      -- JSON, the validated request
    state_digest BLOB UNIQUE,                   -- of the state sent to Forgejo
    approval_digest BLOB,                       -- of the approval cookie
    policy TEXT,                                -- what the user chose
    sealed_upstream_verifier BLOB,              -- PKCE verifier towards Forgejo
    sealed_upstream_tokens BLOB,                -- exchanged, user not yet known
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    returned_at INTEGER                         -- the callback came; single use
) STRICT, WITHOUT ROWID;
CREATE INDEX pending_authorizations_by_expiry ON pending_authorizations (expires_at);
CREATE INDEX pending_authorizations_by_client ON pending_authorizations (client_id);
CREATE INDEX pending_authorizations_parked
    ON pending_authorizations (created_at) WHERE sealed_upstream_tokens IS NOT NULL;

CREATE TABLE grants (
    grant_id TEXT PRIMARY KEY,
    user_id INTEGER NOT NULL REFERENCES users ON DELETE CASCADE,
    client_id TEXT NOT NULL REFERENCES clients ON DELETE CASCADE,
    scope TEXT NOT NULL,                        -- space separated, sorted
    resource TEXT NOT NULL,
    policy TEXT NOT NULL
        CHECK (policy IN ('full', 'read-only', 'read-only-requested')),
    created_at INTEGER NOT NULL,
    last_used_at INTEGER NOT NULL,
    revoked_at INTEGER,
    reason TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX grants_by_user ON grants (user_id);
CREATE INDEX grants_by_client ON grants (client_id);
CREATE INDEX grants_not_revoked ON grants (created_at) WHERE revoked_at IS NULL;
CREATE INDEX grants_revoked ON grants (revoked_at) WHERE revoked_at IS NOT NULL;

CREATE TABLE authorization_codes (
    code_digest BLOB PRIMARY KEY,
    grant_id TEXT NOT NULL REFERENCES grants ON DELETE CASCADE,
    redirect_uri TEXT NOT NULL,
    code_challenge TEXT NOT NULL,
    expires_at INTEGER NOT NULL,
    used_at INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX authorization_codes_by_grant ON authorization_codes (grant_id);
CREATE INDEX authorization_codes_by_expiry
    ON authorization_codes (expires_at) WHERE used_at IS NULL;

CREATE TABLE access_tokens (
    token_digest BLOB PRIMARY KEY,
    grant_id TEXT NOT NULL REFERENCES grants ON DELETE CASCADE,
    scope TEXT,                                 -- narrowed; NULL: the grant's
    expires_at INTEGER NOT NULL,
    first_used_at INTEGER,
    revoked_at INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX access_tokens_by_grant ON access_tokens (grant_id);
CREATE INDEX access_tokens_by_expiry ON access_tokens (expires_at);

CREATE TABLE refresh_tokens (
    token_digest BLOB PRIMARY KEY,
    grant_id TEXT NOT NULL REFERENCES grants ON DELETE CASCADE,
    expires_at INTEGER NOT NULL,
    rotated_at INTEGER,
    sealed_derivation_key BLOB,                 -- erased when no answer can need it
    successor_refresh_digest BLOB,
    successor_access_digest BLOB,
    successor_access_number INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE INDEX refresh_tokens_by_grant ON refresh_tokens (grant_id);
CREATE INDEX refresh_tokens_by_expiry ON refresh_tokens (expires_at);
CREATE INDEX refresh_tokens_answerable
    ON refresh_tokens (rotated_at) WHERE sealed_derivation_key IS NOT NULL;
CREATE INDEX refresh_tokens_by_successor
    ON refresh_tokens (successor_access_digest)
    WHERE sealed_derivation_key IS NOT NULL;

CREATE TABLE sessions (
    session_digest BLOB PRIMARY KEY,
    grant_id TEXT NOT NULL REFERENCES grants ON DELETE CASCADE,
    protocol_version TEXT NOT NULL,             -- as negotiated
    sealed_initialize BLOB NOT NULL,            -- the client's params
    log_level TEXT,
    subscriptions TEXT NOT NULL DEFAULT '[]',   -- JSON, resource URIs
    created_at INTEGER NOT NULL,
    last_active_at INTEGER NOT NULL,
    closed_at INTEGER,
    reason TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX sessions_by_grant ON sessions (grant_id);
CREATE INDEX sessions_open_by_activity
    ON sessions (last_active_at) WHERE closed_at IS NULL;
CREATE INDEX sessions_closed ON sessions (closed_at) WHERE closed_at IS NOT NULL;
