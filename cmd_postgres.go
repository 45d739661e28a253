package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	postgresStartTime = time.Minute // for a server to accept connections
	uidNobody         = 65534       // the user and group who runs PostgreSQL for root, as whom it refuses to run
)

// errNoPostgres is returned if PostgreSQL is not installed.
var errNoPostgres = errors.New("PostgreSQL is not installed: install its server (Debian: apt install postgresql)")

// A postgresServer is a temporary PostgreSQL server on a free port of this machine, with its files in a temporary directory.
type postgresServer struct {
	dir      string
	password string
	port     int
	durable  bool // its data survives a crash of the machine
	cmd      *exec.Cmd
	done     chan struct{} // closed when the server has ended
}

// postgresProgram returns the path of a program of PostgreSQL, which many systems do not put on PATH; empty if it is not installed.
func postgresProgram(name string) string {
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	for _, dir := range []string{"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql*/bin", "/usr/local/opt/postgresql*/bin"} {
		if found, _ := filepath.Glob(filepath.Join(dir, name)); len(found) > 0 {
			return slices.Max(found)
		}
	}
	return ""
}

// postgresCommand returns a command that runs as nobody if this process runs as root, and that a Ctrl-C in the terminal does not reach.
func postgresCommand(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, postgresProgram(name), args...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if os.Getuid() == 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uidNobody, Gid: uidNobody}
	}
	return cmd
}

// newPostgresServer creates the files of a server and starts it. The error is errNoPostgres if it is not installed.
func newPostgresServer(ctx context.Context, password string) (*postgresServer, error) {
	if postgresProgram("initdb") == "" || postgresProgram("postgres") == "" {
		return nil, errNoPostgres
	}
	dir, err := os.MkdirTemp("", "webstatus-postgres-")
	if err != nil {
		return nil, err
	}
	p := &postgresServer{dir: dir, password: password, port: unusedPort()}
	err = p.create(ctx)
	if err == nil {
		err = p.start(ctx)
	}
	if err != nil {
		p.remove()
		return nil, err
	}
	return p, nil
}

// create creates the files of the server.
func (p *postgresServer) create(ctx context.Context) error {
	data, password := filepath.Join(p.dir, "data"), filepath.Join(p.dir, "password")
	if err := errors.Join(os.WriteFile(password, []byte(p.password), 0o600), os.Mkdir(data, 0o700)); err != nil {
		return err
	}
	if os.Getuid() == 0 {
		if err := errors.Join(os.Chown(p.dir, uidNobody, uidNobody), os.Chown(data, uidNobody, uidNobody), os.Chown(password, uidNobody, uidNobody)); err != nil {
			return err
		}
	}
	initdb := postgresCommand(ctx, "initdb", "-D", data, "-U", "webstatus", "-A", "scram-sha-256", "--pwfile", password, "-E", "UTF8", "--locale=C", "--no-sync")
	if out, err := initdb.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, out)
	}
	return os.Remove(password)
}

// start starts the server and waits until it accepts connections. The processes of one that was killed may take a while to end.
func (p *postgresServer) start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, postgresStartTime)
	defer cancel()
	for {
		said, err := p.tryStart(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil || !strings.Contains(said, "is still in use") {
			return fmt.Errorf("PostgreSQL did not start: %w\n%s", err, said)
		}
	}
}

// tryStart starts the server once. If it fails, it returns the log.
func (p *postgresServer) tryStart(ctx context.Context) (said string, err error) {
	data := filepath.Join(p.dir, "data")
	log, err := os.Create(filepath.Join(p.dir, "log"))
	if err != nil {
		return "", err
	}
	defer log.Close()
	cmd, done := postgresCommand(context.Background(), "postgres", "-D", data, "-p", strconv.Itoa(p.port), "-k", data, "-h", "127.0.0.1",
		"-c", fmt.Sprintf("fsync=%t", p.durable), "-c", "max_connections=300"), make(chan struct{})
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return "", err
	}
	p.cmd, p.done = cmd, done
	go func() {
		cmd.Wait()
		close(done)
	}()
	for {
		conn, err := pgx.Connect(ctx, p.url("postgres"))
		if err == nil {
			return "", conn.Close(ctx)
		}
		select {
		case <-done:
		case <-ctx.Done():
		case <-time.After(10 * time.Millisecond):
			continue
		}
		said, _ := os.ReadFile(log.Name()) // best effort
		return string(said), err
	}
}

// end ends the server with a signal, SIGINT for an orderly shutdown, and waits for it.
func (p *postgresServer) end(s syscall.Signal) {
	p.cmd.Process.Signal(s) // fails only if it has ended
	<-p.done
}

// remove ends the server, if it runs, and removes its files.
func (p *postgresServer) remove() {
	if p.cmd != nil {
		p.end(syscall.SIGINT)
	}
	os.RemoveAll(p.dir) // best effort
}

// url returns the URL of a database, which contains the password.
func (p *postgresServer) url(database string) string {
	u := url.URL{Scheme: "postgres", User: url.UserPassword("webstatus", p.password), Host: fmt.Sprintf("127.0.0.1:%d", p.port), Path: database}
	return u.String()
}

// unusedPort returns a port on which nothing listens. It is below those that systems give to outgoing connections, so that a program
// can use it again after a restart. It returns 0 if no port was found.
func unusedPort() int {
	for range 100 {
		port := 10000 + rand.IntN(20000)
		if l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port)); err == nil {
			l.Close()
			return port
		}
	}
	return 0
}
