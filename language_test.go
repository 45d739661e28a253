package main

import (
	"slices"
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
