-- The journal. One writer connection; no secondary index on what each publish touches.

-- Who may open: readers older than `min_reader` refuse. `epoch` changes when sequence numbers could be used twice.
CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO meta VALUES ('min_reader', 1), ('epoch', 1);

-- Each start of the machine: chunks name it, so that monotonic times can be compared within one.
CREATE TABLE boot (number INTEGER PRIMARY KEY, id TEXT NOT NULL, wall_ms INTEGER NOT NULL);

-- `head` and `total_bytes` are as of the last eviction; the newest chunk knows better (the larger counts).
CREATE TABLE stream (
    number INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    bytes_max INTEGER NOT NULL,
    head INTEGER NOT NULL DEFAULT 0,
    total_bytes INTEGER NOT NULL DEFAULT 0
);

-- The stream's ledger: received = stored + sum(removed).
CREATE TABLE removed (
    stream INTEGER NOT NULL, reason TEXT NOT NULL, rows INTEGER NOT NULL, bytes INTEGER NOT NULL,
    PRIMARY KEY (stream, reason)
) WITHOUT ROWID;

-- id = stream number * 2^48 + sequence number of the first message.
-- total_bytes: of this chunk and all before it in the stream. expires_ms: null = no message has a TTL, 0 = some have,
-- otherwise all have and this is the last to expire. `data` stands last: what is read before it needs no overflow page.
CREATE TABLE chunk (
    id INTEGER PRIMARY KEY,
    count INTEGER NOT NULL,
    t0_ms INTEGER NOT NULL,
    t1_ms INTEGER NOT NULL,
    total_bytes INTEGER NOT NULL,
    expires_ms INTEGER,
    data BLOB NOT NULL
);

-- Runs of sequence numbers that are gone.
CREATE TABLE gap (
    stream INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL, reason TEXT NOT NULL,
    PRIMARY KEY (stream, first)
) WITHOUT ROWID;

-- AUTOINCREMENT: chunks refer to consumers by number, so a number is never used again.
CREATE TABLE consumer (number INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, record BLOB NOT NULL);

-- Keys seen, in the order of arrival. id as in `chunk`; data = (sequence number - first: 4, key digest: 16, body digest: 8) each.
CREATE TABLE key_block (id INTEGER PRIMARY KEY, count INTEGER NOT NULL, t_ms INTEGER NOT NULL, data BLOB NOT NULL);

-- The last value of each topic that was published to be retained. Row id tables: payloads may be large.
CREATE TABLE retained (
    topic TEXT NOT NULL UNIQUE,
    stream INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    time_ms INTEGER NOT NULL,
    content_type TEXT NOT NULL,
    source_us INTEGER,
    expires_ms INTEGER,
    payload BLOB NOT NULL
);
