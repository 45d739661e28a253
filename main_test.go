package main

import (
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain puts a webstatus on PATH, for the scripts in testdata/script and for the tests against real servers.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"webstatus": main})
}

// TestScripts runs the binary as an operator does.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata/script"})
}
