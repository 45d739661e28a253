package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func loadedLanguages(t *testing.T) *languages {
	t.Helper()
	l, err := loadLanguages(embeddedTemplates)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// TestCatalogs checks that every embedded language has every text. loadLanguages checks the placeholders.
func TestCatalogs(t *testing.T) {
	english, err := loadCatalog(embeddedTemplates, "en.json")
	if err != nil {
		t.Fatal(err)
	}
	var tags []string
	for _, c := range loadedLanguages(t).all {
		tags = append(tags, c.Tag)
		own, err := loadCatalog(embeddedTemplates, c.Tag+".json")
		if err != nil {
			t.Fatal(err)
		}
		for name := range english.texts {
			if own.texts[name] == "" {
				t.Errorf("%s lacks %s", c.Tag, name)
			}
		}
	}
	slices.Sort(tags)
	if diff := cmp.Diff([]string{"ar", "cs", "de", "en", "es", "fa", "fr", "it", "ja", "nl", "pl", "pt", "ru", "tr", "uk", "zh"}, tags); diff != "" {
		t.Error(diff)
	}
}

func TestMatchLanguage(t *testing.T) {
	l := loadedLanguages(t)
	for accepted, want := range map[string]string{"": "en", "de-AT": "de", "sw": "en", "ja,en;q=0.5": "ja", "fr;q=0.1, it": "it",
		"zh-Hant-TW": "zh", "pt-BR": "pt", "*": "en", "rubbish;;q": "en", "fa-IR": "fa"} {
		if got := l.match(accepted).Tag; got != want {
			t.Errorf("%q: %s, want %s", accepted, got, want)
		}
	}
	if dir := l.match("fa").Direction + l.match("de").Direction; dir != "rtlltr" {
		t.Error(dir)
	}
}

// TestOperatorLanguages loads languages that an operator has written.
func TestOperatorLanguages(t *testing.T) {
	load := func(name, content string) (*languages, error) {
		t.Helper()
		dir := t.TempDir()
		if err := os.Mkdir(filepath.Join(dir, "lang"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "lang", name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		files, err := templateFiles(dir)
		if err != nil {
			t.Fatal(err)
		}
		return loadLanguages(files)
	}
	l, err := load("eo.json", `{"language": "Esperanto", "state.away": "For"}`)
	if err != nil {
		t.Fatal(err)
	}
	if c := l.match("eo"); c.Name != "Esperanto" || c.Text("state.away") != "For" || c.Text("state.dnd") != "Do not disturb" || len(l.all) != 17 {
		t.Errorf("%s: %q, %q of %d languages", c.Name, c.Text("state.away"), c.Text("state.dnd"), len(l.all))
	}
	if l, err = load("en.json", `{"state.away": "Out"}`); err != nil {
		t.Fatal(err)
	}
	if c := l.english(); c.Text("state.away") != "Out" || c.Text("state.dnd") != "Do not disturb" || l.match("de").Text("state.away") == "Out" {
		t.Errorf("%q, %q", c.Text("state.away"), c.Text("state.dnd"))
	}
	for name, content := range map[string]string{
		"en.json":      `{"page.since": "since"}`,
		"de.json":      `{"page.since": "seit"}`,
		"eo.json":      `{"state.awya": "For"}`,
		"klingon.json": `{}`,
		"fr.json":      `{"page.since": "depuis {time} {time}"}`,
	} {
		if _, err := load(name, content); err == nil || !strings.Contains(err.Error(), "lang/"+name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
