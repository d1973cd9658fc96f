-- What the gateway knows beside its messages. Read whole at a start, written at a change; no service waits for it.

-- Who may open: readers older than `min_reader` refuse.
CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO meta VALUES ('min_reader', 1);

-- Who may ask. `digest` is the SHA-256 of the secret, which stands nowhere; `scopes` by blanks; `topics` a JSON array of filters,
-- empty for all. Times in ms since 1970; without `expires_ms` it lives until it is revoked.
CREATE TABLE token (
    name TEXT PRIMARY KEY,
    digest BLOB NOT NULL UNIQUE,
    scopes TEXT NOT NULL,
    topics TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    expires_ms INTEGER
) WITHOUT ROWID;
