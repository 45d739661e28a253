package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

// loadRenderer makes a renderer of the embedded templates and those of a directory.
func loadRenderer(domain, dir string) (*renderer, error) {
	files, err := templateFiles(dir)
	if err != nil {
		return nil, err
	}
	r, err := newRenderer(domain, files)
	if err == nil && dir != "" { // the embedded ones have been tested
		err = r.check()
	}
	if err != nil && dir != "" {
		return nil, fmt.Errorf("a template cannot be used: correct it in %s, or remove it there (%w)", dir, err)
	}
	return r, err
}

// reload reads the templates again at each SIGHUP, until ctx is done. Where something is wrong with them, the ones before stay.
func (w *website) reload(ctx context.Context, domain string) {
	hangUps := make(chan os.Signal, 1)
	signal.Notify(hangUps, syscall.SIGHUP)
	defer signal.Stop(hangUps)
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangUps:
		}
		r, err := loadRenderer(domain, w.templates)
		if err != nil {
			w.log.Error("the templates have not been read again", "cause", err)
			continue
		}
		w.use(r)
		w.log.Info("the templates have been read again")
	}
}
