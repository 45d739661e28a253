package main

import (
	"bytes"
	"fmt"
	"net/http"
	"net/url"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"weak"
)

// TestCacheIsBounded checks that a cache stays below its maximum size in bytes.
func TestCacheIsBounded(t *testing.T) {
	const maximum = 1 << 20
	c := newRenderingCache(maximum)
	body := bytes.Repeat([]byte("x"), 10<<10)
	for i := range 1000 {
		c.Set(renderingKey{format: formatPNG, options: fmt.Sprint(i)}, newRendering(formatPNG, body, false))
	}
	c.CleanUp()
	size := 0
	for _, n := range c.All() {
		size += len(n.body)
	}
	if size > maximum || size < maximum/2 || c.WeightedSize() > maximum {
		t.Errorf("%d bytes are cached, with a weight of %d; the maximum is %d", size, c.WeightedSize(), maximum)
	}
	c.Set(renderingKey{format: formatPage}, newRendering(formatPage, make([]byte, 2*maximum), false))
	c.CleanUp()
	if c.WeightedSize() > maximum {
		t.Errorf("a rendering larger than the cache is kept: %d bytes", c.WeightedSize())
	}
}

// TestCacheKeepsNoSnapshots checks that cached renderings do not keep a replaced snapshot from being garbage collected.
func TestCacheKeepsNoSnapshots(t *testing.T) {
	f := newFixture(t, nil)
	f.register("")
	f.says("b", "", "")
	f.get(julietPage)
	f.get(julietPage + "," + Token{9}.String() + ".json")
	old := weak.Make(f.comp.board.byJID(juliet).snapshot.Load())
	f.says("b", "", "<show>away</show>")
	eventually(t, "the replaced snapshot is freed", func() bool { runtime.GC(); return old.Value() == nil })
	if f.site.cache.EstimatedSize() == 0 {
		t.Error("nothing is cached")
	}
}

// TestRenderedOnce checks that concurrent requests for the same expensive rendering share it.
func TestRenderedOnce(t *testing.T) {
	f := newFixture(t, nil)
	f.register("")
	f.says("b", "", "")
	var renderings atomic.Int32
	format := *formatPNG
	format.write = func(r *renderer, spec *renderSpec, views []view) ([]byte, error) {
		renderings.Add(1)
		return formatPNG.write(r, spec, views)
	}
	w := f.site
	renderer := w.renderer.Load()
	spec := renderSpec{format: &format, lang: renderer.languages.english(), options: defaultRenderOptions}
	spec.options.style = styleCard
	subjects, _ := w.subjectsOf([]*entry{w.board.byJID(juliet)}, "", nil)
	var clients sync.WaitGroup
	for range 20 {
		clients.Go(func() {
			if _, err := w.render(t.Context(), w.client(&http.Request{}), renderer, spec, spec.key(subjects), subjects); err != nil {
				t.Error(err)
			}
		})
	}
	clients.Wait()
	if n := renderings.Load(); n != 1 {
		t.Errorf("rendered %d times", n)
	}
}

// TestSharedRenderings checks which images people share whose state is the same.
func TestSharedRenderings(t *testing.T) {
	one := &subject{snapshot: &snapshot{id: 1, status: &Status{State: Away}}, key: personKey{snapshot: 1}}
	two := &subject{snapshot: &snapshot{id: 2, status: &Status{State: Away}}, key: personKey{snapshot: 2}}
	for _, tt := range []struct {
		format *format
		query  string
		want   bool
	}{
		{formatPNG, "", true}, {formatPNG, "style=dot", true}, {formatPNG, "label=", true}, {formatPNG, "style=card", false}, {formatSVG, "", true},
		{formatSVG, "label=x&style=dot", true}, {formatSVG, "style=dot", false}, {formatSVG, "label=", false}, {formatSVG, "style=card", false},
		{formatProsodyImage, "", true}, {formatEjabberdImage, "", true}, {formatEjabberdAvatar, "", false}, {formatPage, "", false}, {formatJSON, "", false},
	} {
		spec := renderSpec{format: tt.format, options: defaultRenderOptions}
		query, err := url.ParseQuery(tt.query)
		if err != nil {
			t.Fatal(err)
		}
		if tt.query != "" {
			if spec.options, err = tt.format.options(query); err != nil {
				t.Fatal(err)
			}
		}
		if got := spec.key([]subject{*one}) == spec.key([]subject{*two}); got != tt.want {
			t.Errorf("%s?%s: shared is %t", tt.format.metric, tt.query, got)
		}
		other := *two
		other.snapshot = &snapshot{id: 2, status: &Status{State: DoNotDisturb}}
		gone := *two
		gone.freshness.expired = true
		key := spec.key([]subject{*one})
		if tt.want && (key == spec.key([]subject{other}) || key == spec.key([]subject{gone}) || key == spec.key([]subject{{}})) {
			t.Errorf("%s?%s is shared by different states", tt.format.metric, tt.query)
		}
	}
}

// TestKeys checks that everything that a representation depends on is part of its cache key.
func TestKeys(t *testing.T) {
	english := &catalog{}
	base := renderSpec{format: formatPage, lang: english, options: defaultRenderOptions}
	person := subject{key: personKey{snapshot: 1}}
	keys := map[renderingKey]string{base.key([]subject{person}): "base"}
	add := func(name string, key renderingKey) {
		t.Helper()
		if other, ok := keys[key]; ok {
			t.Errorf("%s has the key of %s", name, other)
		}
		keys[key] = name
	}
	for name, change := range map[string]func(*renderSpec){
		"format": func(s *renderSpec) { s.format = formatSVG }, "language": func(s *renderSpec) { s.lang = &catalog{Tag: "de"} },
		"gzip": func(s *renderSpec) { s.compress = true }, "many": func(s *renderSpec) { s.many = true }, "style": func(s *renderSpec) { s.options.style = styleCard },
		"label": func(s *renderSpec) { s.options.label, s.options.labelled = "x", true }, "empty label": func(s *renderSpec) { s.options.labelled = true },
		"quoted label": func(s *renderSpec) { s.options.label, s.options.labelled = `x"`, true }, "size": func(s *renderSpec) { s.options.size = 40 },
		"theme": func(s *renderSpec) { s.options.theme = themeDark }, "fields": func(s *renderSpec) { s.options.fields = 1 },
		"shields": func(s *renderSpec) { s.options.shields = true }, "callback": func(s *renderSpec) { s.options.callback = "x" },
	} {
		spec := base
		change(&spec)
		add(name, spec.key([]subject{person}))
	}
	for name, change := range map[string]func(*personKey){
		"snapshot": func(k *personKey) { k.snapshot = 2 }, "message": func(k *personKey) { k.message = 1 }, "age": func(k *personKey) { k.ageCount = 1 },
		"unit": func(k *personKey) { k.ageUnit = 1 }, "as of": func(k *personKey) { k.asOf = 1 }, "expired": func(k *personKey) { k.expired = true },
	} {
		changed := person
		change(&changed.key)
		add(name, base.key([]subject{changed}))
		many := base
		many.many = true
		add(name+" of several", many.key([]subject{changed}))
		add(name+" of the second", many.key([]subject{person, changed}))
	}
}
