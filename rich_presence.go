package main

import (
	"slices"
	"strings"
)

// A RichPresence is what a user publishes in addition to presence. It is immutable, contains only fields that are turned on, and is
// deleted when the user goes offline. It is not stored, except for the other nodes of a cluster.
type RichPresence struct {
	Activity Activity
	Mood     Mood
	Tune     Tune

	own bool // in a cluster: this node has received it, and no other node
}

// An Activity is what a user is doing (XEP-0108). The zero Activity is none.
type Activity struct {
	General  string // one of activities
	Specific string // one of specificActivities; empty for none
	Text     string // the user's own text; empty for none
}

// A Mood is how a user feels (XEP-0107). The zero Mood is none.
type Mood struct {
	Name string // one of moods
	Text string // the user's own text; empty for none
}

// A Tune is the music that a user listens to (XEP-0118). Fields that the user's client does not publish are empty; all are empty for no tune.
type Tune struct {
	Artist string
	Title  string
	Source string // album or station
}

// maxRichText is the size of each text of a RichPresence, in bytes.
const maxRichText = 200

// The activities (XEP-0108 §3) and moods (XEP-0107 §3). The name in each language is the text activity.NAME or mood.NAME.
var (
	activities = strings.Fields(`doing_chores drinking eating exercising grooming having_appointment inactive relaxing talking traveling
		undefined working`)
	specificActivities = strings.Fields(`at_the_spa brushing_teeth buying_groceries cleaning coding commuting cooking cycling dancing day_off
		doing_maintenance doing_the_dishes doing_the_laundry driving fishing gaming gardening getting_a_haircut going_out hanging_out
		having_a_beer having_a_snack having_breakfast having_coffee having_dinner having_lunch having_tea hiding hiking in_a_car
		in_a_meeting in_real_life jogging on_a_bus on_a_plane on_a_train on_a_trip on_the_phone on_vacation on_video_phone other partying
		playing_sports praying reading rehearsing running running_an_errand scheduled_holiday shaving shopping skiing sleeping smoking
		socializing studying sunbathing swimming taking_a_bath taking_a_shower thinking walking walking_the_dog watching_a_movie watching_tv
		working_out writing`)
	moods = strings.Fields(`afraid amazed amorous angry annoyed anxious aroused ashamed bored brave calm cautious cold confident confused
		contemplative contented cranky crazy creative curious dejected depressed disappointed disgusted dismayed distracted embarrassed
		envious excited flirtatious frustrated grateful grieving grumpy guilty happy hopeful hot humbled humiliated hungry hurt impressed
		in_awe in_love indignant interested intoxicated invincible jealous lonely lost lucky mean moody nervous neutral offended outraged
		playful proud relaxed relieved remorseful restless sad sarcastic satisfied serious shocked shy sick sleepy spontaneous stressed
		strong surprised thankful thirsty tired undefined weak worried`)
)

// knownName returns the name that equals s, so that users share its memory; empty if there is none.
func knownName(name string, names []string) string {
	if i := slices.Index(names, name); i >= 0 {
		return names[i]
	}
	return ""
}

// label returns the name of the activity in a language, empty for none. The specific activity "other" says no more than the general one.
func (a Activity) label(lang *catalog) string {
	name := a.General
	if a.Specific != "" && a.Specific != "other" {
		name = a.Specific
	}
	return lang.Text("activity." + name)
}

// label returns the name of the mood in a language, empty for none.
func (m Mood) label(lang *catalog) string { return lang.Text("mood." + m.Name) }

// String returns artist and title, or the one that is known, or else the source.
func (t Tune) String() string {
	switch {
	case t.Artist != "" && t.Title != "":
		return t.Artist + " – " + t.Title
	case t.Artist != "":
		return t.Artist
	case t.Title != "":
		return t.Title
	}
	return t.Source
}

// orEmpty returns the rich presence, or an empty one for nil.
func (p *RichPresence) orEmpty() RichPresence {
	if p == nil {
		return RichPresence{}
	}
	return *p
}

// only returns the part that options allow to keep.
func (p RichPresence) only(options fieldSet) RichPresence {
	if !options.has(fieldActivity) {
		p.Activity = Activity{}
	}
	if !options.has(fieldMood) {
		p.Mood = Mood{}
	}
	if !options.has(fieldTune) {
		p.Tune = Tune{}
	}
	return p
}

// size returns the approximate size of the rich presence in memory, in bytes; 0 for none.
func (p RichPresence) size() int {
	if p == (RichPresence{}) {
		return 0
	}
	return presenceSize + len(p.Activity.Text) + len(p.Mood.Text) + len(p.Tune.Artist) + len(p.Tune.Title) + len(p.Tune.Source)
}
