-- A file as the first release made it, with what it may have held.

-- Who is registered, with what they decided. The truth: a row is committed before the user is told so.
CREATE TABLE users (
	jid             TEXT    NOT NULL PRIMARY KEY,                   -- bare JID, normalised (RFC 7622)
	token           BLOB    NOT NULL UNIQUE CHECK (length(token) = 16), -- random part of the web address, 128 bits
	show_status_msg INTEGER NOT NULL CHECK (show_status_msg IN (0, 1)), -- boolean: show the status message
	show_full_jid   INTEGER NOT NULL CHECK (show_full_jid IN (0, 1)),   -- boolean: show the JID
	jid_link        INTEGER NOT NULL CHECK (jid_link IN (0, 1)),        -- boolean: answer at the address made from the JID
	subscription    TEXT    NOT NULL CHECK (subscription IN ('none', 'to', 'from', 'both')), -- from our side (RFC 6121)
	asked           INTEGER NOT NULL CHECK (asked IN (0, 1)),       -- boolean: we asked to subscribe and await the answer
	created         INTEGER NOT NULL                                -- when the user registered, Unix time in seconds
) STRICT, WITHOUT ROWID;

-- The last status of each user, written behind: what a restart shows until the server has been asked.
CREATE TABLE presence (
	jid      TEXT    NOT NULL PRIMARY KEY REFERENCES users (jid) ON DELETE CASCADE, -- bare JID
	state    TEXT    NOT NULL, -- chat, available, away, xa, dnd, unavailable or unknown
	since    INTEGER,          -- when the state began, Unix time in milliseconds; NULL if not known
	messages TEXT    NOT NULL  -- status messages, JSON: [{"lang": BCP 47, "body": text}]
) STRICT, WITHOUT ROWID;

-- Users who have left and whose contact is still to be withdrawn on the XMPP side.
CREATE TABLE withdrawals (
	jid TEXT NOT NULL PRIMARY KEY -- bare JID
) STRICT, WITHOUT ROWID;

-- One row: when the link to the XMPP server was last known to be up.
CREATE TABLE link (
	id   INTEGER NOT NULL PRIMARY KEY CHECK (id = 1), -- always 1
	seen INTEGER NOT NULL                             -- Unix time in seconds
) STRICT;

INSERT INTO users VALUES ('juliet@example.org', x'0102030405060708090a0b0c0d0e0f10', 1, 0, 1, 'both', 0, 1764000000);
INSERT INTO presence VALUES ('juliet@example.org', 'away', 1764003600500, '[{"lang":"de","body":"Mittag"}]');
INSERT INTO withdrawals VALUES ('romeo@example.org');
INSERT INTO link VALUES (1, 1764003700);
PRAGMA application_id = 2001957985;
PRAGMA user_version = 1;
