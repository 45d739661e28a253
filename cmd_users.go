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

// A userRow is what the commands say of a user.
type userRow struct {
	JID          string       `json:"jid"`
	Subscription Subscription `json:"subscription"` // from our side
	Asked        bool         `json:"asked"`        // the contact request awaits its answer
	Presence     State        `json:"presence"`
	Since        string       `json:"since,omitempty"` // when the presence began, RFC 3339
	Options      []string     `json:"options"`         // those that are on
	Registered   string       `json:"registered"`      // RFC 3339
}

func newUserRow(u StoredUser) userRow {
	return userRow{u.JID, u.Subscription, u.Asked, u.Status.State, formatTime(u.Status.Since), optionNames(u.Options), formatTime(u.Created)}
}

func usersListCommand() *cobra.Command {
	var conf config
	var asJSON, asCSV bool
	var filter userFilter
	var wanted []string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "Who is registered: JID, subscription, presence, options, since when",
		Args:  cobra.NoArgs,
		RunE: action(func(cmd *cobra.Command, _ []string, problems *usageError) error {
			var err error
			if filter.states, err = parseStates(wanted); err != nil {
				problems.add("state", "%v: %v", strings.Join(wanted, ","), err)
			}
			db, err := conf.open(cmd.Context(), problems)
			if err != nil {
				return err
			}
			defer db.Close()
			rows := func(yield func(userRow, error) bool) {
				for u, err := range db.Users(cmd.Context(), filter) {
					if !yield(newUserRow(u), err) {
						return
					}
				}
			}
			out := bufio.NewWriter(cmd.OutOrStdout())
			switch {
			case asJSON:
				err = writeJSONArray(out, rows)
			case asCSV:
				err = writeCSV(out, rows)
			default:
				err = writeTable(out, rows)
			}
			return errors.Join(explain(err), out.Flush())
		}),
	}
	conf.dbFlag(cmd.Flags())
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON array")
	cmd.Flags().BoolVar(&asCSV, "csv", false, "print CSV with a header line")
	cmd.Flags().StringVar(&filter.match, "match", "", "only those with this `text` in their JID")
	cmd.Flags().StringSliceVar(&wanted, "state", nil, "only those in this `state`, as last known: chat, available, away, xa, dnd, unavailable, unknown, or online for any of the first five; repeatable")
	cmd.Flags().IntVar(&filter.limit, "limit", 0, "at most so many `users`; 0 for all")
	cmd.Flags().StringVar(&filter.after, "after", "", "only those behind this `JID`, the last of the page before")
	cmd.MarkFlagsMutuallyExclusive("json", "csv")
	return cmd
}

// errFilter says that a filter of users list makes no sense.
var errFilter = errors.New("none of chat, available, away, xa, dnd, unavailable, unknown, online")

// parseStates reads names of states, and "online" for all of those who are.
func parseStates(names []string) (wanted []State, err error) {
	for _, name := range names {
		switch i := slices.Index(states, State(name)); {
		case name == "online":
			wanted = append(wanted, Chat, Available, Away, ExtendedAway, DoNotDisturb)
		case i >= 0:
			wanted = append(wanted, states[i])
		default:
			return nil, errFilter
		}
	}
	return wanted, nil
}

var userColumnNames = []string{"jid", "subscription", "presence", "since", "options", "registered"}

func (r userRow) columns() []string {
	subscription := string(r.Subscription)
	if r.Asked {
		subscription += " (asked)"
	}
	return []string{r.JID, subscription, string(r.Presence), r.Since, strings.Join(r.Options, " "), r.Registered}
}

// userRows are rows as the database has them, one after the other. An error is the last.
type userRows = iter.Seq2[userRow, error]

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
		fmt.Fprintf(out, "%s%s", separator, line) // an error shows at the end
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
	w.Write(userColumnNames) // an error shows at the end
	for r, err := range rows {
		if err != nil {
			return err
		}
		w.Write(r.columns())
	}
	w.Flush()
	return w.Error()
}

// tablePage is how many rows have columns of the same width.
const tablePage = 1000

func writeTable(out io.Writer, rows userRows) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, strings.ToUpper(strings.Join(userColumnNames, "\t"))) // an error shows at the end
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
		Short: "One user, with the page's address",
		Args:  cobra.ExactArgs(1),
		RunE: action(func(cmd *cobra.Command, args []string, problems *usageError) error {
			bare, err := bareArgument(args[0])
			if err != nil {
				problems.problems = append(problems.problems, err.Error())
			}
			conf.resolveListen(problems)
			baseURL := conf.resolveBaseURL(problems)
			db, err := conf.open(cmd.Context(), problems)
			if err != nil {
				return err
			}
			defer db.Close()
			u, err := db.GetUser(cmd.Context(), bare)
			if err != nil {
				return fmt.Errorf("%s: %w", bare, explain(err))
			}
			return writeUser(cmd.OutOrStdout(), newUserRow(u), baseURL+"/status/"+u.Token.String())
		}),
	}
	conf.dbFlag(cmd.Flags())
	conf.webFlags(cmd.Flags())
	return cmd
}

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
		Long:  "Remove a user and all that is known of them, as if the user had unregistered. A running serve hears of it within 2 s and withdraws\nthe contact; else the next serve does.",
		Args:  cobra.ExactArgs(1),
		RunE: action(func(cmd *cobra.Command, args []string, problems *usageError) error {
			bare, err := bareArgument(args[0])
			if err != nil {
				problems.problems = append(problems.problems, err.Error())
			}
			db, err := conf.open(cmd.Context(), problems)
			if err != nil {
				return err
			}
			defer db.Close()
			if err := db.DeleteUser(cmd.Context(), bare); err != nil {
				return fmt.Errorf("%s: %w", bare, explain(err))
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: removed\n", bare)
			return nil
		}),
	}
	conf.dbFlag(cmd.Flags())
	return cmd
}

// bareArgument reads a bare JID from the command line.
func bareArgument(s string) (string, error) {
	j, err := parseJID(s)
	if err == nil && (j.resource != "" || j.local() == "") {
		err = errors.New("not a bare JID such as juliet@example.org: " + s)
	}
	return j.bare, err
}

// open opens the database that the flags name, unless there are problems with how the command was called.
func (c *config) open(ctx context.Context, problems *usageError) (*database, error) {
	if err := problems.orNil(); err != nil {
		return nil, err
	}
	return openDatabase(ctx, c.db, false)
}
