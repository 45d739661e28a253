package main

import (
	"context"
	"crypto/rand"
	"encoding/xml"
	"errors"
	"fmt"
	"maps"
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

// A command is an entry in the command menu of a client (XEP-0050).
type command struct {
	node     string
	name     string // name of a text in the catalogs, or an English title if only administrators see it
	audience audience
	// form returns the form that the command asks for first, nil for none. The field is nil if there never is one.
	form func(c *commands, r *commandRequest) *stanza.Form
	run  func(c *commands, ctx context.Context, r *commandRequest) (*commandPayload, func(), error)
}

// An audience is a group of people who may run a command.
type audience int

const (
	forUsers     audience = iota // people who are registered
	forNewcomers                 // people who may register and have not
	forAdmins                    // --admin
)

// list returns all commands in the order of the menu. (A variable would refer to itself.)
func (c *commands) list() []command {
	return []command{
		{node: "register", name: "command.register", audience: forNewcomers, form: (*commands).registerForm, run: (*commands).register},
		{node: "page", name: "command.page", run: (*commands).page},
		{node: "options", name: "command.options", form: (*commands).optionsForm, run: (*commands).options},
		{node: "newlink", name: "command.newlink", run: (*commands).newLink},
		{node: "stop", name: "command.stop", form: (*commands).stopForm, run: (*commands).stop},
		{node: nsAdmin + "#get-registered-users-num", name: "Get Number of Registered Users", audience: forAdmins, run: (*commands).registeredNumber},
		{node: nsAdmin + "#get-online-users-num", name: "Get Number of Online Users", audience: forAdmins, run: (*commands).onlineNumber},
		{node: nsAdmin + "#get-registered-users-list", name: "Get List of Registered Users", audience: forAdmins, form: (*commands).registeredListForm, run: (*commands).registeredList},
		{node: nsAdmin + "#get-online-users-list", name: "Get List of Online Users", audience: forAdmins, form: (*commands).onlineListForm, run: (*commands).onlineList},
		{node: nsAdmin + "#delete-user", name: "Delete User", audience: forAdmins, form: (*commands).deleteForm, run: (*commands).delete},
	}
}

// title returns the command's title in a language.
func (cmd command) title(lang *catalog) string {
	if cmd.audience == forAdmins {
		return cmd.name
	}
	return lang.text(cmd.name)
}

// commands runs the ad-hoc commands.
type commands struct {
	*service
	accounts *accounts
	removed  chan<- struct{} // notified when an administrator has removed users
}

// find returns the command of a node.
func (c *commands) find(node string) (command, bool) {
	list := c.list()
	i := slices.IndexFunc(list, func(cmd command) bool { return cmd.node == node })
	if i < 0 {
		return command{}, false
	}
	return list[i], true
}

// mayRun reports whether a person may run a command.
func (c *commands) mayRun(cmd command, from jid) bool {
	switch cmd.audience {
	case forAdmins:
		return slices.Contains(c.admins, from.bare)
	case forNewcomers:
		return c.board.byJID(from.bare) == nil && c.allow.allows(from)
	}
	return c.board.byJID(from.bare) != nil
}

// A commandPayload is the state of a command (XEP-0050 §2).
type commandPayload struct {
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
	request
	entry  *entry              // of the sender; nil if not registered
	fields map[string][]string // of the submitted form
}

// A session is a command that waits for its form.
type session struct {
	node     string
	deadline time.Time
}

const (
	sessionTime = 10 * time.Minute // to fill in a form
	maxSessions = 20               // of one person
)

// commandError returns an error with a condition of XEP-0050 §4.5.
func commandError(code int, typ stanza.ErrorType, condition, specific string) *stanzaError {
	e := newStanzaError(code, typ, condition)
	e.Specific = &conditionElement{XMLName: xml.Name{Space: nsCommands, Local: specific}}
	return e
}

func badCommand(specific string) *stanzaError {
	return commandError(400, stanza.ErrorTypeModify, "bad-request", specific)
}

// execute runs a command, or the next step of one.
func (c *commands) execute(ctx context.Context, r request) (any, func(), error) {
	cmd, ok := c.find(r.query.attr("node"))
	if !ok {
		return nil, nil, itemNotFound()
	}
	if !c.mayRun(cmd, r.from) {
		return nil, nil, forbidden()
	}
	cr := &commandRequest{request: r, entry: c.board.byJID(r.from.bare)}
	id, action := r.query.attr("sessionid"), r.query.attr("action")
	switch {
	case !slices.Contains([]string{"", "execute", "complete", "cancel", "next", "prev"}, action):
		return nil, nil, badCommand("malformed-action")
	case action == "prev", id == "" && (action == "next" || action == "complete" || action == "cancel"):
		return nil, nil, badCommand("bad-action")
	case id == "":
		return c.begin(ctx, cmd, cr)
	}
	open, ok := r.sender.sessions[id]
	if !ok || open.node != cmd.node {
		return nil, nil, badCommand("bad-sessionid")
	}
	if c.now().After(open.deadline) {
		return nil, nil, commandError(405, stanza.ErrorTypeCancel, "not-allowed", "session-expired")
	}
	if action == "cancel" {
		delete(r.sender.sessions, id)
		return &commandPayload{Node: cmd.node, Session: id, Status: "canceled"}, nil, nil
	}
	// There is one step, so "next" completes the command as well. Some clients send it instead of "complete", such as poezio.
	form := r.query.child(nsForm, "x")
	if form == nil || form.attr("type") != stanza.FormTypeSubmit {
		return nil, nil, badCommand("bad-payload")
	}
	var err error
	if cr.fields, err = readForm(form); err != nil {
		return nil, nil, badCommand("bad-payload")
	}
	payload, afterReply, err := c.complete(ctx, cmd, cr, id)
	if err == nil {
		delete(r.sender.sessions, id)
	}
	return payload, afterReply, err
}

// begin answers with the command's form, or runs it if there is none.
func (c *commands) begin(ctx context.Context, cmd command, r *commandRequest) (any, func(), error) {
	var form *stanza.Form
	if cmd.form != nil {
		form = cmd.form(c, r)
	}
	if form == nil {
		return c.complete(ctx, cmd, r, rand.Text())
	}
	id := r.sender.openSession(cmd.node, c.now())
	return &commandPayload{Node: cmd.node, Session: id, Status: "executing", Actions: &commandActions{Execute: "complete"}, Form: form}, nil, nil
}

// openSession returns the id of a new session. Old sessions are kept while there are few, so that expired ones can be told from unknown
// ones: people often close a form without canceling the command.
func (s *sender) openSession(node string, now time.Time) (id string) {
	if s.sessions == nil {
		s.sessions = make(map[string]*session)
	}
	if len(s.sessions) >= maxSessions {
		oldest := slices.MinFunc(slices.Collect(maps.Keys(s.sessions)), func(a, b string) int {
			return s.sessions[a].deadline.Compare(s.sessions[b].deadline)
		})
		delete(s.sessions, oldest)
	}
	id = rand.Text()
	s.sessions[id] = &session{node, now.Add(sessionTime)}
	return id
}

func (c *commands) complete(ctx context.Context, cmd command, r *commandRequest, id string) (any, func(), error) {
	payload, afterReply, err := cmd.run(c, ctx, r)
	if err != nil {
		return nil, nil, err
	}
	payload.Node, payload.Session, payload.Status = cmd.node, id, "completed"
	return payload, afterReply, nil
}

// noteResult returns a payload with a text.
func noteResult(text string) *commandPayload {
	return &commandPayload{Note: &commandNote{"info", text}}
}

// addressResult returns a payload with a text and a user's addresses.
func (c *commands) addressResult(r *commandRequest, text string, e *entry) *commandPayload {
	payload := noteResult(text)
	payload.Form = c.accounts.addressForm(r.lang, e)
	return payload
}

func (c *commands) registerForm(r *commandRequest) *stanza.Form {
	form := c.accounts.optionsForm(r.lang, r.from.bare, nil)
	form.Title = r.lang.text("command.register")
	return form
}

func (c *commands) register(ctx context.Context, r *commandRequest) (*commandPayload, func(), error) {
	options, err := readFields(r.fields, c.offeredOptions())
	if err != nil {
		return nil, nil, badCommand("bad-payload")
	}
	e, err := c.accounts.register(ctx, r.from, r.contact, options, c.accounts.languageOf(r.received))
	if err != nil {
		return nil, nil, err
	}
	return c.addressResult(r, c.accounts.welcome(r.lang, e), e), func() { c.accounts.contacts.ask(ctx, e) }, nil
}

func (c *commands) page(_ context.Context, r *commandRequest) (*commandPayload, func(), error) {
	return c.addressResult(r, c.accounts.status(r.lang, r.entry)+"\n"+c.accounts.linkText(r.lang, r.entry), r.entry), nil, nil
}

func (c *commands) optionsForm(r *commandRequest) *stanza.Form {
	form := c.accounts.optionsForm(r.lang, r.from.bare, r.entry)
	form.Title = r.lang.text("command.options")
	return form
}

func (c *commands) options(ctx context.Context, r *commandRequest) (*commandPayload, func(), error) {
	options, err := readFields(r.fields, c.offeredOptions())
	if err != nil {
		return nil, nil, badCommand("bad-payload")
	}
	if err := c.registry.SetOptions(ctx, r.entry, options, ""); err != nil {
		return nil, nil, err
	}
	return noteResult(shownText(r.lang, r.entry.user.Options)), func() { c.accounts.contacts.ask(ctx, r.entry) }, nil
}

func (c *commands) newLink(ctx context.Context, r *commandRequest) (*commandPayload, func(), error) {
	if err := c.registry.RenewToken(ctx, r.entry); err != nil {
		return nil, nil, err
	}
	return c.addressResult(r, r.lang.text("chat.newlink")+"\n"+c.accounts.linkText(r.lang, r.entry), r.entry), nil, nil
}

func (c *commands) stopForm(r *commandRequest) *stanza.Form {
	form := stanza.NewForm(nil, stanza.FormTypeForm)
	form.Title = r.lang.text("command.stop")
	form.Instructions = []string{r.lang.text("command.stop_ask")}
	return form
}

func (c *commands) stop(ctx context.Context, r *commandRequest) (*commandPayload, func(), error) {
	if err := c.registry.Remove(ctx, r.entry); err != nil {
		return nil, nil, err
	}
	return noteResult(r.lang.text("chat.goodbye")), func() { c.accounts.contacts.withdraw(ctx, r.from.bare) }, nil
}

// adminForm returns a form of XEP-0133.
func adminForm(typ string, fields ...*stanza.Field) *stanza.Form {
	formType := &stanza.Field{Type: stanza.FieldTypeHidden, Var: "FORM_TYPE", ValuesList: []string{nsAdmin}}
	return stanza.NewForm(append([]*stanza.Field{formType}, fields...), typ)
}

// adminNumber returns the result of a command that asks for a number.
func adminNumber(field string, n int) *commandPayload {
	return &commandPayload{Form: adminForm(stanza.FormTypeResult, &stanza.Field{Type: fieldTextSingle, Var: field, ValuesList: []string{strconv.Itoa(n)}})}
}

func (c *commands) registeredNumber(context.Context, *commandRequest) (*commandPayload, func(), error) {
	return adminNumber("registeredusersnum", c.board.count()), nil, nil
}

func (c *commands) onlineNumber(context.Context, *commandRequest) (*commandPayload, func(), error) {
	return adminNumber("onlineusersnum", len(c.users(true))), nil, nil
}

// Bounds of a list of users in one stanza. A server ends the stream of a component that sends a larger stanza than it accepts.
const (
	listWithoutForm = 200       // users who are listed without asking for max_items
	maxListSize     = 256 << 10 // bytes of JIDs
)

func (c *commands) registeredListForm(*commandRequest) *stanza.Form {
	return maxItemsForm("Get List of Registered Users", c.board.count())
}

func (c *commands) onlineListForm(*commandRequest) *stanza.Form {
	return maxItemsForm("Get List of Online Users", len(c.users(true)))
}

// maxItemsForm asks how many users to list (XEP-0133 §4.20); nil if there are few.
func maxItemsForm(title string, users int) *stanza.Form {
	if users <= listWithoutForm {
		return nil
	}
	maxItems := &stanza.Field{Type: "list-single", Var: "max_items", Label: "Maximum number of items to show"}
	for _, n := range []string{"25", "50", "75", "100", "150", "200", "none"} {
		maxItems.Options = append(maxItems.Options, stanza.Option{Label: n, ValuesList: []string{n}})
	}
	form := adminForm(stanza.FormTypeForm, maxItems)
	form.Title = title
	return form
}

func (c *commands) registeredList(_ context.Context, r *commandRequest) (*commandPayload, func(), error) {
	return c.userList("registereduserjids", r, c.users(false))
}

func (c *commands) onlineList(_ context.Context, r *commandRequest) (*commandPayload, func(), error) {
	return c.userList("onlineuserjids", r, c.users(true))
}

// userList returns the result of a command that asks for users, at most as many as max_items says, and no more than fit.
func (c *commands) userList(field string, r *commandRequest, jids []string) (*commandPayload, func(), error) {
	all := len(jids)
	if given := r.fields["max_items"]; len(given) == 1 && given[0] != "none" {
		n, err := strconv.Atoi(given[0])
		if err != nil || n < 0 {
			return nil, nil, badCommand("bad-payload")
		}
		jids = jids[:min(n, len(jids))]
	}
	size := 0
	for i, jid := range jids {
		if size += len(jid); size > maxListSize {
			jids = jids[:i]
			break
		}
	}
	payload := &commandPayload{Form: adminForm(stanza.FormTypeResult, &stanza.Field{Type: stanza.FieldTypeJidMulti, Var: field, ValuesList: jids})}
	if len(jids) < all {
		payload.Note = &commandNote{"info", fmt.Sprintf("%d of %d users", len(jids), all)}
	}
	return payload, nil, nil
}

// users returns the bare JIDs of all registered users, or of those who are online, sorted.
func (c *commands) users(online bool) (jids []string) {
	for e := range c.board.all() {
		if s := e.snapshot.Load(); s != nil && (!online || s.status.State.Online()) {
			jids = append(jids, e.jid)
		}
	}
	slices.Sort(jids)
	return jids
}

func (c *commands) deleteForm(*commandRequest) *stanza.Form {
	form := adminForm(stanza.FormTypeForm,
		&stanza.Field{Type: stanza.FieldTypeJidMulti, Var: "accountjids", Label: "The Jabber ID(s) to delete", Required: new(string)})
	form.Title = "Delete User"
	return form
}

// delete removes users as if they had unregistered. Their own queues take them off the board.
func (c *commands) delete(ctx context.Context, r *commandRequest) (*commandPayload, func(), error) {
	var removed []string
	for _, s := range r.fields["accountjids"] {
		j, err := parseJID(strings.TrimSpace(s))
		if err != nil || c.board.byJID(j.bare) == nil {
			return nil, nil, itemNotFound()
		}
		removed = append(removed, j.bare)
	}
	if len(removed) == 0 {
		return nil, nil, badCommand("bad-payload")
	}
	defer notify(c.removed) // after an error, too: some may have been removed
	for _, bare := range removed {
		if err := c.registry.Delete(ctx, bare); err != nil && !errors.Is(err, ErrNotFound) { // named twice, or gone meanwhile
			return nil, nil, err
		}
	}
	return noteResult("Removed: " + strings.Join(removed, ", ")), nil, nil
}
