package main

import (
	"bytes"
	"encoding/json"
	"io"
	"slices"
	"strings"
	"testing"
)

// FuzzImport checks that the users in any file that can be imported are written by users export, and read again, as they are.
func FuzzImport(f *testing.F) {
	const line = `{"jid":"juliet@example.org","token":"aaaaaaaaaaaaaaaaaaaaaaaaaa","options":{"jid_link":true},"subscription":"both","asked":true,"contact":"bot","registered":"2026-11-22T12:00:00Z","lang":"de"}`
	for _, seed := range []string{line, line + "\n\n" + line, line + line, strings.Replace(line, "juliet", "Ⅷ", 1), "{}", "[", `{"jid":"a@b","extra":1}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		users, _, err := readUserLines(bytes.NewReader(file))
		if err != nil {
			return
		}
		var exported bytes.Buffer
		lines := json.NewEncoder(&exported)
		for _, u := range users {
			if err := lines.Encode(newUserLine(u)); err != nil {
				t.Fatalf("%q: %v", file, err)
			}
		}
		again, _, err := readUserLines(bytes.NewReader(exported.Bytes()))
		same := func(a, b User) bool {
			at, bt := a.Created, b.Created
			a.Created, b.Created = noon, noon
			return a == b && at.Equal(bt)
		}
		if err != nil || !slices.EqualFunc(users, again, same) {
			t.Errorf("%q: %v\n%+v\n%+v", file, err, users, again)
		}
	})
}

// FuzzImportEjabberd checks that a dump of ejabberd's table is read completely or not at all, and only with valid JIDs.
func FuzzImportEjabberd(f *testing.F) {
	for _, seed := range []string{
		`{webpresence,{<<"juliet">>,<<"example.org">>},false,true,true,false,false,true,<<"---">>}.`,
		`{webpresence,{"romeo","example.org"},"abc",true,false,true,false,false,disabled}.`,
		`{webpresence,{<<106,117>>,<<"b">>},<<"x">>,false,false,false,false,false,"\">"}.`, `{webpresence,{<<"a`, `{tables,[{webpresence,[]}]}.`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, dump []byte) {
		users, _, err := readEjabberdDump(bytes.NewReader(dump))
		if err != nil {
			return
		}
		if len(users) > bytes.Count(dump, []byte("webpresence")) {
			t.Errorf("%q: %d users", dump, len(users))
		}
		for _, u := range users {
			if bare, err := parseBareJID(u.JID); err != nil || bare != u.JID {
				t.Errorf("%q: %q, %v", dump, u.JID, err)
			}
		}
	})
}

// TestDatabaseErrors checks that commands name the database that fails.
func TestDatabaseErrors(t *testing.T) {
	db, path := openTestDatabase(t)
	if _, err := db.sql.Exec("DROP TABLE profiles"); err != nil {
		t.Fatal(err)
	}
	ctx, conf := t.Context(), config{db: path}
	for name, err := range map[string]error{
		"list":   listUsers(ctx, conf, userFilter{}, writeTable, io.Discard),
		"export": exportUsers(ctx, conf, io.Discard),
		"show":   showUser(ctx, conf, juliet, "", io.Discard),
	} {
		if err == nil || !strings.Contains(err.Error(), path+" failed (") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
