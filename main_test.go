package main

import (
	"net"
	"os"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain puts a webstatus on PATH, for the scripts in testdata/script and for the tests against real servers.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"webstatus": main})
}

// TestScripts runs the binary as an operator does.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata/script", Cmds: map[string]func(*testscript.TestScript, bool, []string){
		"waitfile": waitFile,
		"occupy":   occupy,
	}})
}

// waitFile waits until a file is there.
func waitFile(ts *testscript.TestScript, _ bool, args []string) {
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(ts.MkAbs(args[0])); err == nil {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("%s is still not there", args[0])
		}
	}
}

// occupy listens at a port and puts its address into $OCCUPIED.
func occupy(ts *testscript.TestScript, _ bool, _ []string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Defer(func() { l.Close() })
	ts.Setenv("OCCUPIED", l.Addr().String())
}
