package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// A userLine is a user in the output of users export: one JSON object per line.
type userLine struct {
	JID          string          `json:"jid"`
	Token        string          `json:"token"` // of the URL; a secret if the JID-based URL is off
	Options      map[string]bool `json:"options"`
	Subscription Subscription    `json:"subscription"`
	Asked        bool            `json:"asked"`
	Contact      Contact         `json:"contact,omitzero"`
	Granted      Contact         `json:"granted,omitzero"`
	Privileged   bool            `json:"privileged,omitzero"`
	Created      time.Time       `json:"registered"`
	Lang         string          `json:"lang,omitempty"`
}

func newUserLine(u User) userLine {
	l := userLine{u.JID, u.Token.String(), make(map[string]bool), u.Subscription, u.Asked, u.Contact, u.Granted, u.Privileged, u.Created, u.Lang}
	for i, f := range fields {
		if f.option != "" {
			l.Options[f.option] = u.Options.has(i)
		}
	}
	return l
}

// user validates a line and returns its user.
func (l userLine) user() (u User, err error) {
	if u.JID, err = parseBareJID(l.JID); err != nil {
		return u, err
	}
	var ok bool
	if u.Token, ok = parseToken(l.Token); !ok {
		return u, fmt.Errorf("%s: not a token", l.JID)
	}
	for name, value := range l.Options {
		i := fieldIndex(func(f field) bool { return f.option == name && name != "" })
		if i < 0 {
			return u, fmt.Errorf("%s: unknown option %s", l.JID, name)
		}
		u.Options = u.Options.with(i, value)
	}
	if l.Subscription == 0 {
		return u, fmt.Errorf("%s: no subscription", l.JID)
	}
	if l.Privileged && !l.Subscription.To() {
		return u, fmt.Errorf("%s: privileged without a subscription", l.JID)
	}
	u.Subscription, u.Asked, u.Contact, u.Granted, u.Privileged = l.Subscription, l.Asked, l.Contact, l.Granted, l.Privileged
	u.Created, u.Lang = l.Created, l.Lang
	return u, nil
}

func usersExportCommand() *cobra.Command {
	var conf config
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Export all users as JSON Lines, for users import",
		Long: `Write all users to standard output, one JSON object per line. The output contains the tokens of the users' URLs, so protect it like
the database.`,
		Args: cobra.NoArgs,
		RunE: action(func(cmd *cobra.Command, _ []string, problems *usageError) error {
			conf.resolveDB(problems)
			if err := problems.orNil(); err != nil {
				return err
			}
			return exportUsers(cmd.Context(), conf, cmd.OutOrStdout())
		}),
	}
	conf.dbFlag(cmd.Flags())
	return cmd
}

func exportUsers(ctx context.Context, conf config, out io.Writer) error {
	db, err := openDatabase(ctx, conf.db, false)
	if err != nil {
		return err
	}
	defer db.Close()
	buffered := bufio.NewWriter(out)
	lines := json.NewEncoder(buffered)
	for u, err := range db.Users(ctx, userFilter{}) {
		if err != nil {
			return aboutDatabase(conf.db, err)
		}
		if err := lines.Encode(newUserLine(u.User)); err != nil {
			return err
		}
	}
	return buffered.Flush()
}

func usersImportCommand() *cobra.Command {
	var conf config
	var from string
	cmd := &cobra.Command{
		Use:   "import [FILE]",
		Short: "Import users from JSON Lines, or from ejabberd's mod_webpresence",
		Long: `Register the users listed in a file or on standard input, in one transaction. Users who are already registered are not changed. serve
must not be running. With --from ejabberd, the file is the output of "ejabberdctl dump_table FILE webpresence"; the command reports
settings that cannot be imported.`,
		Args: cobra.MaximumNArgs(1),
		RunE: action(func(cmd *cobra.Command, args []string, problems *usageError) error {
			if from != "webstatus" && from != "ejabberd" {
				problems.add("from", "%q is neither webstatus nor ejabberd", from)
			}
			conf.resolveDB(problems)
			if err := problems.orNil(); err != nil {
				return err
			}
			in := cmd.InOrStdin()
			if len(args) > 0 {
				f, err := os.Open(args[0])
				if err != nil {
					return err
				}
				defer f.Close()
				in = f
			}
			return importUsers(cmd.Context(), conf, from, in, cmd.OutOrStdout())
		}),
	}
	conf.dbFlag(cmd.Flags())
	cmd.Flags().StringVar(&from, "from", "webstatus", "`format` of the file: webstatus or ejabberd")
	return cmd
}

// importUsers registers the users in a file of the given format, all of them or none, and prints notes and totals.
func importUsers(ctx context.Context, conf config, format string, in io.Reader, out io.Writer) error {
	read := readUserLines
	if format == "ejabberd" {
		read = readEjabberdDump
	}
	file, err := read(in)
	if err != nil {
		return err
	}
	lock, err := lockDatabase(ctx, conf.db)
	if err != nil {
		return err
	}
	defer lock.Close()
	db, err := openDatabase(ctx, conf.db, true)
	if err != nil {
		return err
	}
	defer db.Close()
	db.timeout = bulkTimeout
	registered, kept, err := db.InsertUsers(ctx, file.users)
	if errors.Is(err, ErrExists) {
		if err := file.rejectTaken(db.Users(ctx, userFilter{})); err != nil {
			return err
		}
	}
	if err != nil {
		return fmt.Errorf("nothing was imported: %w", aboutDatabase(conf.db, err))
	}
	for _, note := range file.notes {
		fmt.Fprintln(out, note)
	}
	for _, bare := range kept {
		fmt.Fprintln(out, bare+" is already registered and stays unchanged")
	}
	fmt.Fprintf(out, "%d imported, %d already registered\n", registered, len(kept))
	return nil
}

// An importFile is what has been read of a file that is imported.
type importFile struct {
	users    []User
	notes    []string       // about what is not imported
	jids     map[string]int // with their lines
	tokens   map[Token]int  // with their lines
	problems []error        // the first of them
	more     int            // further problems
}

// maxProblems is the number of problems that are listed of a file.
const maxProblems = 20

func newImportFile() *importFile {
	return &importFile{jids: make(map[string]int), tokens: make(map[Token]int)}
}

// add adds the user on a line, or what is wrong with that line.
func (f *importFile) add(line int, u User, err error) {
	switch {
	case err != nil:
	case f.jids[u.JID] > 0:
		err = fmt.Errorf("%s is also on line %d", u.JID, f.jids[u.JID])
	case f.tokens[u.Token] > 0:
		err = fmt.Errorf("%s has the same token as line %d", u.JID, f.tokens[u.Token])
	}
	if err != nil {
		f.reject(line, err)
		return
	}
	f.jids[u.JID], f.tokens[u.Token] = line, line
	f.users = append(f.users, u)
}

// reject records what is wrong with a line.
func (f *importFile) reject(line int, err error) {
	if len(f.problems) == maxProblems {
		f.more++
		return
	}
	f.problems = append(f.problems, fmt.Errorf("line %d: %w", line, err))
}

// rejectTaken rejects the lines whose token belongs to another one of the registered users. It returns nil if there is none, or if the users
// cannot be read.
func (f *importFile) rejectTaken(registered iter.Seq2[StoredUser, error]) error {
	owners := make(map[Token]string)
	for u, err := range registered {
		if err != nil {
			return nil
		}
		if f.tokens[u.Token] > 0 {
			owners[u.Token] = u.JID
		}
	}
	for _, u := range f.users {
		if owner := owners[u.Token]; owner != "" && owner != u.JID {
			f.reject(f.jids[u.JID], fmt.Errorf("%s has the token of %s", u.JID, owner))
		}
	}
	return f.err()
}

// err returns an error that names the lines that are wrong, nil if there are none.
func (f *importFile) err() error {
	if len(f.problems) == 0 {
		return nil
	}
	problems := f.problems
	if f.more > 0 {
		problems = append(problems, fmt.Errorf("and %d more", f.more))
	}
	return fmt.Errorf("nothing was imported:\n%w", errors.Join(problems...))
}

// readUserLines reads the output of users export. The error names the lines that are wrong.
func readUserLines(in io.Reader) (*importFile, error) {
	file := newImportFile()
	lines := bufio.NewReaderSize(in, 1<<20)
	for n := 1; ; n++ {
		line, isLong, err := lines.ReadLine()
		if errors.Is(err, io.EOF) {
			return file, file.err()
		}
		if isLong {
			file.reject(n, errors.New("longer than 1 MiB"))
		}
		for more := isLong; more && err == nil; {
			_, more, err = lines.ReadLine()
		}
		switch {
		case err != nil && !errors.Is(err, io.EOF):
			return nil, err
		case isLong, len(bytes.TrimSpace(line)) == 0:
		default:
			u, err := readUserLine(line)
			file.add(n, u, err)
		}
	}
}

// readUserLine returns the user in a line.
func readUserLine(line []byte) (User, error) {
	var l userLine
	decoder := json.NewDecoder(bytes.NewReader(line))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&l); err != nil {
		return User{}, fmt.Errorf("not written by users export: %w", err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return User{}, errors.New("not written by users export: more than one object")
	}
	return l.user()
}

// Erlang terms in a record of ejabberd's mod_webpresence:
// {webpresence,{User,Server},RandomID,JIDURL,XML,Avatar,JS,Text,Icon}.
const (
	erlangText = `(<<"(?:[^"\\]|\\.)*">>|"(?:[^"\\]|\\.)*"|<<[0-9, ]*>>)`
	erlangBool = `(true|false)`
)

var (
	ejabberdRecord = regexp.MustCompile(`^\{webpresence,\s*\{\s*` + erlangText + `\s*,\s*` + erlangText + `\s*\},\s*(false|true|<<[^>]*>>|"[^"]*"),\s*` +
		strings.Repeat(erlangBool+`,\s*`, 5) + `(?:<<[^>]*>>|"[^"]*"|\w+)\s*\}\.`)
	ejabberdAny = regexp.MustCompile(`\{webpresence,\s*\{\s*[<"]`)
)

// readEjabberdDump reads a dump of the table of ejabberd's mod_webpresence. The notes name the settings that are not imported. The error
// names the lines of the records that are wrong.
func readEjabberdDump(in io.Reader) (*importFile, error) {
	dump, err := io.ReadAll(in)
	if err != nil {
		return nil, err
	}
	records := ejabberdAny.FindAllIndex(dump, -1)
	if len(records) == 0 {
		return nil, errors.New("the file has no records: is this the output of `ejabberdctl dump_table FILE webpresence`?")
	}
	file := newImportFile()
	random, line := 0, 1+bytes.Count(dump[:records[0][0]], []byte("\n"))
	for i, at := range records {
		record := dump[at[0]:]
		if i+1 < len(records) {
			record = dump[at[0]:records[i+1][0]]
		}
		u, hasRandom, err := readEjabberdRecord(record)
		if hasRandom {
			random++
		}
		file.add(line, u, err)
		line += bytes.Count(record, []byte("\n"))
	}
	if random > 0 {
		file.notes = append(file.notes, fmt.Sprintf("random URLs cannot be imported and are replaced: %d", random))
	}
	file.notes = append(file.notes, "icon themes are not imported", "every imported user gets a subscription request when serve starts")
	return file, file.err()
}

// readEjabberdRecord returns the user in a record at the start of a dump, and reports whether the user has a random URL.
func readEjabberdRecord(dump []byte) (u User, hasRandom bool, err error) {
	r := ejabberdRecord.FindSubmatch(dump)
	if r == nil {
		return u, false, errors.New("not written by ejabberdctl dump_table")
	}
	on := func(i int) bool { return string(r[i]) == "true" }
	bare, err := parseBareJID(readErlangText(r[1]) + "@" + readErlangText(r[2]))
	if err != nil {
		return u, false, err
	}
	token, err := newToken(rand.Reader)
	if err != nil {
		return u, false, err
	}
	jidURL, xml, avatar, js, text := on(4), on(5), on(6), on(7), on(8)
	return User{JID: bare, Token: token, Subscription: SubscriptionNone, Asked: true, Created: time.Now().UTC().Truncate(time.Second),
		Options: fieldSet(0).with(fieldJIDLink, jidURL).with(fieldMessage, xml || js || text).with(fieldJID, xml || js).
			with(fieldResources, xml || js).with(fieldAvatar, avatar)}, string(r[3]) != "false", nil
}

// readErlangText returns the text of an Erlang binary or string, empty if it is malformed.
func readErlangText(term []byte) string {
	s := strings.TrimSuffix(strings.TrimPrefix(string(term), "<<"), ">>")
	if text, err := strconv.Unquote(s); err == nil {
		return text
	}
	var b []byte
	for number := range strings.SplitSeq(s, ",") {
		n, err := strconv.ParseUint(strings.TrimSpace(number), 10, 8)
		if err != nil {
			return ""
		}
		b = append(b, byte(n))
	}
	return string(b)
}
