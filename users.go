package main

import (
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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

func newUserRow(u UserStatus) userRow {
	row := userRow{u.JID, u.Subscription, u.Asked, u.Status.State, optionalTime(u.Status.Since), []string{}, optionalTime(u.Created)}
	for _, o := range allOptions {
		if *o.value(&u.Options) {
			row.Options = append(row.Options, o.name)
		}
	}
	return row
}

func usersListCommand() *cobra.Command {
	var conf config
	var asJSON, asCSV bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "Who is registered: JID, subscription, presence, options, since when",
		Args:  cobra.NoArgs,
		RunE: action(func(cmd *cobra.Command, _ []string, problems *usageError) error {
			if err := problems.orNil(); err != nil {
				return err
			}
			db, err := openDatabase(cmd.Context(), conf.db, false)
			if err != nil {
				return err
			}
			defer db.Close()
			rows := make([]userRow, 0)
			for u, err := range db.Users(cmd.Context()) {
				if err != nil {
					return explain(err)
				}
				rows = append(rows, newUserRow(u))
			}
			switch out := cmd.OutOrStdout(); {
			case asJSON:
				e := json.NewEncoder(out)
				e.SetIndent("", "  ")
				return e.Encode(rows)
			case asCSV:
				return writeCSV(out, rows)
			default:
				return writeTable(out, rows)
			}
		}),
	}
	conf.dbFlag(cmd.Flags())
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON array")
	cmd.Flags().BoolVar(&asCSV, "csv", false, "print CSV with a header line")
	cmd.MarkFlagsMutuallyExclusive("json", "csv")
	return cmd
}

var userColumnNames = []string{"jid", "subscription", "presence", "since", "options", "registered"}

func (r userRow) columns() []string {
	subscription := string(r.Subscription)
	if r.Asked {
		subscription += " (asked)"
	}
	return []string{r.JID, subscription, string(r.Presence), r.Since, strings.Join(r.Options, " "), r.Registered}
}

func writeCSV(out io.Writer, rows []userRow) error {
	w := csv.NewWriter(out)
	w.Write(userColumnNames) // an error shows at the end
	for _, r := range rows {
		w.Write(r.columns())
	}
	w.Flush()
	return w.Error()
}

func writeTable(out io.Writer, rows []userRow) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, strings.ToUpper(strings.Join(userColumnNames, "\t")))
	for _, r := range rows {
		columns := r.columns()
		for i := range columns {
			if columns[i] == "" {
				columns[i] = "-"
			}
		}
		fmt.Fprintln(w, strings.Join(columns, "\t"))
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
			if err := problems.orNil(); err != nil {
				return err
			}
			db, err := openDatabase(cmd.Context(), conf.db, false)
			if err != nil {
				return err
			}
			defer db.Close()
			u, err := db.GetUserStatus(cmd.Context(), bare)
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
			if err := problems.orNil(); err != nil {
				return err
			}
			db, err := openDatabase(cmd.Context(), conf.db, false)
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
