package main

// An option is a boolean field of the form, and a column of the database; its label is the text option.NAME.
type option struct {
	name  string
	chat  string // the word for it in "show … on", empty if it is not to be changed by chat
	value func(*Options) *bool
}

// allOptions are those that there are, in the form's order.
var allOptions = []option{
	{"show_status_msg", "message", func(o *Options) *bool { return &o.ShowMessage }},
	{"show_full_jid", "jid", func(o *Options) *bool { return &o.ShowJID }},
	{"show_nick", "nick", func(o *Options) *bool { return &o.ShowNick }},
	{"show_avatar", "avatar", func(o *Options) *bool { return &o.ShowAvatar }},
	{"show_last_seen", "lastseen", func(o *Options) *bool { return &o.ShowLastSeen }},
	{"show_resources", "resources", func(o *Options) *bool { return &o.ShowResources }},
	{"jid_link", "", func(o *Options) *bool { return &o.JIDLink }},
	{"search_engines", "", func(o *Options) *bool { return &o.SearchEngines }},
}

func optionNames() (names []string) {
	for _, o := range allOptions {
		names = append(names, o.name)
	}
	return names
}
