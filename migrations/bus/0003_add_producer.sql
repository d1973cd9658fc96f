-- Which numbers of a sending gateway are stored here: runs = msgpack [[first, last], ...]. See store/producers.py.
CREATE TABLE producer (origin TEXT PRIMARY KEY, t_ms INTEGER NOT NULL, runs BLOB NOT NULL) WITHOUT ROWID;
