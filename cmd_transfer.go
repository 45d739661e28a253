package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// A userLine is a user as users export writes it and users import reads it, one JSON object a line.
type userLine struct {
	JID          string          `json:"jid"`
	Token        string          `json:"token"` // of the web address; a secret where jid_link is off
	Options      map[string]bool `json:"options"`
	Subscription Subscription    `json:"subscription"`
	Asked        bool            `json:"asked"`
	Created      time.Time       `json:"registered"`
	Lang         string          `json:"lang,omitempty"`
}

func newUserLine(u User) userLine {
	l := userLine{u.JID, u.Token.String(), make(map[string]bool), u.Subscription, u.Asked, u.Created, u.Lang}
	for i, f := range fields {
		if f.option != "" {
			l.Options[f.option] = u.Options.has(i)
		}
	}
	return l
}

// user judges a line.
func (l userLine) user() (u User, err error) {
	if u.JID, err = bareArgument(l.JID); err != nil {
		return u, err
	}
	var ok bool
	if u.Token, ok = parseToken(l.Token); !ok {
		return u, fmt.Errorf("%s: not a token", l.JID)
	}
	for name, value := range l.Options {
		i := fieldIndex(func(f field) bool { return f.option == name && name != "" })
		if i < 0 {
			return u, fmt.Errorf("%s: there is no option %s", l.JID, name)
		}
		u.Options = u.Options.with(i, value)
	}
	switch l.Subscription {
	case SubscriptionNone, SubscriptionTo, SubscriptionFrom, SubscriptionBoth:
	default:
		return u, fmt.Errorf("%s: %q is no subscription", l.JID, l.Subscription)
	}
	u.Subscription, u.Asked, u.Created, u.Lang = l.Subscription, l.Asked, l.Created, l.Lang
	return u, nil
}

func usersExportCommand() *cobra.Command {
	var conf config
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Write all users as JSON lines, for users import on another machine",
		Long:  "Write all users to standard output, one JSON object a line, with the tokens of their web addresses: keep it as you keep the database.",
		Args:  cobra.NoArgs,
		RunE: action(func(cmd *cobra.Command, _ []string, problems *usageError) error {
			db, err := conf.open(cmd.Context(), problems)
			if err != nil {
				return err
			}
			defer db.Close()
			out := bufio.NewWriter(cmd.OutOrStdout())
			lines := json.NewEncoder(out)
			for u, err := range db.Users(cmd.Context(), userFilter{}) {
				if err != nil {
					return explain(err)
				}
				if err := lines.Encode(newUserLine(u.User)); err != nil {
					return err
				}
			}
			return out.Flush()
		}),
	}
	conf.dbFlag(cmd.Flags())
	return cmd
}

func usersImportCommand() *cobra.Command {
	var conf config
	var from string
	cmd := &cobra.Command{
		Use:   "import [FILE]",
		Short: "Register the users of another machine, or of ejabberd's mod_webpresence",
		Long: `Register users from a file, or from standard input: all of them or none. Those who are registered already stay as they are. serve must
not run. With --from ejabberd the file is what "ejabberdctl dump_table FILE webpresence" has written; what cannot be carried over is said.`,
		Args: cobra.MaximumNArgs(1),
		RunE: action(func(cmd *cobra.Command, args []string, problems *usageError) error {
			if from != "webstatus" && from != "ejabberd" {
				problems.add("from", "%q is neither webstatus nor ejabberd", from)
			}
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
			return importUsers(cmd.Context(), conf.db, from, in, cmd.OutOrStdout())
		}),
	}
	conf.dbFlag(cmd.Flags())
	cmd.Flags().StringVar(&from, "from", "webstatus", "what has written the `file`: webstatus or ejabberd")
	return cmd
}

func importUsers(ctx context.Context, path, from string, in io.Reader, out io.Writer) error {
	read := readUserLines
	if from == "ejabberd" {
		read = readEjabberdDump
	}
	users, notes, err := read(in)
	if err != nil {
		return err
	}
	lock, err := lockDatabase(path)
	if err != nil {
		return err
	}
	defer lock.Close()
	db, err := openDatabase(ctx, path, true)
	if err != nil {
		return err
	}
	defer db.Close()
	registered, kept, err := db.InsertUsers(ctx, users)
	if err != nil {
		return fmt.Errorf("nothing has been imported: %w", explain(err))
	}
	for _, bare := range kept {
		notes = append(notes, bare+" is registered already, and stays as it is")
	}
	for _, note := range notes {
		fmt.Fprintln(out, note)
	}
	fmt.Fprintf(out, "%d imported, %d were registered already\n", registered, len(kept))
	return nil
}

func readUserLines(in io.Reader) (users []User, notes []string, err error) {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 1<<20)
	for n := 1; lines.Scan(); n++ {
		if len(bytes.TrimSpace(lines.Bytes())) == 0 {
			continue
		}
		var l userLine
		decoder := json.NewDecoder(bytes.NewReader(lines.Bytes()))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&l); err != nil {
			return nil, nil, fmt.Errorf("line %d is not what users export writes: %w", n, err)
		}
		u, err := l.user()
		if err != nil {
			return nil, nil, fmt.Errorf("line %d: %w", n, err)
		}
		users = append(users, u)
	}
	return users, nil, lines.Err()
}

// What ejabberd's mod_webpresence keeps of a user, as Erlang writes it:
// {webpresence,{User,Server},RandomID,JIDURL,XML,Avatar,JS,Text,Icon}.
const (
	erlangText = `(<<"(?:[^"\\]|\\.)*">>|"(?:[^"\\]|\\.)*"|<<[0-9, ]*>>)`
	erlangBool = `(true|false)`
)

var (
	ejabberdRecord = regexp.MustCompile(`\{webpresence,\s*\{\s*` + erlangText + `\s*,\s*` + erlangText + `\s*\},\s*(false|true|<<[^>]*>>|"[^"]*"),\s*` +
		strings.Repeat(erlangBool+`,\s*`, 5) + `(?:<<[^>]*>>|"[^"]*"|\w+)\s*\}\.`)
	ejabberdAny = regexp.MustCompile(`\{webpresence,\s*\{\s*[<"]`)
)

// readEjabberdDump reads the table of ejabberd's mod_webpresence.
func readEjabberdDump(in io.Reader) (users []User, notes []string, err error) {
	dump, err := io.ReadAll(in)
	if err != nil {
		return nil, nil, err
	}
	records := ejabberdRecord.FindAllSubmatch(dump, -1)
	if n := len(ejabberdAny.FindAll(dump, -1)); n != len(records) || n == 0 {
		return nil, nil, fmt.Errorf("%d of %d records can be read: is this what `ejabberdctl dump_table FILE webpresence` has written?", len(records), n)
	}
	random := 0
	for _, r := range records {
		on := func(i int) bool { return string(r[i]) == "true" }
		bare, err := bareArgument(readErlangText(r[1]) + "@" + readErlangText(r[2]))
		if err != nil {
			return nil, nil, err
		}
		token, err := newToken(rand.Reader)
		if err != nil {
			return nil, nil, err
		}
		if string(r[3]) != "false" {
			random++
		}
		jidURL, xml, avatar, js, text := on(4), on(5), on(6), on(7), on(8)
		users = append(users, User{JID: bare, Token: token, Subscription: SubscriptionNone, Asked: true, Created: time.Now().UTC().Truncate(time.Second),
			Options: fieldSet(0).with(fieldJIDLink, jidURL).with(fieldMessage, xml || js || text).with(fieldJID, xml || js).
				with(fieldResources, xml || js).with(fieldAvatar, avatar)})
	}
	if random > 0 {
		notes = append(notes, fmt.Sprintf("%d had a random address, which cannot be carried over: they have a new one", random))
	}
	return users, append(notes, "themes of icons are not carried over", "everybody is asked to let their presence be seen when serve starts"), nil
}

// readErlangText reads a binary or a string.
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
