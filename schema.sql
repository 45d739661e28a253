-- The schema of webstatus, as the steps that have led to it. A file that has the first ones is given the others. A step is never
-- changed; what is to be different becomes a step at the end, after a line like the one before the second.

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

-- Next step.

-- What people show of themselves beside their presence, each an option of its own.
ALTER TABLE users ADD COLUMN show_last_seen INTEGER NOT NULL DEFAULT 0 CHECK (show_last_seen IN (0, 1)); -- boolean: show when the user was active last
ALTER TABLE users ADD COLUMN show_resources INTEGER NOT NULL DEFAULT 0 CHECK (show_resources IN (0, 1)); -- boolean: show each connected client
ALTER TABLE users ADD COLUMN show_avatar    INTEGER NOT NULL DEFAULT 0 CHECK (show_avatar IN (0, 1));    -- boolean: show the picture
ALTER TABLE users ADD COLUMN show_nick      INTEGER NOT NULL DEFAULT 0 CHECK (show_nick IN (0, 1));      -- boolean: show the nickname
ALTER TABLE users ADD COLUMN search_engines INTEGER NOT NULL DEFAULT 0 CHECK (search_engines IN (0, 1)); -- boolean: search engines may list the page
ALTER TABLE users ADD COLUMN lang           TEXT    NOT NULL DEFAULT ''; -- in which we write to the user unasked, BCP 47; empty if not known
ALTER TABLE users ADD COLUMN gone           INTEGER; -- since when the user's server says that there is no such account, Unix time in seconds; else NULL

-- Nickname and picture of those who show them, written behind.
CREATE TABLE profiles (
	jid           TEXT NOT NULL PRIMARY KEY REFERENCES users (jid) ON DELETE CASCADE, -- bare JID
	nick          TEXT NOT NULL, -- empty for none
	avatar        BLOB NOT NULL, -- as we have encoded it, PNG or JPEG; empty for none
	avatar_id     TEXT NOT NULL, -- SHA-1 of the picture as the user has published it, hexadecimal
	avatar_source TEXT NOT NULL  -- pep or vcard
) STRICT;
