package main

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

//go:embed templates
var embedded embed.FS

// embeddedTemplates holds the files of the folder templates.
var embeddedTemplates = func() fs.FS {
	files, err := fs.Sub(embedded, "templates")
	if err != nil {
		panic(err) // the folder is part of the program
	}
	return files
}()

// An overlay is a file system in which the files of a directory replace embedded ones of the same name, and add languages.
type overlay struct{ over, under fs.FS }

// Open opens the file of the directory if there is one, else the embedded file.
func (o overlay) Open(name string) (fs.File, error) {
	if info, err := fs.Stat(o.under, name); err == nil && info.IsDir() {
		return o.under.Open(name)
	}
	f, err := o.over.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return o.under.Open(name)
	}
	return f, err
}

// ReadDir lists the files of both.
func (o overlay) ReadDir(name string) ([]fs.DirEntry, error) {
	entries, err := fs.ReadDir(o.under, name)
	if err != nil {
		return nil, err
	}
	added, err := fs.ReadDir(o.over, name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, a := range added {
		if !slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.Name() == a.Name() }) {
			entries = append(entries, a)
		}
	}
	return entries, nil
}

// templateFiles returns the embedded templates, overlaid with the files of a directory. A file that replaces none is an error,
// since it is likely to be a typo, unless it is a language in the folder lang.
func templateFiles(dir string) (fs.FS, error) {
	if dir == "" {
		return embeddedTemplates, nil
	}
	over := os.DirFS(dir)
	err := fs.WalkDir(over, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("%s cannot be read: %w", filepath.Join(dir, name), err)
		}
		if path.Dir(name) == "lang" && strings.HasSuffix(name, ".json") {
			return nil
		}
		if _, err := fs.Stat(embeddedTemplates, name); err != nil {
			return fmt.Errorf("%s is not the name of a template: `webstatus templates export` writes all of them", filepath.Join(dir, name))
		}
		return nil
	})
	return overlay{over, embeddedTemplates}, err
}
