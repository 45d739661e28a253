package main

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// leastKills is how often a full run kills the service.
const leastKills = 500

// killed kills the service at random moments while people register, change their options, get new links, leave and change their presence.
func killed(t *torture) {
	r := newRig(t)
	c := newCrowd(r, 20)
	peak := 0.0
	kills := t.roundsAtLeast(leastKills, func(n int) {
		process := r.process
		acted := make(chan struct{})
		go func() { c.act(nil); close(acted) }()
		time.Sleep(t.upTo(300 * time.Millisecond))
		peak = max(peak, memory(t, process, "VmHWM"))
		process.end(t, syscall.SIGKILL)
		<-acted
		c.verify(r.path)
		r.start(t)
		if n%5 == 0 {
			c.wantPages(recoversWithin)
		}
	})
	c.wantPages(recoversWithin)
	t.Logf("%d kills during %d confirmed operations", kills, c.confirmed)
	t.limitMemory(max(peak, memory(t, r.process, "VmHWM")))
}

// powerLost records with strace what the service writes to the disk and to the XMPP server. Up to random moments it repeats the writes to the
// disk, except that those after the last fsync of a file are dropped or torn, as a disk may do when the power fails. Each result must be an
// intact database with everything that the server was told before that moment.
func powerLost(t *torture) {
	strace := need(t, "strace")
	r := newRig(t)
	r.freeze() // so that the files do not change before strace is there
	eventually(t, "the service is frozen", r.isFrozen)
	files := map[string]*tracedFile{r.path: {}, r.path + "-wal": {}}
	for path, f := range files {
		var err error
		if f.durable, err = os.ReadFile(path); err != nil {
			t.Fatal(err)
		}
	}
	trace := filepath.Join(t.TempDir(), "trace")
	tracer := start(t, exec.Command(strace, "-f", "-y", "-xx", "-s", "1000000", "-e", "trace=pwrite64,write,fsync,fdatasync,ftruncate", "-o", trace,
		"-p", strconv.Itoa(r.cmd.Process.Pid)))
	eventually(t, "strace is attached", func() bool {
		select {
		case <-tracer.done:
			missing(t, "strace does not work here: "+tracer.out.String())
		default:
		}
		return strings.Contains(tracer.out.String(), "attached")
	})
	r.thaw()
	c := newCrowd(r, 10)
	process := r.process
	acted := make(chan struct{})
	go func() { c.act(nil); close(acted) }()
	done := r.observe()
	time.Sleep(t.length / 4)
	done()
	t.wantMemory(process)
	process.end(t, syscall.SIGKILL)
	<-acted
	tracer.wait(t)
	events := readTrace(t, trace, slices.Collect(maps.Keys(files)))
	t.length -= t.length / 4
	images := t.rounds(func(int) {
		c.checkImage(files, events[:t.intN(len(events)+1)])
	})
	t.Logf("%d images from %d system calls during %d confirmed operations", images, len(events), c.confirmed)
}

// isFrozen reports whether all threads of the service are stopped.
func (r *rig) isFrozen() bool {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", r.cmd.Process.Pid))
	for _, thread := range threads {
		status, _ := os.ReadFile(thread) // empty if the thread has ended
		if !bytes.Contains(status, []byte("\nState:\tT")) {
			return false
		}
	}
	return err == nil && len(threads) > 0
}

// A tracedFile is a file on a disk that has a cache of its own.
type tracedFile struct {
	durable []byte      // up to the last fsync
	cached  []diskWrite // since then
}

// A diskWrite is a change of a file: bytes are written, or the file is cut off.
type diskWrite struct {
	offset int
	data   []byte // nil to cut the file off
}

// apply returns a file's content after the write.
func (w diskWrite) apply(content []byte) []byte {
	if w.data == nil {
		return content[:min(w.offset, len(content))]
	}
	if missing := w.offset + len(w.data) - len(content); missing > 0 {
		content = append(content, make([]byte, missing)...)
	}
	copy(content[w.offset:], w.data)
	return content
}

// A traceEvent is a system call that matters for what a disk holds, or for what the XMPP server was told.
type traceEvent struct {
	path  string
	write diskWrite
	sync  bool
	told  []string // ids of requests whose answer is written to the server
}

const sector = 512 // bytes that a disk writes completely or not at all

// checkImage checks the database that a disk may hold after some system calls, if the power fails then.
func (c *crowd) checkImage(files map[string]*tracedFile, events []traceEvent) {
	t := c.r.t
	disk := make(map[string]*tracedFile)
	for path, f := range files {
		disk[path] = &tracedFile{durable: bytes.Clone(f.durable)}
	}
	told := make(map[string]bool)
	for _, e := range events {
		for _, id := range e.told {
			told[id] = true
		}
		f := disk[e.path]
		switch {
		case f == nil:
		case e.sync:
			for _, w := range f.cached {
				f.durable = w.apply(f.durable)
			}
			f.cached = nil
		default:
			f.cached = append(f.cached, e.write)
		}
	}
	dir, err := os.MkdirTemp(t.TempDir(), "image")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	for path, f := range disk {
		for _, w := range f.cached {
			f.durable = t.tear(f.durable, w)
		}
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(path)), f.durable, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c.compare(usersIn(t, filepath.Join(dir, filepath.Base(c.r.path))), func(m *member) (confirmed account, pending *account) {
		for _, s := range m.steps {
			switch {
			case !told[s.id]:
				return confirmed, &s.after
			case !s.refused:
				confirmed = s.after
			}
		}
		return confirmed, nil
	})
}

// tear returns a file after a write that is done, dropped, or done for some sectors.
func (t *torture) tear(content []byte, w diskWrite) []byte {
	switch t.intN(3) {
	case 0:
		return content
	case 1:
		return w.apply(content)
	}
	for at := 0; at < len(w.data); at += sector {
		if t.intN(2) == 0 {
			content = diskWrite{w.offset + at, w.data[at:min(at+sector, len(w.data))]}.apply(content)
		}
	}
	return content
}

var (
	tracedCall = regexp.MustCompile(`^(\d+) +(\w+)\(\d+<([^>]*)>(?:, "([^"]*)")?(?:, (\d+))?(?:, (\d+))?(.*)`)
	resumed    = regexp.MustCompile(`^(\d+) +<\.\.\. f(?:data)?sync resumed>`)
	requestID  = regexp.MustCompile(`op-\d+\.`)
)

// readTrace returns the events in the output of strace. A write counts from its beginning, an fsync when it has returned.
func readTrace(t *torture, trace string, paths []string) (events []traceEvent) {
	f, err := os.Open(trace)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	syncing := make(map[string]string) // paths by thread
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		if done := resumed.FindStringSubmatch(lines.Text()); done != nil {
			events = append(events, traceEvent{path: syncing[done[1]], sync: true})
		}
		call := tracedCall.FindStringSubmatch(lines.Text())
		if call == nil {
			continue
		}
		path, data := unhex(t, call[3]), []byte(unhex(t, call[4]))
		length, _ := strconv.Atoi(call[5]) // empty for fsync
		offset, _ := strconv.Atoi(call[6]) // empty but for pwrite64
		isSync := call[2] == "fsync" || call[2] == "fdatasync"
		switch {
		case strings.HasPrefix(path, "socket:"):
			events = append(events, traceEvent{told: requestID.FindAllString(string(data), -1)})
		case !slices.Contains(paths, path):
		case isSync && strings.Contains(call[7], "unfinished"):
			syncing[call[1]] = path
		case isSync:
			events = append(events, traceEvent{path: path, sync: true})
		case call[2] == "ftruncate":
			events = append(events, traceEvent{path: path, write: diskWrite{offset: length}})
		default:
			if len(data) != length {
				t.Fatalf("%d of %d bytes in %s", len(data), length, fmt.Sprintf("%.200s", lines.Text()))
			}
			events = append(events, traceEvent{path: path, write: diskWrite{offset, data}})
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return events
}

// unhex returns a text that strace has written as hexadecimal escapes.
func unhex(t *torture, s string) string {
	text, err := hex.DecodeString(strings.ReplaceAll(s, `\x`, ""))
	if err != nil {
		t.Fatalf("%.100s: %v", s, err)
	}
	return string(text)
}
