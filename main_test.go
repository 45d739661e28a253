package main

import (
	"errors"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain puts a webstatus on PATH, for the scripts in testdata/script and for the tests against real servers.
func TestMain(m *testing.M) {
	http.DefaultClient.Timeout = 5 * patience // a response or an event that never comes fails its test
	if os.Getenv(raceOptions) == "" {
		os.Setenv(raceOptions, "atexit_sleep_ms=50") // instead of a second for each program that the tests start; cannot fail
	}
	testscript.Main(postgresStopper{m}, map[string]func(){"webstatus": main})
}

// raceOptions is the environment variable with the options of the race detector.
const raceOptions = "GORACE"

// TestScripts runs the binary as an operator does.
func TestScripts(t *testing.T) {
	t.Parallel()
	setup := func(e *testscript.Env) error {
		e.Setenv(raceOptions, os.Getenv(raceOptions))
		return nil
	}
	testscript.Run(t, testscript.Params{Dir: "testdata/script", Setup: setup, Condition: isInstalled, Cmds: map[string]func(*testscript.TestScript, bool, []string){
		"waitfile": waitFile,
		"occupy":   occupy,
		"postgres": createPostgres,
	}})
}

// waitFile waits until a file exists.
func waitFile(ts *testscript.TestScript, _ bool, args []string) {
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(ts.MkAbs(args[0])); err == nil {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("%s does not exist", args[0])
		}
	}
}

// occupy listens on a port and sets $OCCUPIED to its address.
func occupy(ts *testscript.TestScript, _ bool, _ []string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Defer(func() { l.Close() })
	ts.Setenv("OCCUPIED", l.Addr().String())
}

// isInstalled is a condition of the scripts: [postgres] holds if PostgreSQL is installed, or must be.
func isInstalled(condition string) (bool, error) {
	if condition != "postgres" {
		return false, errors.New("there is no such condition")
	}
	return postgresProgram("postgres") != "" || os.Getenv("WEBSTATUS_E2E") == "require", nil
}

// createPostgres creates a PostgreSQL database and sets $POSTGRES to its URL.
func createPostgres(ts *testscript.TestScript, _ bool, _ []string) {
	p, err := sharedPostgres()
	ts.Check(err)
	location, err := p.createDatabase()
	ts.Check(err)
	ts.Setenv("POSTGRES", location)
}

// TestReadOnlyDatabase runs webstatus as a user without write access to the database.
func TestReadOnlyDatabase(t *testing.T) {
	dir, err := os.MkdirTemp("", "webstatus-test-") // accessible to other users, unlike t.TempDir
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Chmod(dir, 0o700); os.RemoveAll(dir) })
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	binary, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	program, path := filepath.Join(dir, "webstatus"), filepath.Join(dir, "w.db")
	db, err := openDatabase(t.Context(), path, true)
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{db.Close(), os.WriteFile(program, binary, 0o755), os.Chmod(path, 0o444), os.Chmod(dir, 0o555)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{path, filepath.Join(dir, "new.db")} {
		cmd := exec.Command(program, "serve", "--domain", "webstatus.example.org", "--listen", "127.0.0.1:0", "--db", name)
		cmd.Env = append(os.Environ(), "WEBSTATUS_SECRET=s3cret")
		cmd.Dir = "/"
		if os.Getuid() == 0 { // root can write everything
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		}
		out, _ := cmd.CombinedOutput() // the exit status is checked below
		if cmd.ProcessState.ExitCode() != 1 || !strings.Contains(string(out), "give the user that runs webstatus") || !strings.Contains(string(out), name) {
			t.Errorf("%s: %v\n%s", name, cmd.ProcessState, out)
		}
	}
}
