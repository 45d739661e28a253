-- The schema of webstatus, as a list of migrations. A released migration is never changed: append a new one, after a separator line
-- like the one below.

-- Registered users and their options. A change is committed before it is confirmed to the user.
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

-- The last status of each user, stored asynchronously. It is shown after a restart until the server has answered the probes.
CREATE TABLE presence (
	jid      TEXT    NOT NULL PRIMARY KEY REFERENCES users (jid) ON DELETE CASCADE, -- bare JID
	state    TEXT    NOT NULL, -- chat, available, away, xa, dnd, unavailable or unknown
	since    INTEGER,          -- when the state began, Unix time in milliseconds; NULL if not known
	messages TEXT    NOT NULL  -- status messages, JSON: [{"lang": BCP 47, "body": text}]
) STRICT, WITHOUT ROWID;

-- Removed users whose subscriptions are still to be canceled on the XMPP side.
CREATE TABLE withdrawals (
	jid TEXT NOT NULL PRIMARY KEY -- bare JID
) STRICT, WITHOUT ROWID;

-- One row: when the link to the XMPP server was last known to be up.
CREATE TABLE link (
	id   INTEGER NOT NULL PRIMARY KEY CHECK (id = 1), -- always 1
	seen INTEGER NOT NULL                             -- Unix time in seconds
) STRICT;

-- Next migration.

-- More options, one per field that users may show.
ALTER TABLE users ADD COLUMN show_last_seen INTEGER NOT NULL DEFAULT 0 CHECK (show_last_seen IN (0, 1)); -- boolean: show when the user was last active
ALTER TABLE users ADD COLUMN show_resources INTEGER NOT NULL DEFAULT 0 CHECK (show_resources IN (0, 1)); -- boolean: show each connected client
ALTER TABLE users ADD COLUMN show_avatar    INTEGER NOT NULL DEFAULT 0 CHECK (show_avatar IN (0, 1));    -- boolean: show the avatar
ALTER TABLE users ADD COLUMN show_nick      INTEGER NOT NULL DEFAULT 0 CHECK (show_nick IN (0, 1));      -- boolean: show the nickname
ALTER TABLE users ADD COLUMN search_engines INTEGER NOT NULL DEFAULT 0 CHECK (search_engines IN (0, 1)); -- boolean: search engines may list the page
ALTER TABLE users ADD COLUMN lang           TEXT    NOT NULL DEFAULT ''; -- language of unsolicited messages to the user, BCP 47; empty if unknown
ALTER TABLE users ADD COLUMN gone           INTEGER; -- since when the user's server reports that the account does not exist, Unix time in seconds; NULL if it does not

-- Nicknames and avatars of users who show them, stored asynchronously.
CREATE TABLE profiles (
	jid           TEXT NOT NULL PRIMARY KEY REFERENCES users (jid) ON DELETE CASCADE, -- bare JID
	nick          TEXT NOT NULL, -- empty for none
	avatar        BLOB NOT NULL, -- as we have encoded it, PNG or JPEG; empty for none
	avatar_id     TEXT NOT NULL, -- SHA-1 of the picture as the user has published it, hexadecimal
	avatar_source TEXT NOT NULL  -- pep or vcard
) STRICT;

-- Next migration.

-- Our two addresses: 0 is the domain, 1 is bot@ the domain.
ALTER TABLE users       ADD COLUMN contact INTEGER NOT NULL DEFAULT 0 CHECK (contact IN (0, 1)); -- the address that writes to the user and sends our presence
ALTER TABLE users       ADD COLUMN granted INTEGER NOT NULL DEFAULT 0 CHECK (granted IN (0, 1)); -- the address that sees the user's presence
ALTER TABLE withdrawals ADD COLUMN contact INTEGER NOT NULL DEFAULT 0 CHECK (contact IN (0, 1)); -- as in users
ALTER TABLE withdrawals ADD COLUMN granted INTEGER NOT NULL DEFAULT 0 CHECK (granted IN (0, 1)); -- as in users

-- Next migration.

ALTER TABLE users ADD COLUMN post_changes INTEGER NOT NULL DEFAULT 0 CHECK (post_changes IN (0, 1)); -- boolean: changes are posted to the operator's webhook

-- Next migration.

-- Options of rich presence.
ALTER TABLE users ADD COLUMN show_activity INTEGER NOT NULL DEFAULT 0 CHECK (show_activity IN (0, 1)); -- boolean: show the activity
ALTER TABLE users ADD COLUMN show_mood     INTEGER NOT NULL DEFAULT 0 CHECK (show_mood IN (0, 1));     -- boolean: show the mood
ALTER TABLE users ADD COLUMN show_tune     INTEGER NOT NULL DEFAULT 0 CHECK (show_tune IN (0, 1));     -- boolean: show the tune

-- Next migration.

ALTER TABLE users ADD COLUMN privileged INTEGER NOT NULL DEFAULT 0 CHECK (privileged IN (0, 1)); -- boolean: the server, not the user, lets us see the presence (XEP-0356)
