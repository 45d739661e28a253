package main

import (
	"context"
	"crypto/rand"
	"encoding/xml"
	"slices"
	"strconv"
	"strings"
	"time"

	"gosrc.io/xmpp/stanza"
)

const (
	nsCommands = "http://jabber.org/protocol/commands" // XEP-0050
	nsAdmin    = "http://jabber.org/protocol/admin"    // XEP-0133
)

// A command is something that a client offers as a menu entry (XEP-0050).
type command struct {
	node  string
	name  string // of its text in the catalogs, or an English name where only administrators see it
	admin bool   // only for --admin
	// form asks for what the command needs, nil if that is nothing.
	form func(c *component, lang *catalog, e *entry) *stanza.Form
	run  func(c *component, ctx context.Context, r *commandRequest) (*commandAnswer, func(), error)
}

// commands are those that there are, in the order in which they are listed.
var commands = []command{
	{node: "page", name: "command.page", run: (*component).commandPage},
	{node: "options", name: "command.options", form: (*component).commandOptionsForm, run: (*component).commandOptions},
	{node: "newlink", name: "command.newlink", run: (*component).commandNewLink},
	{node: "stop", name: "command.stop", form: (*component).commandStopForm, run: (*component).commandStop},
	{node: nsAdmin + "#get-registered-users-num", name: "Get Number of Registered Users", admin: true, run: (*component).commandRegisteredNumber},
	{node: nsAdmin + "#get-online-users-num", name: "Get Number of Online Users", admin: true, run: (*component).commandOnlineNumber},
	{node: nsAdmin + "#get-registered-users-list", name: "Get List of Registered Users", admin: true, run: (*component).commandRegisteredList},
	{node: nsAdmin + "#get-online-users-list", name: "Get List of Online Users", admin: true, run: (*component).commandOnlineList},
	{node: nsAdmin + "#delete-user", name: "Delete User", admin: true, form: (*component).commandDeleteForm, run: (*component).commandDelete},
}

// title returns the command's name in a language.
func (cmd command) title(lang *catalog) string {
	if cmd.admin {
		return cmd.name
	}
	return lang.text(cmd.name)
}

// mayRun reports whether somebody may run a command: administrators theirs, and those who are registered the others.
func (c *component) mayRun(cmd command, bare string) bool {
	if cmd.admin {
		return slices.Contains(c.admins, bare)
	}
	return c.board.byJID(bare) != nil
}

// commandFor returns the command of a node.
func commandFor(node string) (command, bool) {
	i := slices.IndexFunc(commands, func(cmd command) bool { return cmd.node == node })
	if i < 0 {
		return command{}, false
	}
	return commands[i], true
}

// A commandAnswer is the state of a command (XEP-0050 §2).
type commandAnswer struct {
	XMLName xml.Name        `xml:"http://jabber.org/protocol/commands command"`
	Node    string          `xml:"node,attr"`
	Session string          `xml:"sessionid,attr"`
	Status  string          `xml:"status,attr"`
	Actions *commandActions `xml:"actions"`
	Form    *stanza.Form
	Note    *commandNote `xml:"note"`
}

type commandActions struct {
	Execute  string   `xml:"execute,attr"`
	Complete struct{} `xml:"complete"`
}

type commandNote struct {
	Type string `xml:"type,attr"`
	Text string `xml:",chardata"`
}

// A commandRequest is a command that is being run.
type commandRequest struct {
	lang  *catalog
	from  jid
	entry *entry              // of who runs it, nil if not registered
	form  map[string][]string // what was submitted
}

// A session is a command that waits for its form.
type session struct {
	node  string
	until time.Time
}

const (
	sessionTime = 10 * time.Minute // for a form to be filled in
	maxSessions = 20               // of one person
)

// commandError is an error of XEP-0050 §4.5, with its own condition.
func commandError(code int, typ stanza.ErrorType, condition, specific string) *stanzaError {
	e := refusal(code, typ, condition)
	e.Specific = &conditionElement{XMLName: xml.Name{Space: nsCommands, Local: specific}}
	return e
}

func badCommand(specific string) *stanzaError {
	return commandError(400, stanza.ErrorTypeModify, "bad-request", specific)
}

// command runs a command, or the next step of it.
func (c *component) command(ctx context.Context, s *received, query *element) (any, func(), error) {
	cmd, ok := commandFor(query.attr("node"))
	if !ok {
		return nil, nil, itemNotFound()
	}
	if !c.mayRun(cmd, s.from.bare) {
		return nil, nil, forbidden()
	}
	r := &commandRequest{lang: c.languages.match(query.lang(s.lang(""))), from: s.from, entry: c.board.byJID(s.from.bare)}
	id, action := query.attr("sessionid"), query.attr("action")
	switch {
	case !slices.Contains([]string{"", "execute", "complete", "cancel", "next", "prev"}, action):
		return nil, nil, badCommand("malformed-action")
	case action == "next" || action == "prev", id == "" && (action == "complete" || action == "cancel"):
		return nil, nil, badCommand("bad-action")
	case id == "" && cmd.form != nil:
		return c.openSession(s.visitor, cmd, r)
	case id == "":
		return c.finish(ctx, cmd, r, rand.Text())
	}
	open, ok := s.visitor.sessions[id]
	if !ok || open.node != cmd.node {
		return nil, nil, badCommand("bad-sessionid")
	}
	if c.now().After(open.until) {
		return nil, nil, commandError(405, stanza.ErrorTypeCancel, "not-allowed", "session-expired")
	}
	if action == "cancel" {
		delete(s.visitor.sessions, id)
		return &commandAnswer{Node: cmd.node, Session: id, Status: "canceled"}, nil, nil
	}
	form := query.child(nsForm, "x")
	if form == nil || form.attr("type") != stanza.FormTypeSubmit {
		return nil, nil, badCommand("bad-payload")
	}
	fields, err := readForm(form)
	if err != nil {
		return nil, nil, badCommand("bad-payload")
	}
	r.form = fields
	answer, then, err := c.finish(ctx, cmd, r, id)
	if err == nil {
		delete(s.visitor.sessions, id)
	}
	return answer, then, err
}

// openSession answers with a command's form.
func (c *component) openSession(v *visitor, cmd command, r *commandRequest) (any, func(), error) {
	now := c.now()
	for id, s := range v.sessions {
		if now.Sub(s.until) > quiet { // until then it is known that it has expired
			delete(v.sessions, id)
		}
	}
	if len(v.sessions) >= maxSessions {
		return nil, nil, resourceConstraint()
	}
	if v.sessions == nil {
		v.sessions = make(map[string]*session)
	}
	id := rand.Text()
	v.sessions[id] = &session{cmd.node, now.Add(sessionTime)}
	return &commandAnswer{Node: cmd.node, Session: id, Status: "executing", Actions: &commandActions{Execute: "complete"},
		Form: cmd.form(c, r.lang, r.entry)}, nil, nil
}

func (c *component) finish(ctx context.Context, cmd command, r *commandRequest, id string) (any, func(), error) {
	answer, then, err := cmd.run(c, ctx, r)
	if err != nil {
		return nil, nil, err
	}
	answer.Node, answer.Session, answer.Status = cmd.node, id, "completed"
	return answer, then, nil
}

// told is an answer that says something.
func told(text string) *commandAnswer { return &commandAnswer{Note: &commandNote{"info", text}} }

func (c *component) commandPage(_ context.Context, r *commandRequest) (*commandAnswer, func(), error) {
	return told(c.statusText(r.lang, r.entry) + "\n" + c.linkText(r.lang, r.entry)), nil, nil
}

func (c *component) commandOptionsForm(lang *catalog, e *entry) *stanza.Form {
	form := c.optionsForm(lang, nsRegister, e.user.Options)
	form.Title = lang.text("command.options")
	form.Instructions = c.addresses(lang, e.jid, e)
	return form
}

func (c *component) commandOptions(ctx context.Context, r *commandRequest) (*commandAnswer, func(), error) {
	values := r.entry.user.Options
	if readFields(r.form, c.options(), &values) != nil {
		return nil, nil, badCommand("bad-payload")
	}
	if err := c.setOptions(ctx, r.entry, values, ""); err != nil {
		return nil, nil, err
	}
	return told(shownText(r.lang, values)), func() { c.askAll(ctx, r.entry) }, nil
}

func (c *component) commandNewLink(ctx context.Context, r *commandRequest) (*commandAnswer, func(), error) {
	if err := c.renewLink(ctx, r.entry); err != nil {
		return nil, nil, err
	}
	return told(r.lang.text("chat.newlink") + "\n" + c.linkText(r.lang, r.entry)), nil, nil
}

func (c *component) commandStopForm(lang *catalog, _ *entry) *stanza.Form {
	form := stanza.NewForm(nil, stanza.FormTypeForm)
	form.Title = lang.text("command.stop")
	form.Instructions = []string{lang.text("command.stop_ask")}
	return form
}

func (c *component) commandStop(ctx context.Context, r *commandRequest) (*commandAnswer, func(), error) {
	if err := c.remove(ctx, r.entry); err != nil {
		return nil, nil, err
	}
	return told(r.lang.text("chat.goodbye")), func() { c.withdraw(ctx, r.from.bare) }, nil
}

// adminResult is the answer to an administrator's question (XEP-0133).
func adminResult(field, typ string, values ...string) *commandAnswer {
	return &commandAnswer{Form: stanza.NewForm([]*stanza.Field{
		{Type: stanza.FieldTypeHidden, Var: "FORM_TYPE", ValuesList: []string{nsAdmin}},
		{Type: typ, Var: field, ValuesList: values},
	}, stanza.FormTypeResult)}
}

func (c *component) commandRegisteredNumber(context.Context, *commandRequest) (*commandAnswer, func(), error) {
	return adminResult("registeredusersnum", "text-single", strconv.Itoa(len(c.userList(false)))), nil, nil
}

func (c *component) commandOnlineNumber(context.Context, *commandRequest) (*commandAnswer, func(), error) {
	return adminResult("onlineusersnum", "text-single", strconv.Itoa(len(c.userList(true)))), nil, nil
}

func (c *component) commandRegisteredList(context.Context, *commandRequest) (*commandAnswer, func(), error) {
	return adminResult("registereduserjids", stanza.FieldTypeJidMulti, c.userList(false)...), nil, nil
}

func (c *component) commandOnlineList(context.Context, *commandRequest) (*commandAnswer, func(), error) {
	return adminResult("onlineuserjids", stanza.FieldTypeJidMulti, c.userList(true)...), nil, nil
}

// userList returns who is registered, or of those who is online, in order.
func (c *component) userList(online bool) (jids []string) {
	for e := range c.board.all() {
		if s := e.snapshot.Load(); s != nil && (!online || s.status.State.Online()) {
			jids = append(jids, e.jid)
		}
	}
	slices.Sort(jids)
	return jids
}

func (c *component) commandDeleteForm(*catalog, *entry) *stanza.Form {
	form := stanza.NewForm([]*stanza.Field{
		{Type: stanza.FieldTypeHidden, Var: "FORM_TYPE", ValuesList: []string{nsAdmin}},
		{Type: stanza.FieldTypeJidMulti, Var: "accountjids", Label: "The Jabber ID(s) to delete", Required: new(string)},
	}, stanza.FormTypeForm)
	form.Title = "Delete User"
	return form
}

// commandDelete removes users as if they had unregistered. Their own workers take them off the board.
func (c *component) commandDelete(ctx context.Context, r *commandRequest) (*commandAnswer, func(), error) {
	var removed []string
	for _, s := range r.form["accountjids"] {
		j, err := parseJID(strings.TrimSpace(s))
		if err != nil || c.board.byJID(j.bare) == nil {
			return nil, nil, itemNotFound()
		}
		removed = append(removed, j.bare)
	}
	if len(removed) == 0 {
		return nil, nil, badCommand("bad-payload")
	}
	for _, bare := range removed {
		if err := c.db.DeleteUser(ctx, bare); err != nil {
			return nil, nil, err
		}
	}
	return told("Removed: " + strings.Join(removed, ", ")), func() { wake(c.left) }, nil
}
