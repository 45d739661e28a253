package main

import (
	"errors"
	"io"
	"net/http"

	"github.com/spf13/cobra"
)

// healthTimeout is how long /healthz may take to answer.
const healthTimeout = 2 * databaseTimeout

// healthcheckCommand checks a running serve, for containers that have no other program to do so.
func healthcheckCommand() *cobra.Command {
	var conf config
	cmd := &cobra.Command{
		Use:   "healthcheck",
		Short: "Check the health of a running serve",
		Long:  "Request /healthz at --metrics-listen, print the answer, and exit with status 0 if everything works.",
		Args:  cobra.NoArgs,
		RunE: action(func(cmd *cobra.Command, _ []string, problems *usageError) error {
			if conf.metrics == "" {
				problems.add("metrics-listen", "required: the address that serve listens at")
			}
			if err := problems.orNil(); err != nil {
				return err
			}
			client := &http.Client{Timeout: healthTimeout}
			resp, err := client.Get("http://" + conf.metrics + "/healthz")
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			if _, err := io.Copy(cmd.OutOrStdout(), resp.Body); err != nil {
				return err
			}
			if resp.StatusCode != http.StatusOK {
				return errors.New("unhealthy")
			}
			return nil
		}),
	}
	cmd.Flags().StringVar(&conf.metrics, "metrics-listen", "", "`address` that serve listens at, such as 127.0.0.1:9180")
	return cmd
}
