package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// setOf returns the set of the given fields.
func setOf(indices ...int) (s fieldSet) {
	for _, i := range indices {
		s = s.with(i, true)
	}
	return s
}

// TestNewOption checks that adding an option takes only a row, a column and a text.
func TestNewOption(t *testing.T) {
	f := newFixture(t, nil)
	f.stop()
	before := fields
	t.Cleanup(func() { fields = before })
	i := len(fields)
	fields = append(slices.Clone(fields), field{option: "show_location", chat: "location", query: "location", hide: func(*view) {}})
	db, err := openDatabase(t.Context(), f.dbPath, false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.sql.ExecContext(t.Context(), "ALTER TABLE users ADD COLUMN show_location INTEGER NOT NULL DEFAULT 0"); err != nil {
		t.Fatal(err)
	}
	db.Close()
	f.start()
	for _, c := range f.conf.languages.all {
		c.texts["option.show_location"] = "Show location"
	}
	f.asks(juliet, "get", `<query xmlns='jabber:iq:register'/>`, `<field var='show_location' type='boolean' label='Show location'><value>0</value></field>`)
	f.register("<show_location>1</show_location>")
	f.settled(juliet)
	if u, err := f.db.GetUser(t.Context(), juliet); err != nil || !u.Options.has(i) || !newUserLine(u.User).Options["show_location"] {
		t.Errorf("not stored: %+v %v", u, err)
	}
	if answer := f.write("show location off"); strings.Contains(answer, "Show location") {
		t.Error(answer)
	}
	f.want(`<presence type='subscribe' …`)
	if help := f.write("help"); !strings.Contains(help, "show location on") {
		t.Error(help)
	}
	if _, page := f.get(julietPage + "/embed"); !strings.Contains(page, `value="location"> Show location`) {
		t.Errorf("not on the embed page: %s", page)
	}
}

// TestOptionsAreListedOnce checks that the name of an option occurs only in its row, in a migration of each schema, and in a text of each
// language. The demo, which fills in the form, is excluded.
func TestOptionsAreListedOnce(t *testing.T) {
	var sources []string
	for _, pattern := range []string{"*.go", "*.sql", "templates/*", "templates/lang/*"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		sources = append(sources, files...)
	}
	for _, f := range fields {
		if f.option == "" {
			continue
		}
		for _, file := range sources {
			if strings.HasSuffix(file, "_test.go") || file == "cmd_demo.go" {
				continue
			}
			content, err := os.ReadFile(file)
			if err != nil {
				continue // a directory
			}
			want := 0
			if file == "field.go" || filepath.Ext(file) == ".sql" || filepath.Dir(file) == "templates/lang" {
				want = 1
			}
			got := 0
			for line := range strings.Lines(string(content)) {
				if strings.Contains(line, f.option) {
					got++
				}
			}
			if got != want {
				t.Errorf("%s is in %d lines of %s", f.option, got, file)
			}
		}
	}
}
