package main

import (
	"slices"
	"strings"
	"testing"
	"unsafe"
)

// payload returns an item of a PEP node, with an element in the namespace of the node.
func payload(node, name, content string) string {
	return `<item id='current'><` + name + ` xmlns='` + node + `'>` + content + `</` + name + `></item>`
}

func activity(content string) string { return payload(nsActivity, "activity", content) }
func mood(content string) string     { return payload(nsMood, "mood", content) }
func tune(content string) string     { return payload(nsTune, "tune", content) }

func wantItem(question, node string) string {
	return wanted(question, `<pubsub xmlns='http://jabber.org/protocol/pubsub'><items node='`+node+`' max_items='1'></items></pubsub>`)
}

var (
	wantActivity = wantItem("activity", nsActivity)
	wantMood     = wantItem("mood", nsMood)
	wantTune     = wantItem("tune", nsTune)
)

// TestRichPresence follows an activity, a mood and a tune.
func TestRichPresence(t *testing.T) {
	f := newFixture(t, nil)
	f.register("")
	f.says("b", "", "")
	check := func(step string, want statusJSON) {
		t.Helper()
		f.settled(juliet)
		got := f.status()
		got.Version, got.State, got.Label, got.Since = 0, "", "", ""
		if !slices.Equal(rich(got), rich(want)) {
			t.Errorf("%s: %q, want %q", step, rich(got), rich(want))
		}
	}
	f.publishesRich()
	check("without the options", statusJSON{})
	if e := f.comp.board.byJID(juliet); e.extras.orEmpty().rich != nil {
		t.Errorf("kept without the options: %+v", e.extras.rich)
	}
	f.options("<show_activity>1</show_activity><show_mood>1</show_mood><show_tune>1</show_tune>")
	f.want(wantActivity, wantMood, wantTune)
	f.answers("result", "activity", items(nsActivity, activity(`<working><coding/></working><text xml:lang='en'> the
		page </text>`)))
	f.answers("result", "mood", items(nsMood, mood(`<text/><happy/>`)))
	f.answers("result", "tune", items(nsTune, tune(`<artist>Yes</artist><length>686</length><rating>8</rating><source>Yessongs</source><title>Heart of the Sunrise</title><uri>http://elsewhere.example/</uri>`)))
	coding := statusJSON{Activity: "working", SpecificActivity: "coding", ActivityLabel: "Coding", ActivityText: "the page"}
	happy := statusJSON{Mood: "happy", MoodLabel: "Happy"}
	sunrise := statusJSON{Tune: "Yes – Heart of the Sunrise", Artist: "Yes", Title: "Heart of the Sunrise", Source: "Yessongs"}
	check("answers", together(coding, happy, sunrise))
	for name, query := range map[string]string{"de": "?lang=de", "ja": "?lang=ja"} {
		_, body := f.get(julietPage + ".txt" + query)
		lang := f.conf.languages.match(name)
		if want := lang.Text("activity.coding") + " – the page\n" + lang.Text("mood.happy") + "\n♫ Yes – Heart of the Sunrise\n"; !strings.Contains(body, want) {
			t.Errorf("%q has no %q", body, want)
		}
	}
	if answer := f.write("status"); !strings.Contains(answer, "Coding – the page · Happy · ♫ Yes – Heart of the Sunrise") {
		t.Error(answer)
	}

	for _, step := range []struct {
		name, node, item string
		want             statusJSON
	}{
		{"an empty tune", nsTune, tune(""), together(coding, happy)},
		{"only a title", nsTune, tune("<title>Träumerei</title>"), together(coding, happy, statusJSON{Tune: "Träumerei", Title: "Träumerei"})},
		{"only a source", nsTune, tune("<source>Radio</source>"), together(coding, happy, statusJSON{Tune: "Radio", Source: "Radio"})},
		{"a long tune", nsTune, tune("<title>" + strings.Repeat("é", 999) + "</title>"), together(coding, happy, statusJSON{Tune: strings.Repeat("é", 98) + "…", Title: strings.Repeat("é", 98) + "…"})},
		{"a retraction", nsTune, "<retract id='current'/>", together(coding, happy)},
		{"a mood that is not in the list", nsMood, mood("<smug/><text>x</text>"), coding},
		{"a mood", nsMood, mood("<in_awe/><text>of her</text>"), together(coding, statusJSON{Mood: "in_awe", MoodLabel: "In awe", MoodText: "of her"})},
		{"no payload", nsMood, "<item id='x'/>", coding},
		{"another namespace", nsActivity, activity("<sleeping xmlns='urn:x'/>"), statusJSON{}},
		{"a general activity", nsActivity, activity("<exercising/>"), statusJSON{Activity: "exercising", ActivityLabel: "Exercising"}},
		{"another", nsActivity, activity("<exercising><other/></exercising>"), statusJSON{Activity: "exercising", SpecificActivity: "other", ActivityLabel: "Exercising"}},
		{"one of another namespace", nsActivity, activity("<inactive><hibernating xmlns='http://www.ursus.info/states'/></inactive>"), statusJSON{Activity: "inactive", ActivityLabel: "Inactive"}},
		{"none", nsActivity, activity(""), statusJSON{}},
	} {
		f.publishes(step.node, step.item)
		check(step.name, step.want)
	}
	for _, end := range []string{"purge", "delete"} {
		f.publishes(nsMood, mood("<happy/>"))
		check("happy", happy)
		f.send(`<message type='headline' from='juliet@example.org' to='webstatus.example.org'><event xmlns='http://jabber.org/protocol/pubsub#event'><` + end + ` node='` + nsMood + `'/></event></message>`)
		check(end, statusJSON{})
	}

	f.publishesRich()
	f.options("<show_mood>0</show_mood>")
	f.want(wantActivity, wantTune)
	f.settled(juliet)
	if got := f.status(); got.Mood+got.MoodText != "" || got.Activity == "" || got.Tune == "" {
		t.Errorf("switched off: %+v", got)
	}
	f.options("<show_mood>1</show_mood>")
	f.want(wantActivity, wantMood, wantTune)
	check("switched on again", together(statusJSON{Activity: "relaxing", SpecificActivity: "reading", ActivityLabel: "Reading", ActivityText: "sonnets & <letters>"},
		statusJSON{Tune: "Prokofiev – Dance of the Knights", Artist: "Prokofiev", Title: "Dance of the Knights", Source: "Ballet"}))

	f.says("b", "type='unavailable'", "")
	check("offline", statusJSON{})
	f.publishes(nsMood, mood("<happy/>"))
	f.mayAnswer(askMood)
	f.answers("result", "mood", items(nsMood, mood(`<happy/>`)))
	f.says2("b")
	f.want(wantActivity, wantMood, wantTune)
	check("online again", statusJSON{})
	f.answers("result", "mood", items(nsMood, mood(`<happy/>`)))
	check("and happy", happy)
	f.says("c", "", "")
	f.says("b", "type='unavailable'", "")
	check("with another resource", happy)

	f.stop()
	f.start()
	f.want(`<presence type='probe' from='webstatus.example.org' to='juliet@example.org'></presence>`)
	check("after a restart", statusJSON{})
}

// rich returns the keys of rich presence.
func rich(s statusJSON) []string {
	return []string{s.Activity, s.SpecificActivity, s.ActivityLabel, s.ActivityText, s.Mood, s.MoodLabel, s.MoodText, s.Tune, s.Artist, s.Title, s.Source}
}

// together returns a status with the keys of rich presence of several.
func together(parts ...statusJSON) (s statusJSON) {
	for _, p := range parts {
		s = statusJSON{Activity: s.Activity + p.Activity, SpecificActivity: s.SpecificActivity + p.SpecificActivity, ActivityLabel: s.ActivityLabel + p.ActivityLabel,
			ActivityText: s.ActivityText + p.ActivityText, Mood: s.Mood + p.Mood, MoodLabel: s.MoodLabel + p.MoodLabel, MoodText: s.MoodText + p.MoodText,
			Tune: s.Tune + p.Tune, Artist: s.Artist + p.Artist, Title: s.Title + p.Title, Source: s.Source + p.Source}
	}
	return s
}

// TestRichPresenceMemory checks that the memory of rich presence is counted and bounded, and that users without it need no more.
func TestRichPresenceMemory(t *testing.T) {
	f := newFixture(t, nil)
	f.register("<show_activity>1</show_activity><show_mood>1</show_mood><show_tune>1</show_tune>")
	f.says2("b")
	f.want(wantActivity, wantMood, wantTune)
	f.settled(juliet)
	registry := f.comp.registry
	before := registry.presenceBytes.Load()
	f.publishesRich()
	if grown := registry.presenceBytes.Load() - before; grown < 100 || grown > 1000 {
		t.Errorf("%d bytes are counted", grown)
	}
	f.publishes(nsMood, "<retract id='x'/>")
	f.publishes(nsActivity, "<retract id='x'/>")
	f.publishes(nsTune, "<retract id='x'/>")
	f.settled(juliet)
	if now := registry.presenceBytes.Load(); now != before {
		t.Errorf("%d bytes are counted after the retraction, %d before", now, before)
	}
	registry.presenceBytes.Store(maxAllPresence + 1)
	f.publishesRich()
	if got := f.status(); got.Activity+got.Mood+got.Tune != "" {
		t.Errorf("kept while memory is scarce: %+v", got)
	}
	// Go allocates memory in classes of these sizes: an entry, the extras, a snapshot and a status stay in theirs.
	for name, size := range map[string][2]uintptr{"entry": {unsafe.Sizeof(entry{}), 192}, "extras": {unsafe.Sizeof(extras{}), 144},
		"snapshot": {unsafe.Sizeof(snapshot{}), 64}, "Status": {unsafe.Sizeof(Status{}), 128}} {
		if size[0] > size[1] {
			t.Errorf("%s has %d bytes, more than %d", name, size[0], size[1])
		}
	}
}

// TestRichNames checks that every activity and mood has a name in every language.
func TestRichNames(t *testing.T) {
	for _, lang := range loadedLanguages(t).all {
		for _, name := range moods {
			if (Mood{Name: name}).label(lang) == "" {
				t.Errorf("%s: no name of the mood %s", lang.Tag, name)
			}
		}
		for _, general := range activities {
			for _, specific := range append([]string{""}, specificActivities...) {
				if (Activity{General: general, Specific: specific}).label(lang) == "" {
					t.Errorf("%s: no name of the activity %s %s", lang.Tag, general, specific)
				}
			}
		}
	}
}
