package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
	"github.com/spf13/pflag"
)

// manCommand returns the hidden command that writes the manual pages for the packages.
func manCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "man DIR",
		Short:  "Write the manual pages to a directory",
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

// configurationTopic returns the help topic on flags, environment variables and defaults.
func configurationTopic() *cobra.Command {
	var conf config
	flags := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	conf.serveFlags(flags)
	var b strings.Builder
	fmt.Fprintf(&b, `Every flag of serve can also be set with an environment variable, for example in an EnvironmentFile= of systemd. A flag
overrides the environment variable, which overrides the default. Lists are comma-separated. The whole configuration is validated before
anything is opened, and all problems are reported at once.

The component secret is read from --secret-file, WEBSTATUS_SECRET, or a systemd credential named secret. There is no flag for the secret itself.

`)
	flags.VisitAll(func(f *pflag.Flag) {
		fmt.Fprintf(&b, "  %s\n      %s%s\n", envName(f.Name), plainUsage(f), defaultText(f))
	})
	return &cobra.Command{Use: "configuration", Short: "Flags, environment variables and defaults", Long: strings.TrimRight(b.String(), "\n")}
}

// plainUsage returns a flag's help without the back quotes around the name of its value.
func plainUsage(f *pflag.Flag) string {
	_, usage := pflag.UnquoteUsage(f)
	return usage
}

// defaultText returns the default for a flag's help, empty if the default is.
func defaultText(f *pflag.Flag) string {
	if f.DefValue == "" || f.DefValue == "[]" {
		return ""
	}
	return " (default " + strings.Trim(f.DefValue, "[]") + ")"
}
