package main

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

//go:embed templates
var embedded embed.FS

// embeddedTemplates are the files of the folder templates.
var embeddedTemplates = func() fs.FS {
	files, err := fs.Sub(embedded, "templates")
	if err != nil {
		panic(err) // the folder is part of the program
	}
	return files
}()

// An overlay has files of a directory in place of embedded ones of the same name.
type overlay struct{ over, under fs.FS }

func (o overlay) Open(name string) (fs.File, error) {
	if info, err := fs.Stat(o.under, name); err != nil || info.IsDir() {
		return o.under.Open(name) // which says what there is
	}
	f, err := o.over.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return o.under.Open(name)
	}
	return f, err
}

// templateFiles returns the embedded templates, with those of a directory in their place. A file that takes the place of none is
// an error, since it is likely to be a slip.
func templateFiles(dir string) (fs.FS, error) {
	if dir == "" {
		return embeddedTemplates, nil
	}
	over := os.DirFS(dir)
	err := fs.WalkDir(over, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("%s cannot be read: %w", filepath.Join(dir, name), err)
		}
		if _, err := fs.Stat(embeddedTemplates, name); err != nil {
			return fmt.Errorf("%s is no template's name: `webstatus templates export` writes all that there are", filepath.Join(dir, name))
		}
		return nil
	})
	return overlay{over, embeddedTemplates}, err
}
