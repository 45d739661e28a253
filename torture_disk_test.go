package main

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A diskFault is something that happens to the disk or the file of the database.
type diskFault struct {
	name    string
	begin   func(r *rig) (end func()) // nil if that is not possible here
	problem string                    // part of what /healthz and the log say of the database; empty if they need not say anything
}

var diskFaults = []diskFault{
	{"read-only", injectError("pwrite64:error=EROFS"), "is on a read-only file system"},
	{"no room", injectError("pwrite64:error=ENOSPC"), "cannot grow: free space"},
	{"quota", injectError("pwrite64:error=EDQUOT"), "cannot grow: the disk quota"},
	{"broken", injectError("pwrite64:error=EIO"), "disk I/O error"},
	{"slow", injectError("fsync,fdatasync:delay_enter=300000"), ""}, // microseconds
	{"full", fillDisk, "cannot grow: free space"},
	{"file deleted", moveAway("", false), "was deleted or replaced"},
	{"file replaced", moveAway("", true), "was deleted or replaced"},
	{"log deleted", moveAway("-wal", false), "was deleted or replaced"},
	{"log replaced", moveAway("-wal", true), "was deleted or replaced"},
	{"index deleted", moveAway("-shm", false), "was deleted or replaced"},
	{"locked", holdLock, "is locked"},
}

// diskFails breaks the disk in one way after the other while people change what is stored. Nobody else may notice, /healthz must name the
// problem, and everything works again when it is over.
func diskFails(t *torture) {
	locked := min(time.Minute, t.length/2)
	t.length -= locked
	dir := mountDisk(t)
	r := newRig(t, "WEBSTATUS_DB="+filepath.Join(dir, "webstatus.db"))
	c := newCrowd(r, 20)
	c.actFor(t.length / 20)
	c.verify(r.path)
	order := t.random.Perm(len(diskFaults))
	t.rounds(func(n int) {
		f := diskFaults[order[n%len(order)]]
		logged := r.countLog("level=ERROR", f.problem)
		end := f.begin(r)
		if end == nil {
			return
		}
		done := r.observe()
		stop, acted := make(chan struct{}), make(chan struct{})
		go func() { c.act(stop); close(acted) }()
		time.Sleep(t.length/20 + t.upTo(t.length/20))
		if f.problem != "" {
			eventually(t, "health and the log name the problem: "+f.name, func() bool {
				r.canChange()
				return strings.Contains(r.health().Database.Problem, f.problem) && r.countLog("level=ERROR", f.problem) > logged
			})
		}
		done()
		close(stop)
		end()
		<-acted
		t.within(recoversWithin, "changes are stored after the fault is over: "+f.name, r.canChange)
		t.within(recoversWithin, "all is well after the fault is over: "+f.name, func() bool { return r.health().OK })
		c.verify(r.path)
		c.wantPages(recoversWithin)
	})
	t.Logf("%d operations confirmed, %d refused", c.confirmed, c.refused)
	r.lockFor(locked)
}

// lockFor locks the database for a time, in which it blocks only changes, and ends the service meanwhile, while web clients neither send a
// request nor read responses.
func (r *rig) lockFor(d time.Duration) {
	t := r.t
	release := lock(t.T, r.path)
	done := r.observe()
	time.Sleep(d)
	r.realm.request(bystander, "get", `<ping xmlns='urn:xmpp:ping'/>`)
	done() // the page and the data agree only while nothing changes
	if page, err := r.look(t, jidPath(bystander)); err != nil {
		t.Errorf("%+v %v", page, err)
	}
	unread := r.connect()
	defer unread.Close()
	stuck := make(chan struct{})
	go func() { // sends requests until the responses fill the buffers of the connection, so that nothing more is read
		defer close(stuck)
		for {
			unread.SetWriteDeadline(time.Now().Add(time.Second))
			if _, err := io.WriteString(unread, strings.Repeat("GET /webstatus.js HTTP/1.1\r\nHost: localhost\r\n\r\n", 100)); err != nil {
				return
			}
		}
	}()
	<-stuck
	defer r.connect().Close() // has sent nothing yet
	t.wantMemory(r.process)
	began := time.Now()
	r.end(t, syscall.SIGTERM)
	t.Logf("SIGTERM ended the service after %v", time.Since(began).Round(time.Millisecond))
	t.limit("SIGTERM while the database is locked", time.Since(began), 10*time.Second)
	release()
	r.start(t)
	t.within(recoversWithin, "changes are stored after the lock", r.canChange)
}

// connect returns a new connection to the web server.
func (r *rig) connect() net.Conn {
	conn, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
	if err != nil {
		r.t.Fatal(err)
	}
	return conn
}

// canChange reports whether the service confirms a change.
func (r *rig) canChange() bool {
	a, err := r.realm.request(bystander, "set", `<query xmlns='jabber:iq:register'><show_full_jid>`+strconv.Itoa(r.t.intN(2))+`</show_full_jid></query>`)
	return err == nil && a.typ == "result"
}

// health returns what /healthz says.
func (r *rig) health() (h health) {
	_, body := fetch(r.t, "http://"+r.metrics+"/healthz")
	if err := json.Unmarshal([]byte(body), &h); err != nil {
		r.t.Errorf("%s: %v", body, err)
	}
	return h
}

// injectError returns a fault that strace injects into the system calls of the service.
func injectError(injection string) func(r *rig) func() {
	return func(r *rig) func() {
		calls, _, _ := strings.Cut(injection, ":")
		tracer := start(r.t, exec.Command(need(r.t, "strace"), "-f", "-o", os.DevNull, "-e", "trace="+calls, "-e", "inject="+injection, "-p", strconv.Itoa(r.cmd.Process.Pid)))
		works := true
		eventually(r.t, "strace is attached", func() bool {
			select {
			case <-tracer.done:
				works = false
			default:
			}
			return !works || strings.Contains(tracer.out.String(), "attached")
		})
		if !works {
			r.t.impossible("strace does not work here: " + tracer.out.String())
			return nil
		}
		return func() { tracer.end(r.t, syscall.SIGTERM) }
	}
}

// diskSize is the size of a disk that is filled.
const diskSize = 16 << 20

// mountDisk returns a directory, on a small disk of its own if that is possible.
func mountDisk(t *torture) string {
	dir := t.TempDir()
	if err := exec.Command("mount", "-t", "tmpfs", "-o", "size="+strconv.Itoa(diskSize), "tmpfs", dir).Run(); err == nil {
		t.Cleanup(func() { exec.Command("umount", "-l", dir).Run() }) // best effort
	}
	return dir
}

// fillDisk leaves no room on the disk, not even in the write-ahead log.
func fillDisk(r *rig) func() {
	dir := filepath.Dir(r.path)
	var disk syscall.Statfs_t
	if err := syscall.Statfs(dir, &disk); err != nil || disk.Blocks*uint64(disk.Bsize) > diskSize {
		r.t.impossible("only root can mount a disk to fill")
		return nil
	}
	db, _, err := inspectDatabase(r.t.Context(), r.path, false)
	if err != nil {
		r.t.Fatal(err)
	}
	defer db.Close()
	eventually(r.t, "the log is empty", func() bool {
		busy := true
		err := db.sql.QueryRow("PRAGMA wal_checkpoint(TRUNCATE)").Scan(&busy, new(int), new(int))
		return err == nil && !busy
	})
	filler, err := os.Create(filepath.Join(dir, "filler"))
	if err != nil {
		r.t.Fatal(err)
	}
	for size := 1 << 16; size > 0; {
		if _, err := filler.Write(make([]byte, size)); err != nil {
			size /= 2
		}
	}
	return func() {
		if err := errors.Join(filler.Close(), os.Remove(filler.Name())); err != nil {
			r.t.Fatal(err)
		}
	}
}

// moveAway returns a fault that moves the database file, or one beside it, away, and may put a copy in its place.
func moveAway(suffix string, replace bool) func(r *rig) func() {
	return func(r *rig) func() {
		file, away := r.path+suffix, r.path+".away"
		if err := os.Rename(file, away); err != nil {
			r.t.Fatal(err)
		}
		if replace {
			content, err := os.ReadFile(away)
			if err := errors.Join(err, os.WriteFile(file, content, 0o600)); err != nil {
				r.t.Fatal(err)
			}
		}
		return func() {
			if err := os.Rename(away, file); err != nil {
				r.t.Fatal(err)
			}
		}
	}
}

func holdLock(r *rig) func() { return lock(r.t.T, r.path) }

// migrationKilled kills the migration of a database again and again, and then lets it finish.
func migrationKilled(t *torture) {
	people := 1000
	if t.full {
		people = 20000
	}
	first, err := os.ReadFile("testdata/schema1.sql")
	if err != nil {
		t.Fatal(err)
	}
	old := filepath.Join(t.TempDir(), "old.db")
	db, _, err := inspectDatabase(t.Context(), old, true)
	if err != nil {
		t.Fatal(err)
	}
	_, err = db.sql.Exec(string(first) + `; DELETE FROM users; WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ` + strconv.Itoa(people) + `)
		INSERT INTO users SELECT 'user' || i || '@example.org', randomblob(16), 1, 0, 1, 'both', 0, i FROM n`)
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	kills := 0
	n := t.rounds(func(int) {
		dir, err := os.MkdirTemp(t.TempDir(), "migrate")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		path := filepath.Join(dir, "webstatus.db")
		copyFile(t, old, path)
		for range 1 + t.intN(4) {
			p := start(t, exec.Command("webstatus", "migrate", "--db", path))
			time.Sleep(t.upTo(150 * time.Millisecond))
			p.end(t, syscall.SIGKILL)
			kills++
		}
		if out, err := exec.Command("webstatus", "migrate", "--db", path).CombinedOutput(); err != nil {
			t.Fatalf("%v %s", err, out)
		}
		if users := usersIn(t, path); len(users) != people {
			t.Errorf("%d users", len(users))
		}
		saved, version, err := inspectDatabase(t.Context(), path+".schema1", false)
		if err != nil || version != 1 {
			t.Fatalf("the backup has schema %d: %v", version, err)
		}
		saved.Close()
	})
	t.Logf("%d kills during %d migrations", kills, n)
}

// copyFile copies a file.
func copyFile(t *torture, from, to string) {
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
}
