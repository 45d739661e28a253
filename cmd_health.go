package main

import (
	"context"
	"errors"
	"io"
	"net/http"

	"github.com/spf13/cobra"
)

// healthTimeout limits a request for /healthz, which itself waits up to databaseTimeout for the database.
const healthTimeout = 2 * databaseTimeout

func healthcheckCommand() *cobra.Command {
	var conf config
	cmd := &cobra.Command{
		Use:   "healthcheck",
		Short: "Check the health of a running serve",
		Long:  "Request /healthz at --metrics-listen and print the response. The exit status is 0 if everything works, and 1 otherwise.",
		Args:  cobra.NoArgs,
		RunE: action(func(cmd *cobra.Command, _ []string, problems *usageError) error {
			if conf.metrics == "" {
				problems.add("metrics-listen", "required: the address that serve listens on")
			}
			if err := problems.orNil(); err != nil {
				return err
			}
			return healthcheck(cmd.Context(), conf, cmd.OutOrStdout())
		}),
	}
	cmd.Flags().StringVar(&conf.metrics, "metrics-listen", "", "`address` at which serve listens for metrics, such as 127.0.0.1:9180")
	return cmd
}

// healthcheck copies the response of /healthz to out. It returns an error unless the status is 200 OK.
func healthcheck(ctx context.Context, conf config, out io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+conf.metrics+"/healthz", nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(out, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return errors.New("unhealthy")
	}
	return nil
}
