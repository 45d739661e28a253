package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"

	"golang.org/x/text/language"
)

// A catalog holds every text in one language: a file of templates/lang.
type catalog struct {
	Tag       string // BCP 47, for HTML's lang
	Name      string // of the language, in that language
	Direction string // writing direction, for HTML's dir

	tag   language.Tag
	texts map[string]string
}

func newCatalog(tag language.Tag, texts map[string]string) *catalog {
	c := &catalog{Tag: tag.String(), Name: texts["language"], Direction: "ltr", tag: tag, texts: texts}
	script, _ := tag.Script()
	if code := script.String(); code == "Arab" || code == "Hebr" {
		c.Direction = "rtl"
	}
	return c
}

// text returns the text of a name, with each {key} in it replaced by the value that follows the key in keysAndValues.
func (c *catalog) text(name string, keysAndValues ...string) string {
	for i := 0; i < len(keysAndValues); i += 2 {
		keysAndValues[i] = "{" + keysAndValues[i] + "}"
	}
	if len(keysAndValues) == 2 { // as in the presence that everybody is sent after a new link; a Replacer would build tables first
		return strings.ReplaceAll(c.texts[name], keysAndValues[0], keysAndValues[1])
	}
	return strings.NewReplacer(keysAndValues...).Replace(c.texts[name])
}

// Text returns a text without placeholders, for templates.
func (c *catalog) Text(name string) string { return c.texts[name] }

// Around returns the parts of a text before and after its only placeholder, for templates that put an element there.
func (c *catalog) Around(name string) [2]string {
	text := c.texts[name]
	return [2]string{text[:strings.IndexByte(text, '{')], text[strings.IndexByte(text, '}')+1:]}
}

var placeholder = regexp.MustCompile(`\{[a-z_]*\}`)

// placeholders returns the placeholders of a text, sorted.
func placeholders(text string) []string {
	return slices.Sorted(slices.Values(placeholder.FindAllString(text, -1)))
}

// complete checks a catalog against the English one: a text must have the same placeholders, and texts that English does not have
// are errors. Missing texts are taken from English.
func (c *catalog) complete(english *catalog) error {
	for _, name := range slices.Sorted(maps.Keys(c.texts)) {
		text, known := english.texts[name]
		if !known {
			return fmt.Errorf("lang/%s.json: there is no text named %q", c.Tag, name)
		}
		if want := placeholders(text); !slices.Equal(want, placeholders(c.texts[name])) {
			return fmt.Errorf("lang/%s.json: %q must contain %s, each once", c.Tag, name, cmp.Or(strings.Join(want, " and "), "no placeholder"))
		}
	}
	for name, text := range english.texts {
		if c.texts[name] == "" {
			c.texts[name] = text
		}
	}
	return nil
}

// languages holds all catalogs. The first is English, which serves clients that accept none of the others.
type languages struct {
	all     []*catalog
	matcher language.Matcher

	mu    sync.RWMutex
	cache map[string]*catalog // by Accept-Language header
}

// english returns the English catalog.
func (l *languages) english() *catalog { return l.all[0] }

// loadLanguages reads and checks the catalogs in the folder lang of a directory like templates.
func loadLanguages(files fs.FS) (*languages, error) {
	entries, err := fs.ReadDir(files, "lang")
	if err != nil {
		return nil, err
	}
	l := &languages{cache: make(map[string]*catalog)}
	for _, f := range entries {
		c, err := loadCatalog(files, f.Name())
		if err != nil {
			return nil, err
		}
		l.all = append(l.all, c)
	}
	slices.SortStableFunc(l.all, func(a, b *catalog) int { return cmp.Compare(rank(a), rank(b)) })
	english, err := loadCatalog(embeddedTemplates, "en.json") // which has all texts, unlike one that replaces it
	if err != nil {
		return nil, err
	}
	tags := make([]language.Tag, len(l.all))
	for i, c := range l.all {
		tags[i] = c.tag
		if err := c.complete(english); err != nil {
			return nil, err
		}
	}
	l.matcher = language.NewMatcher(tags)
	return l, nil
}

// loadCatalog reads one file of the folder lang. Its name is a BCP 47 tag and ".json".
func loadCatalog(files fs.FS, name string) (*catalog, error) {
	tag, err := language.Parse(strings.TrimSuffix(name, ".json"))
	if err != nil {
		return nil, fmt.Errorf("lang/%s: the name must be a language tag and .json: %w", name, err)
	}
	content, err := fs.ReadFile(files, path.Join("lang", name))
	if err != nil {
		return nil, err
	}
	var texts map[string]string
	if err := json.Unmarshal(content, &texts); err != nil {
		return nil, fmt.Errorf("lang/%s:%d: %w", name, lineOf(content, err), err)
	}
	if texts == nil {
		texts = make(map[string]string)
	}
	return newCatalog(tag, texts), nil
}

// lineOf returns the line of a JSON file in which an error is.
func lineOf(content []byte, err error) int {
	var syntax *json.SyntaxError
	var typ *json.UnmarshalTypeError
	offset := int64(len(content))
	switch {
	case errors.As(err, &syntax):
		offset = syntax.Offset
	case errors.As(err, &typ):
		offset = typ.Offset
	}
	return 1 + bytes.Count(content[:min(int(offset), len(content))], []byte("\n"))
}

// rank sorts English before the other languages.
func rank(c *catalog) int {
	if c.tag == language.English {
		return 0
	}
	return 1
}

const (
	maxAccepted      = 256  // bytes of an Accept-Language header that is parsed; those of browsers are shorter
	maxLanguageCache = 1000 // headers; strangers choose them
)

// match returns the catalog for an Accept-Language list (RFC 9110 §12.5.4). A single tag, as in xml:lang, is such a list too.
func (l *languages) match(accepted string) *catalog {
	if accepted == "" || len(accepted) > maxAccepted {
		return l.english()
	}
	l.mu.RLock()
	c := l.cache[accepted]
	l.mu.RUnlock()
	if c != nil {
		return c
	}
	_, i, _ := l.matcher.Match(parseAccepted(accepted)...)
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.cache) >= maxLanguageCache {
		clear(l.cache)
	}
	l.cache[accepted] = l.all[i]
	return l.all[i]
}

// parseAccepted returns the languages of an Accept-Language list in order of preference; none if it is malformed.
func parseAccepted(accepted string) []language.Tag {
	if len(accepted) > maxAccepted {
		return nil
	}
	tags, _, err := language.ParseAcceptLanguage(accepted)
	if err != nil {
		return nil
	}
	return tags
}
