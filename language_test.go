package main

import (
	"regexp"
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

var placeholder = regexp.MustCompile(`\{[a-z_]*\}`)

// TestCatalogues sees to it that every language has every text, with the placeholders that it has in English.
func TestCatalogues(t *testing.T) {
	l := loadedLanguages(t)
	english := l.all[0]
	var tags []string
	for _, c := range l.all {
		tags = append(tags, c.Tag)
		for name, text := range english.texts {
			want, got := placeholder.FindAllString(text, -1), placeholder.FindAllString(c.texts[name], -1)
			slices.Sort(want)
			slices.Sort(got)
			if c.texts[name] == "" || !cmp.Equal(want, got) {
				t.Errorf("%s: %s is %q, in English %q", c.Tag, name, c.texts[name], text)
			}
		}
		for name := range c.texts {
			if english.texts[name] == "" {
				t.Errorf("%s: %s is not there in English", c.Tag, name)
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
