package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
	"github.com/spf13/pflag"
)

// manCommand writes the manual pages, for those who make packages.
func manCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "man DIR",
		Short:  "Write the manual pages into a directory",
		Args:   cobra.ExactArgs(1),
		Hidden: true,
		RunE: action(func(cmd *cobra.Command, args []string, _ *usageError) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return err
			}
			return doc.GenManTree(cmd.Root(), &doc.GenManHeader{Title: "WEBSTATUS", Section: "1", Source: "webstatus " + version, Manual: "webstatus"}, args[0])
		}),
	}
}

// configurationTopic explains how flags, environment and defaults go together, with every variable.
func configurationTopic() *cobra.Command {
	var conf config
	flags := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	conf.serveFlags(flags)
	var b strings.Builder
	fmt.Fprintf(&b, `Every flag of serve can come from the environment, and so from an EnvironmentFile= of systemd. A flag on the command line goes before the
environment, and that before the default. Lists are separated by commas. All of it is checked before anything is opened, and every
problem is reported at once.

The component secret comes from --secret-file, from WEBSTATUS_SECRET, or from a systemd credential named secret, never from a flag.

`)
	flags.VisitAll(func(f *pflag.Flag) {
		fmt.Fprintf(&b, "  %s\n      %s%s\n", envName(f.Name), plainUsage(f), defaultText(f))
	})
	return &cobra.Command{Use: "configuration", Short: "How flags and environment go together", Long: strings.TrimRight(b.String(), "\n")}
}

// plainUsage is a flag's help without the quotes around what stands for its value.
func plainUsage(f *pflag.Flag) string {
	_, usage := pflag.UnquoteUsage(f)
	return usage
}

func defaultText(f *pflag.Flag) string {
	if f.DefValue == "" || f.DefValue == "[]" {
		return ""
	}
	return " (default " + strings.Trim(f.DefValue, "[]") + ")"
}

// configurationTable is the same for docs/operating.md.
func configurationTable() string {
	var conf config
	flags := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	conf.serveFlags(flags)
	var b strings.Builder
	b.WriteString("| flag | environment | default | |\n|---|---|---|---|\n")
	flags.VisitAll(func(f *pflag.Flag) {
		value := strings.Trim(f.DefValue, "[]")
		if value != "" {
			value = "`" + value + "`"
		}
		fmt.Fprintf(&b, "| `--%s` | `%s` | %s | %s |\n", f.Name, envName(f.Name), value, strings.ReplaceAll(plainUsage(f), "|", "\\|"))
	})
	return b.String()
}
