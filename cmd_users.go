package main

import (
	"bufio"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

// A userRow is a user in the output of users list and users show. Times are in RFC 3339.
type userRow struct {
	JID          string       `json:"jid"`
	Subscription Subscription `json:"subscription"` // from the component's side
	Asked        bool         `json:"asked"`        // a subscription request is pending
	Privileged   bool         `json:"privileged"`   // the subscription is a privilege of the component (XEP-0356)
	Presence     State        `json:"presence"`
	Since        string       `json:"since,omitempty"` // when the presence began
	Options      []string     `json:"options"`         // names of the options that are on
	Registered   string       `json:"registered"`
}

func newUserRow(u StoredUser) userRow {
	return userRow{u.JID, u.Subscription, u.Asked, u.Privileged, u.Status.State, formatTime(u.Status.Since), optionNames(u.Options), formatTime(u.Created)}
}

func usersListCommand() *cobra.Command {
	var conf config
	var asJSON, asCSV bool
	var filter userFilter
	var wanted []string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the registered users with their subscription, presence and options",
		Args:  cobra.NoArgs,
		RunE: action(func(cmd *cobra.Command, _ []string, problems *usageError) error {
			var err error
			if filter.states, err = parseStates(wanted); err != nil {
				problems.add("state", "%v: %v", strings.Join(wanted, ","), err)
			}
			conf.resolveDB(problems)
			if err := problems.orNil(); err != nil {
				return err
			}
			write := writeTable
			switch {
			case asJSON:
				write = writeJSONArray
			case asCSV:
				write = writeCSV
			}
			return listUsers(cmd.Context(), conf, filter, write, cmd.OutOrStdout())
		}),
	}
	conf.dbFlag(cmd.Flags())
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON array")
	cmd.Flags().BoolVar(&asCSV, "csv", false, "print CSV with a header line")
	cmd.Flags().StringVar(&filter.match, "match", "", "list only users whose JID contains `text`")
	cmd.Flags().StringSliceVar(&wanted, "state", nil, "list only users whose last stored state is `state`: chat, available, away, xa, dnd, unavailable, unknown, or online for the first five; repeatable")
	cmd.Flags().IntVar(&filter.limit, "limit", 0, "maximum `number` of users; 0 for all")
	cmd.Flags().StringVar(&filter.after, "after", "", "list only users after `JID`, the last one of the previous page")
	cmd.MarkFlagsMutuallyExclusive("json", "csv")
	return cmd
}

// listUsers writes the users that a filter selects to out.
func listUsers(ctx context.Context, conf config, filter userFilter, write func(io.Writer, userRows) error, out io.Writer) error {
	db, err := openDatabase(ctx, conf.db, false)
	if err != nil {
		return err
	}
	defer db.Close()
	rows := func(yield func(userRow, error) bool) {
		for u, err := range db.Users(ctx, filter) {
			if !yield(newUserRow(u), aboutDatabase(conf.db, err)) {
				return
			}
		}
	}
	buffered := bufio.NewWriter(out)
	return errors.Join(write(buffered, rows), buffered.Flush())
}

// errState is the error of parseStates.
var errState = errors.New("none of chat, available, away, xa, dnd, unavailable, unknown, online")

// parseStates parses the names of states; "online" stands for every state of an available user. The error is errState.
func parseStates(names []string) (wanted []State, err error) {
	for _, name := range names {
		switch i := slices.Index(states, State(name)); {
		case name == "online":
			wanted = append(wanted, Chat, Available, Away, ExtendedAway, DoNotDisturb)
		case i >= 0:
			wanted = append(wanted, states[i])
		default:
			return nil, errState
		}
	}
	return wanted, nil
}

var userColumnNames = []string{"jid", "subscription", "presence", "since", "options", "registered"}

func (r userRow) columns() []string {
	subscription := r.Subscription.String()
	if r.Privileged {
		subscription += " (privileged)"
	}
	if r.Asked {
		subscription += " (asked)"
	}
	return []string{r.JID, subscription, string(r.Presence), r.Since, strings.Join(r.Options, " "), r.Registered}
}

// userRows yields rows as they are read from the database. It ends after the first error.
type userRows = iter.Seq2[userRow, error]

// writeJSONArray writes the rows as a JSON array, without holding all of them in memory.
func writeJSONArray(out io.Writer, rows userRows) error {
	separator := "[\n  "
	for r, err := range rows {
		if err != nil {
			return err
		}
		line, err := json.MarshalIndent(r, "  ", "  ")
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "%s%s", separator, line) // the last write reports an error
		separator = ",\n  "
	}
	if separator[0] == '[' {
		_, err := fmt.Fprintln(out, "[]")
		return err
	}
	_, err := fmt.Fprintln(out, "\n]")
	return err
}

func writeCSV(out io.Writer, rows userRows) error {
	w := csv.NewWriter(out)
	w.Write(userColumnNames) // w.Error reports an error
	for r, err := range rows {
		if err != nil {
			return err
		}
		w.Write(r.columns())
	}
	w.Flush()
	return w.Error()
}

// tablePage is the number of rows that are aligned together. It bounds the memory for a table.
const tablePage = 1000

func writeTable(out io.Writer, rows userRows) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, strings.ToUpper(strings.Join(userColumnNames, "\t"))) // the last write reports an error
	n := 0
	for r, err := range rows {
		if err != nil {
			return err
		}
		columns := r.columns()
		for i := range columns {
			if columns[i] == "" {
				columns[i] = "-"
			}
		}
		fmt.Fprintln(w, strings.Join(columns, "\t"))
		if n++; n%tablePage == 0 {
			w.Flush()
		}
	}
	return w.Flush()
}

func usersShowCommand() *cobra.Command {
	var conf config
	cmd := &cobra.Command{
		Use:   "show JID",
		Short: "Show one user, with the URL of the status page",
		Args:  cobra.ExactArgs(1),
		RunE: action(func(cmd *cobra.Command, args []string, problems *usageError) error {
			bare, err := parseBareJID(args[0])
			if err != nil {
				problems.problems = append(problems.problems, err.Error())
			}
			conf.resolveListen(problems)
			baseURL := conf.resolveBaseURL(problems)
			conf.resolveDB(problems)
			if err := problems.orNil(); err != nil {
				return err
			}
			return showUser(cmd.Context(), conf, bare, baseURL, cmd.OutOrStdout())
		}),
	}
	conf.dbFlag(cmd.Flags())
	conf.webFlags(cmd.Flags())
	return cmd
}

func showUser(ctx context.Context, conf config, bare, baseURL string, out io.Writer) error {
	db, err := openDatabase(ctx, conf.db, false)
	if err != nil {
		return err
	}
	defer db.Close()
	u, err := db.GetUser(ctx, bare)
	if err != nil {
		return fmt.Errorf("%s: %w", bare, aboutDatabase(conf.db, err))
	}
	return writeUser(out, newUserRow(u), tokenURL(baseURL, u.Token))
}

// writeUser writes one user as a table of names and values.
func writeUser(out io.Writer, r userRow, page string) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for i, value := range r.columns() {
		if value == "" {
			value = "-"
		}
		fmt.Fprintf(w, "%s\t%s\n", userColumnNames[i], value)
	}
	fmt.Fprintf(w, "page\t%s\n", page)
	return w.Flush()
}

func usersRemoveCommand() *cobra.Command {
	var conf config
	cmd := &cobra.Command{
		Use:   "remove JID",
		Short: "Remove a user, as if the user had unregistered",
		Long: `Remove a user and all data about the user, as if the user had unregistered. A running serve notices this within 2 seconds and cancels
the subscriptions. If none is running, the next one cancels them.`,
		Args: cobra.ExactArgs(1),
		RunE: action(func(cmd *cobra.Command, args []string, problems *usageError) error {
			bare, err := parseBareJID(args[0])
			if err != nil {
				problems.problems = append(problems.problems, err.Error())
			}
			conf.resolveDB(problems)
			if err := problems.orNil(); err != nil {
				return err
			}
			return removeUser(cmd.Context(), conf, bare, cmd.OutOrStdout())
		}),
	}
	conf.dbFlag(cmd.Flags())
	return cmd
}

func removeUser(ctx context.Context, conf config, bare string, out io.Writer) error {
	db, err := openDatabase(ctx, conf.db, false)
	if err != nil {
		return err
	}
	defer db.Close()
	if err := db.DeleteUser(ctx, bare); err != nil {
		return fmt.Errorf("%s: %w", bare, aboutDatabase(conf.db, err))
	}
	fmt.Fprintf(out, "%s: removed\n", bare)
	return nil
}

// aboutDatabase puts the name of a database before an error of one of its operations, which is a predicate. ErrNotFound is about a user.
func aboutDatabase(location string, err error) error {
	if err == nil || errors.Is(err, ErrNotFound) {
		return err
	}
	return fmt.Errorf("%s %w", databaseName(location), err)
}

// parseBareJID parses the bare JID of an account. A full JID and the JID of a server are errors.
func parseBareJID(s string) (string, error) {
	j, err := parseJID(s)
	if err == nil && (j.resource != "" || j.local() == "") {
		err = errors.New("not a bare JID such as juliet@example.org: " + s)
	}
	return j.bare, err
}
