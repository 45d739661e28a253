package main

import (
	"errors"
	"io"
	"net/http"

	"github.com/spf13/cobra"
)

// healthcheckCommand asks a running serve, for containers that have no other program to ask with.
func healthcheckCommand() *cobra.Command {
	var conf config
	cmd := &cobra.Command{
		Use:   "healthcheck",
		Short: "Ask a running serve whether it is well",
		Long:  "Ask /healthz at --metrics-listen, print what it says, and exit with 0 if all is well.",
		Args:  cobra.NoArgs,
		RunE: action(func(cmd *cobra.Command, _ []string, problems *usageError) error {
			if conf.metrics == "" {
				problems.add("metrics-listen", "required: the address that serve has been given")
			}
			if err := problems.orNil(); err != nil {
				return err
			}
			client := &http.Client{Timeout: 2 * aliveTime}
			resp, err := client.Get("http://" + conf.metrics + "/healthz")
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			if _, err := io.Copy(cmd.OutOrStdout(), resp.Body); err != nil {
				return err
			}
			if resp.StatusCode != http.StatusOK {
				return errors.New("not well")
			}
			return nil
		}),
	}
	cmd.Flags().StringVar(&conf.metrics, "metrics-listen", "", "`address` that serve has been given, such as 127.0.0.1:9180")
	return cmd
}
