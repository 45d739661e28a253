package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

// loadRenderer returns a renderer with the embedded templates and those of a directory that replace them.
func loadRenderer(domain, dir string) (*renderer, error) {
	files, err := templateFiles(dir)
	if err != nil {
		return nil, err
	}
	r, err := newRenderer(domain, files)
	if err == nil && dir != "" { // tests check the embedded ones
		err = r.check()
	}
	if err != nil && dir != "" {
		return nil, fmt.Errorf("invalid template: correct it in %s, or remove it (%w)", dir, err)
	}
	return r, err
}

// reload reloads the templates at each SIGHUP until ctx is done. Templates with an error are reported and not used.
func (w *website) reload(ctx context.Context) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGHUP)
	defer signal.Stop(signals)
	for {
		select {
		case <-ctx.Done():
			return
		case <-signals:
		}
		r, err := loadRenderer(w.domain, w.templates)
		if err != nil {
			w.log.Error("cannot reload the templates", "cause", err)
			continue
		}
		w.use(r)
		w.log.Info("templates reloaded")
	}
}
