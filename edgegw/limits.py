"""Every bound of the gateway, each with its reason. A number that stands elsewhere is a defect."""

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB

# --- messages -----------------------------------------------------------------------------------
# MQTT 1.5.4: a UTF-8 string is at most 65,535 bytes long.
TOPIC_BYTES_MAX: Final = 65_535
# Deeper topics are an attack on the matcher, not a naming scheme.
TOPIC_LEVELS_MAX: Final = 128
# One request body, and so one payload or batch; also one commit at most (see COMMIT_BYTES_MAX).
BODY_BYTES_MAX: Final = MIB
# A key is a UUID or `gateway/epoch/stream/seq`; 255 bytes hold both with room.
KEY_BYTES_MAX: Final = 255
# RFC 6838 4.2: type and subtype at most 127 characters each.
CONTENT_TYPE_BYTES_MAX: Final = 255
# Ten years: beyond it a TTL is a typing error, and it keeps expiry inside 63 bits of milliseconds.
TTL_S_MAX: Final = 10 * 366 * 86_400

# --- keys ---------------------------------------------------------------------------------------
# CONTRACT: a key is kept this long …
KEY_AGE_S_MAX: Final = 86_400
# … or until this many newer ones of its stream, whichever ends first.
KEYS_PER_STREAM_MAX: Final = 100_000
# Blocks of keys that one turn removes: more than the commits of a second, each of which may make one.
KEY_BLOCKS_PER_TURN: Final = 10_000

# Gateways that send to this one, by link: a row of about 100 bytes each.
PRODUCERS_MAX: Final = 10_000
# Gaps in what one of them sent: its lanes leave a few dozen, and what is under way as many again.
PRODUCER_RUNS_MAX: Final = 1024

# --- names --------------------------------------------------------------------------------------
# Names of streams and consumers stand in URLs, metric labels and file names.
NAME_BYTES_MAX: Final = 64
# Each consumer costs a count per chunk and a window in memory.
CONSUMERS_MAX: Final = 256
# Stream numbers are 15 bits of a chunk's row id; each stream costs a chunk under construction.
STREAMS_MAX: Final = 64

# --- bus ----------------------------------------------------------------------------------------
# Topics whose matches are remembered: about 200 bytes each, so 1 MiB as a rule; 3 MiB when all have as many as may be.
MATCH_CACHE_MAX: Final = 4096
# Matches of a topic that are remembered; with more, telling them costs far more than finding them, and they would not fit.
MATCHES_CACHED_MAX: Final = 64
# A subscription's window: the reference figure; what does not fit is read back from disk.
WINDOW_MESSAGES_MAX: Final = 500
# The same window in bytes, whichever comes first; one larger message still passes alone.
WINDOW_BYTES_MAX: Final = 512 * KIB
# Live subscriptions at once; each holds a window.
SUBSCRIPTIONS_MAX: Final = 20_000
# Unacknowledged messages a consumer may hold: bounds its record on disk (8 bytes each) and its place in memory.
INFLIGHT_MAX: Final = 10_000
# A consumer's acknowledgement may take this long at most; longer is a consumer that is gone.
ACK_WAIT_S_MAX: Final = 86_400
# The same when nothing was said.
ACK_WAIT_S_DEFAULT: Final = 30.0
# Deliveries before a message becomes a dead letter.
DELIVER_MAX: Final = 1_000_000
# Gap records a consumer has not read yet; older ones are merged, with their counts, so the record stays small.
CONSUMER_GAPS_MAX: Final = 16

# --- journal ------------------------------------------------------------------------------------
# A chunk is closed once it holds this much: the unit of eviction, and what one read holds in memory.
CHUNK_BYTES: Final = 256 * KIB
# The same in messages: keeps decoding one chunk under 5 ms on a slow core.
CHUNK_MESSAGES: Final = 4096
# One commit takes at most this much, so that it stays under about 50 ms on slow flash.
COMMIT_BYTES_MAX: Final = 2 * MIB
# Above this much waiting for the writer, publishers wait (and get 429 at their deadline). Four full bodies.
QUEUE_BYTES_MAX: Final = 4 * MIB
# Publishers that may wait for the queue at once; more are refused at once.
QUEUE_WAITERS_MAX: Final = 4096
# The WAL is copied into the database beyond this: large enough that hot pages are copied once for many commits.
WAL_CHECKPOINT_BYTES: Final = 3 * MIB
# Beyond this the writer waits for readers so that the WAL can start over: recovery at start reads all of it.
WAL_BYTES_MAX: Final = 6 * MIB
# How long that wait may take; a reader holds its snapshot for one chunk batch.
WAL_BUSY_MS: Final = 1000
# Page cache of the writer: its hot pages are the tail of each table; of the reader: it streams.
CACHE_KIB: Final = 1024
# What a chunk's row costs beside its blob: key, columns, cell and page overhead.
CHUNK_ROW_BYTES: Final = 48
# Default bound of a stream, unless a quarter of the free space is less.
STREAM_BYTES_MAX: Final = 512 * MIB
# Bound of the dead-letter stream, likewise.
DEAD_LETTER_BYTES_MAX: Final = 64 * MIB
# The smallest bound that holds a batch and its successor.
STREAM_BYTES_MIN: Final = 64 * KIB
# Evict this much more than needed, as a part of the bound, so that not every commit evicts.
EVICT_SLACK: Final = 64
# Chunks looked at for age and TTL in one turn, and chunks found to be held: a backlog must not hold up publishers.
EVICT_CHUNKS_PER_TURN: Final = 64
# Runs of gone messages a stream remembers apart; beyond it the oldest are merged.
STREAM_GAPS_MAX: Final = 64
# Topics with a retained value. Each is a row of its own; a runaway topic scheme must not fill the disk unseen.
RETAINED_MAX: Final = 20_000
# Chunks one read returns at most: a read transaction is short, or the WAL cannot start over.
READ_CHUNKS: Final = 8
# The same for a link, which reads a long way: chunks of single messages are small.
BLOCK_CHUNKS: Final = 64
# Chunk bytes one read returns at most (one larger chunk passes alone).
READ_BYTES: Final = 512 * KIB
# How often age, TTL and keys are looked at, and deliveries that nobody fetches become dead letters.
TICK_S: Final = 1.0

# --- configuration: what an operator may write ---------------------------------------------------
# A configuration is a few KiB; more is a wrong path (a database, a device), which must not fill the memory.
CONFIG_FILE_BYTES_MAX: Final = MIB
# Files in conf.d: more than one per stream is a script gone wrong, and each costs time at every start.
CONFIG_FILES_MAX: Final = 256
# Faults printed at once: a supervisor restarts a gateway that does not start, and prints them again each time.
CONFIG_FAULTS_SHOWN_MAX: Final = 100
# Characters of a wrong value that an error repeats: enough to find it, short enough for a line.
CONFIG_SHOWN_CHARACTERS_MAX: Final = 60
# How often the files are looked at; a change is taken up after two looks that agree. A person who saved a file waits that long.
CONFIG_WATCH_S: Final = 2.0
# Ports have 16 bits.
PORT_MAX: Final = 65_535
# systemd kills 90 s after SIGTERM unless told otherwise; the last flush needs some of them.
STOP_TIMEOUT_S_MAX: Final = 80
# Connections cost about 20 KiB and a descriptor each: 16,384 are 320 MiB, the most a board has to give.
CONNECTIONS_MAX: Final = 16_384
# Descriptors beside those of clients: the store, listening sockets, links with their connections, files that are read.
FILES_OWN_MAX: Final = 1024
# Below, the ordinary fsync of a tired SD card is already an error.
REQUEST_TIMEOUT_S_MIN: Final = 0.1
# Above, clients and proxies have given up (60 s is their usual default), and the answer reaches nobody.
REQUEST_TIMEOUT_S_MAX: Final = 60
# SQLite's largest database of 4,096-byte pages is just under 2^44 bytes.
STREAM_BYTES_SETTING_MAX: Final = 2**44 - 2 * 4096
# Sequence numbers have 48 bits beside the 15 of the stream number (see STREAMS_MAX).
STREAM_ROWS_MAX: Final = 2**48 - 1
# The longest a message may live by its own TTL is the longest a stream may keep it by age.
STREAM_AGE_S_MAX: Final = TTL_S_MAX
# Topic filters of one stream: each is a path in the matcher; more are a list that wants a wildcard.
STREAM_FILTERS_MAX: Final = 256

# A link's upstream that cannot be reached within this is not there; the rest of the time is for the request.
LINK_CONNECT_S: Final = 10.0
# An idle connection is closed before the usual server (60 to 75 s) does, or the next request would find it gone.
LINK_KEEP_ALIVE_S: Final = 30.0
# What is read of an upstream's answer: enough for its words; an answer that does not end is left behind.
LINK_ANSWER_BYTES_MAX: Final = 64 * KIB
# Its status has come: more words are not worth a longer wait.
LINK_ANSWER_S: Final = 5.0
# The longest wait an upstream may ask for: a wrong clock on one side must not stop a link for years.
LINK_RETRY_AFTER_S_MAX: Final = 900.0
# Words of an upstream that stand in a condition or a log line.
LINK_WORDS_MAX: Final = 200
# Failures in a row after which a link stops asking and lets one request find out.
LINK_BREAK_AFTER: Final = 3
# First wait of a link: a passing fault costs little.
LINK_BACKOFF_FIRST_S: Final = 0.5
# The longest: a gateway that comes back meets its devices within a minute.
LINK_BACKOFF_CAP_S: Final = 60.0
# Bytes of a request of a link, by what its messages cost: with base64 it stays under the 1 MiB a gateway takes.
LINK_BATCH_BYTES: Final = 384 * KIB
# An upstream that says 413 gets smaller requests, down to this.
LINK_BATCH_BYTES_MIN: Final = 16 * KIB
# Tries after which a request that does not get through is cut in halves: fewer are an ordinary mishap.
LINK_CUT_AFTER: Final = 3
# Parcels that were taken and not recorded, because the disk is slow or full; then the link waits, for a crash would repeat them.
LINK_UNRECORDED_MAX: Final = 256
# Blocks that the backlog lane of a link reads ahead: a few requests, so that the next is there.
LINK_AHEAD_BLOCKS: Final = 8
# Messages that its live lane holds: a few requests as well.
LINK_AHEAD_MESSAGES: Final = 3000
# Bytes in either of them, whichever comes first: with what is under way about 3 MiB a link.
LINK_AHEAD_BYTES: Final = 768 * KIB
# A live lane that is this many messages behind …
LINK_SKIP_MESSAGES: Final = 2000
# … the first of which is this old, is not live: it goes on with the newest.
LINK_SKIP_S: Final = 1.0
# Ranges that a link has skipped; beyond it the live lane waits instead.
LINK_HOLES_MAX: Final = 64
# Messages refused in a row, none taken in between, after which it is the link that is wrong, and no message.
LINK_REFUSED_MAX: Final = 10
# How often a link without traffic looks after its ranges and its conditions.
LINK_IDLE_S: Final = 2.0
# What the upstream took is recorded this often: each record is a commit, and wears the card …
LINK_RECORD_S: Final = 1.0
# … or after so many requests, whichever comes first: after a crash they go out again.
LINK_RECORD_PARCELS: Final = 16
# Numbers in which nothing matched that are recorded without a request to go with them; fewer wait for one …
LINK_REST_NUMBERS: Final = 1000
# … or for this long.
LINK_REST_S: Final = 60.0
# The upstream has been gone this long: the gateway works on its own, and says so.
LINK_AUTONOMY_S: Final = 900.0

# What a batch between gateways may have beyond a body: the largest message there is goes on with its names and numbers.
COLUMNS_EXTRA_BYTES: Final = 128 * KIB
# Links: each holds a window of messages in memory and a few connections.
LINKS_MAX: Final = 16
# Messages in a request of a link: fifty requests to send what fits into a body.
LINK_BATCH_MESSAGES_MAX: Final = 10_000
# Requests a link may have under way: beyond it a slow upstream gets slower.
LINK_CONCURRENCY_MAX: Final = 32
# A rate limit above it limits nothing.
LINK_RATE_MAX: Final = 1_000_000_000
# An upstream that takes longer for a request is one that hangs.
LINK_TIMEOUT_S_MAX: Final = 600

# --- readings of the machine itself --------------------------------------------------------------
# Less often than once a day is off.
HOST_INTERVAL_S_MAX: Final = 86_400
# More often than this the machine would mostly look at itself.
HOST_INTERVAL_S_MIN: Final = 0.1
# The first round waits until the start is over.
HOST_FIRST_S: Final = 1.0
# Interfaces, devices and sensors, of each kind: a board has a dozen, a host of containers may have thousands.
HOST_PARTS_MAX: Final = 64
# /proc/stat of 64 processors and /proc/net/dev of 200 interfaces fit; what is beyond is left out.
HOST_FILE_BYTES_MAX: Final = 64 * KIB
# A board's round is about 2 KB: half a day of them at 10 s.
HOST_BYTES_MAX: Final = 8 * MIB
# What happened last night is asked for, what happened last week is for an upstream to keep.
HOST_AGE_S_MAX: Final = 86_400.0

# --- the command line as a client ---------------------------------------------------------------
# A gateway answers a publish within its own request limit (10 s); three times that is a gateway that hangs.
CLIENT_TIMEOUT_S: Final = 30.0
# The longest answer is a page of messages or the receipts of one batch; more is not a gateway.
CLIENT_ANSWER_BYTES_MAX: Final = 16 * MIB
# Words of the other side that stand in an error line; longer ones push the rest off the screen.
CLIENT_WORDS_MAX: Final = 300

# What `message publish --lines` reads, and so sends, at once: a quarter of a body, so that base64 and names still fit into one.
PUBLISH_LINES_BYTES: Final = BODY_BYTES_MAX // 4
# Messages that `message list` prints unless told otherwise: a few screens.
LIST_MESSAGES: Final = 100
# Messages that `message list --last` holds in memory before it prints them.
LIST_LAST_MAX: Final = 100_000
# `message tail` comes back after a restart of the gateway within a moment, and to one that is gone within this.
TAIL_RETRY_CAP_S: Final = 5.0

# --- edgegw check -------------------------------------------------------------------------------
# The release is of this year: a clock that says less was never set.
CLOCK_YEAR_MIN: Final = 2026
# Messages that arrived later than now by more than this show that the clock was set back, and not just corrected.
CLOCK_JUMP_S: Final = 60.0
# The ordinary WAL, a checkpoint's growth and a log: with less the next commit may be the last.
CHECK_FREE_BYTES_MIN: Final = 32 * MIB
# A gateway has a dozen files; its neighbours share the rest.
CHECK_INODES_MIN: Final = 200
# What the gateway takes at full load, with room for a spike.
CHECK_MEMORY_BYTES_MIN: Final = 64 * MIB
# How long a link's upstream has to take a connection and shake hands: a person waits for the line.
CHECK_CONNECT_S: Final = 3.0
# Lines of the kernel's table of locks that are looked at: it has one for each lock of each process.
CHECK_LOCKS_BYTES_MAX: Final = MIB

# --- replay -------------------------------------------------------------------------------------
# Readings in a request: large enough that an fsync per request does not count, small enough to stay far under BODY_BYTES_MAX.
REPLAY_BATCH: Final = 500
# What --batch may ask for: beyond it the bytes of a request end the batch anyway.
REPLAY_BATCH_MAX: Final = 10_000
# A restart after a kill takes seconds, a reboot less than a minute: replay rides out both.
REPLAY_RETRY_S: Final = 60.0
# First wait before a batch is sent again: a gateway that restarts is back in about this order.
REPLAY_RETRY_FIRST_S: Final = 0.1
# Longest wait before a batch is sent again: a person is looking on.
REPLAY_RETRY_CAP_S: Final = 2.0
# While replay waits for the next reading's time, it shows at least this often that it lives.
REPLAY_NAP_S: Final = 1.0
# Rows that are looked at to find delimiter, decimal sign and form of time: enough hourly rows to meet a day above 12.
SNIFF_ROWS_MAX: Final = 500
# The same in characters, whichever comes first, so that rows of a megabyte do not fill the memory.
SNIFF_CHARS_MAX: Final = MIB
# The first of them leave only the forms of time that are likely; see cli/recorded_time.
SNIFF_FIRST_ROWS: Final = 10
# A longer line could not be sent anyway, and the rest of it is not read into memory.
RECORD_LINE_CHARS_MAX: Final = BODY_BYTES_MAX
# The bar moves smoothly, and costs nothing beside the requests.
PROGRESS_REDRAW_S: Final = 0.1
# Where no terminal is, a log gets a line this often.
PROGRESS_LINE_S: Final = 10.0

# --- observation --------------------------------------------------------------------------------
# PIPE_BUF of Linux: a pipe that polls as writable takes a line up to this long at once, whole, without blocking.
LOG_LINE_BYTES_MAX: Final = 4 * KIB
# One value of a line: a topic, a path or a hint fits; a payload does not belong there.
LOG_VALUE_CHARS_MAX: Final = 512
# Logger and event stand in every line and are literals of ours; a foreign name must not push the rest out.
LOG_NAME_CHARS_MAX: Final = 64
# Entries of a list or a mapping that a line shows: the first ones tell what it holds.
LOG_ENTRIES_MAX: Final = 16
# Lists inside lists that a line shows; also what ends a value that contains itself.
LOG_DEPTH_MAX: Final = 3
# Innermost frames of a trace: they hold the fault, the outer ones are the event loop's.
LOG_FRAMES_MAX: Final = 12
# Causes below an error that a line shows: ours wrap once, libraries once more.
LOG_CAUSES_MAX: Final = 2
# The same event more often than this in one window is counted, not written: 20 lines tell what a million would …
LOG_REPEATS_MAX: Final = 20
# … and at 4 KiB a line one event fills at most 0.7 GB a day, which journald and logrotate keep up with.
LOG_REPEATS_WINDOW_S: Final = 10.0
# Events counted apart: more than the source has; foreign loggers count by place in the source. Beyond it they share a count.
LOG_EVENTS_MAX: Final = 512
# A reader of our stderr that stalls may hold up the event loop this long, once; then lines are dropped until it reads.
LOG_STALL_MS: Final = 50
# Label sets of one metric: every consumer with every reason for a loss. About 200 bytes each, so 0.4 MiB at the most.
METRIC_LABEL_SETS_MAX: Final = CONSUMERS_MAX * 8
# A label is a name of ours or a method, route or status; longer ones come from outside and are cut.
METRIC_LABEL_CHARS_MAX: Final = 128

# --- supervisor and services --------------------------------------------------------------------
# A supervisor that takes no datagram for this long is not going to; the event loop stands still meanwhile.
NOTIFY_SEND_S: Final = 0.25
# Sockets a supervisor may hand over: HTTP and MQTT, each on TCP (both families), TLS and Unix, and room.
LISTEN_FDS_MAX: Final = 32
# First wait before a crashed service starts again: a passing fault costs little.
SERVICE_BACKOFF_FIRST_S: Final = 0.5
# Longest wait: a peer that is back after hours is found within a minute.
SERVICE_BACKOFF_CAP_S: Final = 60.0
# Doubling reaches the cap after seven crashes.
SERVICE_BACKOFF_FACTOR: Final = 2.0
# Half of the wait is by chance, so that services that fell together do not start together, and no restart is at once.
SERVICE_BACKOFF_JITTER: Final = 0.5
# A service that ran this long is healthy again: its condition is cleared, its back-off starts over. The cap, so that a
# service that crashes at each try never looks healthy between two of them.
SERVICE_HEALTHY_S: Final = SERVICE_BACKOFF_CAP_S
# A service that is told to stop has this long; then it is left behind and named in the log.
SERVICE_STOP_S: Final = 5.0
# Counting what a new consumer matches starts over when chunks leave the stream meanwhile; so often at most.
COUNT_RETRIES_MAX: Final = 5
# How long a publish inside the process waits for a queue that is full before it fails.
PUBLISH_WAIT_S: Final = 30.0

# --- HTTP ---------------------------------------------------------------------------------------
# CONTRACT: from accept, or the first byte of a later request, to the blank line.
HEAD_S_MAX: Final = 5.0
# CONTRACT: from the blank line to the end of the body.
BODY_S_MAX: Final = 10.0
# CONTRACT: an idle connection is closed after this.
KEEP_ALIVE_S: Final = 75.0
# How often deadlines are looked at: no timer per request, at the price of being late by this much.
DEADLINE_SWEEP_S: Final = 0.25
# A request line and each header: a topic of 4 KiB, percent-encoded, fits; longer topics go in a batch.
HEADER_LINE_BYTES_MAX: Final = 16 * KIB
# Messages in one batch: 1 MiB of the shortest.
BATCH_MESSAGES_MAX: Final = 50_000
# CONTRACT: how long a fetch may wait for messages.
FETCH_WAIT_S_MAX: Final = 30.0
# Messages in one answer: bounds the memory of a request, at 500 the window of a subscription.
PAGE_MESSAGES_MAX: Final = 1000
# Retained values in one answer; with more topics, ask for a narrower filter.
RETAINED_PAGE_MAX: Final = 10_000
# Payload bytes in one answer, likewise.
PAGE_BYTES: Final = 4 * MIB
# Retry-After of 429: a commit is rarely longer.
RETRY_BUSY_S: Final = 1
# Retry-After of 503: what fills or stops a store takes a person or an eviction.
RETRY_STORE_S: Final = 5
# Characters of a request id that is taken over from the client.
REQUEST_ID_CHARS_MAX: Final = 64
# Connections that wait in the kernel while the loop is busy or a restart is under way.
LISTEN_BACKLOG: Final = 512
# The work of a request gives up this much before its connection's deadline, so that it can say what it waited for.
DEADLINE_SLACK_S: Final = 0.5
# Single messages collected for one place in a commit: small against the smallest stream, so that one tray never fills it.
TRAY_BYTES: Final = 8 * KIB
# A gateway whose writer made no turn for this long cannot do its job: /healthz says so.
HEALTH_STALL_S: Final = 10.0
# The writer thread may wait this long for the interpreter lock while the loop computes; 5 ms, the default, is many commits.
SWITCH_INTERVAL_S: Final = 0.0002
# How often the lag of the event loop is sampled: often enough for a percentile in a minute, seldom enough to cost nothing.
LOOP_LAG_EVERY_S: Final = 0.1
# Buckets of durations in µs: an fsync on an SSD is 200, on a tired card 500,000.
LATENCY_BUCKETS_US: Final = (100, 250, 500, 1000, 2500, 5000, 10_000, 25_000, 50_000, 100_000, 500_000, 1_000_000, 5_000_000)
# Buckets of sizes in bytes: one reading to one commit.
BYTES_BUCKETS: Final = (128, 512, 2048, 8192, 32_768, 131_072, 524_288, 2_097_152)
# Publishers woken in one loop iteration after a commit: enough to be cheap, few enough that the next commit begins meanwhile.
WAKE_SLICE: Final = 256
# A fetch that waits looks again at the earliest after this.
FETCH_PAUSE_S: Final = 0.02
# Bytes of dead letters in one commit: a part of the smallest stream, so that they fit into any.
LETTERS_BYTES: Final = STREAM_BYTES_MIN // 4

# --- event streams ------------------------------------------------------------------------------
# A stream writes at most this often: half of the delay that is aimed at, and what came meanwhile shares one system call.
STREAM_PACE_S: Final = 0.002
# The same for each open stream: a write costs about 30 us, so all of them together leave most of the loop to others.
STREAM_PACE_EACH_S: Final = 0.0001
# A comment is sent after so long without an event: proxies drop what is silent for 30 to 60 s.
STREAM_COMMENT_S: Final = 15.0
# What is handed to a connection at once: beyond it the client has to take something first.
EVENT_SLICE_BYTES: Final = 64 * KIB
# Bytes of encoded rows that are remembered for the other streams they go to: the newest.
EVENT_ROWS_BYTES: Final = MIB
# The same in number: short rows cost their place in a table as well.
EVENT_ROWS_MAX: Final = 2048
# Windows of all live subscriptions together: beyond 128 full ones each gets less …
SUBSCRIPTIONS_BYTES: Final = 64 * MIB
# … and never less than this, a few messages of 4 KiB.
WINDOW_BYTES_MIN: Final = 16 * KIB

# --- access -------------------------------------------------------------------------------------
# 256 bits: nobody guesses one, whatever the rate.
TOKEN_RANDOM_BYTES: Final = 32
# How long `edgegw token` waits for a data folder that somebody has who does not answer: a gateway starts in less.
TOKEN_FOLDER_S: Final = 3.0
# All are held in memory, about 1 KiB each, more with topics; a fleet of devices with a token each fits.
TOKENS_MAX: Final = 4096
# Topic filters of one token: more are a list that wants a wildcard.
TOKEN_TOPICS_MAX: Final = 64
# Bytes of all topic filters of one token: with TOKENS_MAX of the largest, 16 MiB.
TOKEN_TOPICS_BYTES_MAX: Final = 4 * KIB
# A token must live long enough to be used once …
TOKEN_EXPIRY_S_MIN: Final = 1
# … and ten years are for ever.
TOKEN_EXPIRY_S_MAX: Final = 10 * 366 * 86_400
# Supplementary groups of a peer that are looked at: what one getsockopt of Python's brings, four bytes each.
PEER_GROUPS_MAX: Final = 256
# sun_path of struct sockaddr_un has 108 bytes, one of them the NUL.
UNIX_PATH_BYTES_MAX: Final = 107
# How long the making of a Unix socket waits for another gateway that makes one in the same folder, which takes a millisecond.
SOCKET_FOLDER_S: Final = 0.5
# A chain of certificates has some KiB; more is a wrong path.
CERTIFICATE_BYTES_MAX: Final = MIB
# So long before a certificate expires its condition is raised: the one after it is usually a third of its life old by then.
CERTIFICATE_WARNING_S: Final = 30 * 86_400
# How often its dates are looked at.
CERTIFICATE_LOOK_S: Final = 3600.0
# TLS sends records of at most so many bytes of plain text, RFC 8446 section 5.1.
TLS_RECORD_BYTES: Final = 16 * KIB
# What OpenSSL may say of its own accord on one connection after its handshake: 2,000 key updates. One is due in 2^24 records.
TLS_UNASKED_BYTES_MAX: Final = 64 * KIB
# Connections over TLS at once, handshakes under way included; http.connections_max bounds them together with the others.
# 64 MiB are what a board with 256 has to give. One costs 40 KiB: measured with 800 of them after a request each it is 35, a
# plain one 13, and it has a little more in its handshake.
TLS_CONNECTIONS_MAX: Final = 64 * MIB // (40 * KIB)
# How long a change of state.db waits for another program that looks into it.
STATE_BUSY_S: Final = 5.0
# Topics whose match is remembered for one narrow token: a device has few.
CALLER_MATCHES_CACHED_MAX: Final = 64

# --- HTTP connections ---------------------------------------------------------------------------
# When all connections are taken, one that has not sent a whole head for this long makes room first: honest ones take less.
HEAD_PATIENCE_S: Final = 1.0
# Connections of the Unix socket beyond the bound: whoever fills it from outside does not keep the operator out.
UNIX_CONNECTIONS_EXTRA: Final = 16
# Requests that a client sends ahead of an answer: eight ordinary ones; what is beyond waits in the kernel, not in our memory.
EARLY_BYTES_MAX: Final = 64 * KIB
# Paths of topics that are remembered decoded, as many as topics with their matches: ordinary ones.
KNOWN_PATH_CHARS_MAX: Final = 128
# An answer up to this length is written in one piece, beside its head; a client that takes none holds one at most.
SHORT_ANSWER_BYTES: Final = 16 * KIB
# A head as a whole: a request line and three headers of the longest kind, or a hundred ordinary ones.
HEAD_BYTES_MAX: Final = 64 * KIB
# What a client sends after its answer is read this long: it sees the answer instead of a reset.
LINGER_S_MAX: Final = 2.0
# How long an answer may wait in memory for a client that does not take it: the largest page over a line of 70 KB/s.
TAKE_S_MAX: Final = 60.0
# When the start is over and memory is put in order.
SETTLE_S: Final = 1.0
