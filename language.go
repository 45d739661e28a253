package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"

	"golang.org/x/text/language"
)

// A catalogue has all that is said to people in one language: a file of templates/lang.
type catalogue struct {
	Tag       string // BCP 47, for HTML's lang
	Name      string // in the language itself
	Direction string // in which it is written, for HTML's dir

	tag   language.Tag
	texts map[string]string
}

func newCatalogue(tag language.Tag, texts map[string]string) *catalogue {
	c := &catalogue{Tag: tag.String(), Name: texts["language"], Direction: "ltr", tag: tag, texts: texts}
	script, _ := tag.Script()
	if code := script.String(); code == "Arab" || code == "Hebr" {
		c.Direction = "rtl"
	}
	return c
}

// text returns the text of that name, with each {name} in it replaced by the value that follows the name.
func (c *catalogue) text(name string, namesAndValues ...string) string {
	for i := 0; i < len(namesAndValues); i += 2 {
		namesAndValues[i] = "{" + namesAndValues[i] + "}"
	}
	return strings.NewReplacer(namesAndValues...).Replace(c.texts[name])
}

// Text is text without values, for templates.
func (c *catalogue) Text(name string) string { return c.texts[name] }

// Around returns what stands before and after the only placeholder of a text, for templates that put an element there.
func (c *catalogue) Around(name string) [2]string {
	text := c.texts[name]
	return [2]string{text[:strings.IndexByte(text, '{')], text[strings.IndexByte(text, '}')+1:]}
}

// languages are all catalogues, English first, which is for those whose language is not among them.
type languages struct {
	all     []*catalogue
	matcher language.Matcher

	mu    sync.RWMutex
	known map[string]*catalogue // what headers have come to
}

// loadLanguages reads the catalogues in the folder lang of a directory like templates.
func loadLanguages(files fs.FS) (*languages, error) {
	names, err := fs.ReadDir(files, "lang")
	if err != nil {
		return nil, err
	}
	l := &languages{known: make(map[string]*catalogue)}
	for _, f := range names {
		tag, err := language.Parse(strings.TrimSuffix(f.Name(), ".json"))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.Name(), err)
		}
		content, err := fs.ReadFile(files, path.Join("lang", f.Name()))
		if err != nil {
			return nil, err
		}
		var texts map[string]string
		if err := json.Unmarshal(content, &texts); err != nil {
			return nil, fmt.Errorf("lang/%s:%d: %w", f.Name(), lineOf(content, err), err)
		}
		l.all = append(l.all, newCatalogue(tag, texts))
	}
	slices.SortStableFunc(l.all, func(a, b *catalogue) int { return cmp.Compare(rank(a), rank(b)) })
	tags := make([]language.Tag, len(l.all))
	for i, c := range l.all {
		tags[i] = c.tag
	}
	l.matcher = language.NewMatcher(tags)
	return l, nil
}

// lineOf returns the line of a file of JSON in which an error is.
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

// rank puts English before the others.
func rank(c *catalogue) int {
	if c.tag == language.English {
		return 0
	}
	return 1
}

// maxAccepted is the length in bytes of an Accept-Language header that is read; browsers' are shorter.
const maxAccepted = 256

// match returns the catalogue for a list of languages as in Accept-Language (RFC 9110 §12.5.4), which a single tag, as in
// xml:lang, is as well.
func (l *languages) match(accepted string) *catalogue {
	if accepted == "" || len(accepted) > maxAccepted {
		return l.all[0]
	}
	l.mu.RLock()
	c := l.known[accepted]
	l.mu.RUnlock()
	if c != nil {
		return c
	}
	_, i, _ := l.matcher.Match(parseAccepted(accepted)...)
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.known) >= 1000 { // strangers write the headers
		clear(l.known)
	}
	l.known[accepted] = l.all[i]
	return l.all[i]
}

// parseAccepted returns the languages of such a list, the dearest first; none if it makes no sense.
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
