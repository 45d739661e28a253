-- A database as the first version with PostgreSQL made it, with what it may have held.

-- One row: marks the schema as one of webstatus.
CREATE TABLE webstatus (
	version INTEGER NOT NULL -- number of migrations applied
);

-- Registered users and their options. A change is committed before it is confirmed to the user.
CREATE TABLE users (
	jid             TEXT    COLLATE "C" NOT NULL PRIMARY KEY,          -- bare JID, normalized (RFC 7622)
	token           BYTEA   NOT NULL UNIQUE CHECK (length(token) = 16), -- random part of the web address, 128 bits
	show_status_msg BOOLEAN NOT NULL, -- show the status message
	show_full_jid   BOOLEAN NOT NULL, -- show the JID
	jid_link        BOOLEAN NOT NULL, -- answer at the address made from the JID
	show_last_seen  BOOLEAN NOT NULL, -- show when the user was last active
	show_resources  BOOLEAN NOT NULL, -- show each connected client
	show_avatar     BOOLEAN NOT NULL, -- show the avatar
	show_nick       BOOLEAN NOT NULL, -- show the nickname
	search_engines  BOOLEAN NOT NULL, -- search engines may list the page
	subscription    TEXT    NOT NULL CHECK (subscription IN ('none', 'to', 'from', 'both')), -- from our side (RFC 6121)
	asked           BOOLEAN NOT NULL, -- we asked to subscribe and await the answer
	contact         SMALLINT NOT NULL CHECK (contact IN (0, 1)), -- which of our addresses writes to the user and sends our presence: 0 is the domain, 1 is bot@ the domain
	granted         SMALLINT NOT NULL CHECK (granted IN (0, 1)), -- which of them sees the user's presence
	created         BIGINT  NOT NULL, -- when the user registered, Unix time in seconds
	lang            TEXT    NOT NULL, -- language of unsolicited messages to the user, BCP 47; empty if unknown
	gone            BIGINT,           -- since when the user's server reports that the account does not exist, Unix time in seconds; NULL if it does not
	changed         XID8    NOT NULL, -- transaction that changed the row last
	origin          TEXT    NOT NULL  -- name of the node that did, empty for a command
);
CREATE INDEX users_changed ON users (changed);

-- The last status of each user, stored asynchronously. It is shown after a restart until the server has answered the probes.
CREATE TABLE presence (
	jid      TEXT   COLLATE "C" NOT NULL PRIMARY KEY REFERENCES users ON DELETE CASCADE, -- bare JID
	state    TEXT   NOT NULL, -- chat, available, away, xa, dnd, unavailable or unknown
	since    BIGINT,          -- when the state began, Unix time in milliseconds; NULL if not known
	messages TEXT   NOT NULL  -- status messages, JSON: [{"lang": BCP 47, "body": text}]
);

-- Nicknames and avatars of users who show them, stored asynchronously.
CREATE TABLE profiles (
	jid           TEXT  COLLATE "C" NOT NULL PRIMARY KEY REFERENCES users ON DELETE CASCADE, -- bare JID
	nick          TEXT  NOT NULL, -- empty for none
	avatar        BYTEA NOT NULL, -- as we have encoded it, PNG or JPEG; empty for none
	avatar_id     TEXT  NOT NULL, -- SHA-1 of the picture as the user has published it, hexadecimal
	avatar_source TEXT  NOT NULL, -- pep or vcard
	changed       XID8  NOT NULL, -- transaction that changed the row last
	origin        TEXT  NOT NULL  -- name of the node that did
);
CREATE INDEX profiles_changed ON profiles (changed);

-- Removed users whose subscriptions are still to be canceled on the XMPP side.
CREATE TABLE withdrawals (
	jid     TEXT COLLATE "C" NOT NULL PRIMARY KEY, -- bare JID
	contact SMALLINT NOT NULL, -- as in users
	granted SMALLINT NOT NULL, -- as in users
	origin  TEXT NOT NULL DEFAULT coalesce(current_setting('webstatus.node', true), ''), -- name of the node that removed the user, empty for a command
	created TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp() -- when the user was removed
);

-- One row: when the link to the XMPP server was last known to be up.
CREATE TABLE link (
	id   INTEGER NOT NULL PRIMARY KEY CHECK (id = 1), -- always 1
	seen BIGINT  NOT NULL                             -- Unix time in seconds
);

-- Presence of the resources of a user, as one node has heard it. Only that node changes the row, unless it is dead or without a link.
CREATE TABLE resources (
	jid       TEXT COLLATE "C" NOT NULL REFERENCES users ON DELETE CASCADE, -- bare JID
	node      TEXT NOT NULL, -- name of the node
	resources TEXT NOT NULL, -- JSON, see storedPresence; [] for none
	changed   XID8 NOT NULL, -- transaction that changed the row last
	origin    TEXT NOT NULL, -- name of the node that did
	PRIMARY KEY (jid, node)
);
CREATE INDEX resources_changed ON resources (changed);
CREATE INDEX resources_online ON resources (node) WHERE resources <> '[]';

-- Users who have been removed, or whose profile has been, so that other nodes notice. Old rows are deleted.
CREATE TABLE deletions (
	jid     TEXT COLLATE "C" NOT NULL PRIMARY KEY, -- bare JID
	created TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(), -- when the row was deleted
	changed XID8 NOT NULL, -- transaction that deleted it
	origin  TEXT NOT NULL  -- name of the node that did, empty for a command
);
CREATE INDEX deletions_changed ON deletions (changed);

-- The nodes of the cluster. A node that is alive holds an advisory lock of its name, too.
CREATE TABLE nodes (
	name   TEXT NOT NULL PRIMARY KEY,    -- unique name
	seen   TIMESTAMPTZ NOT NULL,         -- last heartbeat
	linked BOOLEAN NOT NULL              -- its link to the XMPP server is up
);

-- The nodes that are alive: they have been seen within five seconds and hold the lock of their names (see database.join).
CREATE VIEW live_nodes AS
	SELECT name, linked FROM nodes WHERE seen > clock_timestamp() - interval '5 seconds' AND EXISTS (
		SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 2 AND classid = 2001957985
			AND objid = (hashtext('node ' || current_schema() || ' ' || name)::bigint & 4294967295)::oid
			AND database = (SELECT oid FROM pg_database WHERE datname = current_database()));

-- Records the transaction and the node that change a row.
CREATE FUNCTION note_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	NEW.changed := pg_current_xact_id();
	NEW.origin := coalesce(current_setting('webstatus.node', true), '');
	RETURN NEW;
END $$;
CREATE TRIGGER note_change BEFORE INSERT OR UPDATE ON users FOR EACH ROW EXECUTE FUNCTION note_change();
CREATE TRIGGER note_change BEFORE INSERT OR UPDATE ON profiles FOR EACH ROW EXECUTE FUNCTION note_change();
CREATE TRIGGER note_change BEFORE INSERT OR UPDATE ON resources FOR EACH ROW EXECUTE FUNCTION note_change();
CREATE TRIGGER note_change BEFORE INSERT OR UPDATE ON deletions FOR EACH ROW EXECUTE FUNCTION note_change();

-- Records that a row of a user has been deleted.
CREATE FUNCTION note_deletion() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO deletions (jid) VALUES (OLD.jid) ON CONFLICT (jid) DO UPDATE SET created = clock_timestamp();
	RETURN OLD;
END $$;
CREATE TRIGGER note_deletion AFTER DELETE ON users FOR EACH ROW EXECUTE FUNCTION note_deletion();
CREATE TRIGGER note_deletion AFTER DELETE ON profiles FOR EACH ROW EXECUTE FUNCTION note_deletion();

INSERT INTO webstatus VALUES (1);
INSERT INTO users (jid, token, show_status_msg, show_full_jid, jid_link, show_last_seen, show_resources, show_avatar, show_nick, search_engines,
	subscription, asked, contact, granted, created, lang)
	VALUES ('juliet@example.org', '\x0102030405060708090a0b0c0d0e0f10', true, false, true, false, false, false, false, false, 'both', false, 0, 0, 1764000000, '');
INSERT INTO presence VALUES ('juliet@example.org', 'away', 1764003600500, '[{"lang":"de","body":"Mittag"}]');
INSERT INTO withdrawals (jid, contact, granted) VALUES ('romeo@example.org', 0, 0);
INSERT INTO link VALUES (1, 1764003700);
