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
		read, err := readUserLines(bytes.NewReader(file))
		if err != nil {
			return
		}
		var exported bytes.Buffer
		lines := json.NewEncoder(&exported)
		for _, u := range read.users {
			if err := lines.Encode(newUserLine(u)); err != nil {
				t.Fatalf("%q: %v", file, err)
			}
		}
		again, err := readUserLines(bytes.NewReader(exported.Bytes()))
		same := func(a, b User) bool {
			at, bt := a.Created, b.Created
			a.Created, b.Created = noon, noon
			return a == b && at.Equal(bt)
		}
		if err != nil || !slices.EqualFunc(read.users, again.users, same) {
			t.Errorf("%q: %v\n%+v", file, err, read.users)
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
		read, err := readEjabberdDump(bytes.NewReader(dump))
		if err != nil {
			return
		}
		if users := read.users; len(users) > bytes.Count(dump, []byte("webpresence")) {
			t.Errorf("%q: %d users", dump, len(users))
		}
		for _, u := range read.users {
			if bare, err := parseBareJID(u.JID); err != nil || bare != u.JID {
				t.Errorf("%q: %q, %v", dump, u.JID, err)
			}
		}
	})
}

// TestImportErrors checks that the lines after one that is too long are read as well, and that only the first errors are listed.
func TestImportErrors(t *testing.T) {
	long := strings.Repeat("x", 3<<20)
	for _, tt := range []struct {
		name, file string
		want       string
	}{
		{"long line", "{\n" + long + "\n[\n", "line 1: not written by users export: unexpected EOF\nline 2: longer than 1 MiB\nline 3: not written by "},
		{"last line", "{\n" + long, "line 1: not written by users export: unexpected EOF\nline 2: longer than 1 MiB"},
		{"many", strings.Repeat("{\n", 25), "line 20: not written by users export: unexpected EOF\nand 5 more"},
	} {
		_, err := readUserLines(strings.NewReader(tt.file))
		if err == nil || !strings.HasPrefix(err.Error(), "nothing was imported:\nline 1: ") || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "line 21") {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
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
