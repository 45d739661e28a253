package main

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

var (
	tortureTime = flag.Duration("torture", 0, "run the full torture test for this long; 0 for the short form, which asserts nothing about time and memory")
	tortureSeed = flag.Uint64("seed", 0, "seed of the torture test; 0 for a random one")
)

// A scenario is a crash, a disk or network fault, or an attack on a running service.
type scenario struct {
	name   string
	share  time.Duration    // of a full run of fullTorture
	inject func(t *torture) // for t.length, and then checks that nothing is lost
}

// scenarios is the list of everything that the torture test does. docs/reliability.md describes it.
var scenarios = []scenario{
	{"killed", 130 * time.Second, killed},
	{"power lost", 60 * time.Second, powerLost},
	{"disk fails", 130 * time.Second, diskFails},
	{"migration killed", 20 * time.Second, migrationKilled},
	{"link fails", 60 * time.Second, linkFails},
	{"server fails", 170 * time.Second, serverFails},
	{"hostile stanzas", 110 * time.Second, hostileStanzas},
	{"hostile servers", 30 * time.Second, hostileServers},
	{"web attacks", 75 * time.Second, webAttacks},
	{"clock jumps", 5 * time.Second, clockJumps},
	{"endurance", 60 * time.Second, endurance},
	{"hostile stanzas at Prosody", 90 * time.Second, hostileStanzasAtProsody},
	{"cluster fails", 0, clusterFails}, // as long as its number of faults takes
}

const (
	fullTorture  = 15 * time.Minute
	shortTorture = time.Second / 2 // for each scenario, which does everything at least once
)

// Limits of a full run.
const (
	visibleWithin  = time.Second     // a bystander's change, during every attack
	recoversWithin = 5 * time.Second // every page, after a link is back
	watchdogPeriod = 4 * time.Second // as WatchdogSec= in a unit; a longer pause ends the service
	mostMemory     = 200             // MiB
)

// TestTorture runs one scenario after the other in a full run, and in the short form all at once, together with other slow tests. The seed determines what is done, but not
// how it interleaves with the service.
func TestTorture(t *testing.T) {
	seed := *tortureSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	full := *tortureTime > 0
	part := tortureTime.Seconds() / fullTorture.Seconds()
	t.Logf("seed %d", seed)
	if full {
		t.Setenv("PATH", filepath.Dir(buildProgram(t))+string(os.PathListSeparator)+os.Getenv("PATH")) // without the race detector
		t.Setenv("WEBSTATUS_E2E", "require")
	} else {
		t.Parallel()
	}
	for i, s := range scenarios {
		t.Run(s.name, func(t *testing.T) {
			length := shortTorture
			if full {
				length = time.Duration(part * float64(s.share))
			} else {
				t.Parallel()
			}
			s.inject(&torture{T: t, full: full, part: part, length: length, random: rand.New(rand.NewPCG(seed, uint64(i)))})
		})
	}
}

// A torture is the test of one scenario.
type torture struct {
	*testing.T
	full   bool    // time and memory are limited, and nothing may be left out
	part   float64 // of a run of fullTorture; 0 in the short form
	length time.Duration

	mu     sync.Mutex
	random *rand.Rand
}

// intN returns a random number below n. It may be called concurrently.
func (t *torture) intN(n int) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.random.IntN(n)
}

// pick returns a random one of several values.
func pick[T any](t *torture, values ...T) T { return values[t.intN(len(values))] }

// upTo returns a random duration.
func (t *torture) upTo(d time.Duration) time.Duration { return time.Duration(t.intN(int(d))) }

// rounds calls round again and again until the time is up, at least once, and returns how often.
func (t *torture) rounds(round func(n int)) (n int) { return t.roundsAtLeast(1, round) }

// roundsAtLeast is like rounds, but a run of fullTorture has at least so many rounds, even if they take longer.
func (t *torture) roundsAtLeast(least int, round func(n int)) (n int) {
	least = int(float64(least) * t.part)
	for until := time.Now().Add(t.length); n == 0 || (n < least || time.Now().Before(until)) && !t.Failed(); n++ {
		round(n)
	}
	return n
}

// impossible notes that a fault is not possible on this machine, which fails a full run.
func (t *torture) impossible(why string) {
	t.Helper()
	if t.full {
		t.Fatal(why)
	}
	t.Log(why)
}

// within waits until a condition holds. In a full run, it must hold in time.
func (t *torture) within(limit time.Duration, what string, condition func() bool) {
	t.Helper()
	began := time.Now()
	eventually(t, what, condition)
	t.limit(what, time.Since(began), limit)
}

// limit fails a full run in which something took too long.
func (t *torture) limit(what string, took, limit time.Duration) {
	t.Helper()
	if t.full && took > limit {
		t.Errorf("%s took %v, more than %v", what, took.Round(time.Millisecond), limit)
	}
}

// A rig is the service between a realm and web clients. Systemd's watchdog watches it.
type rig struct {
	*appliance
	t        *torture
	realm    *realm
	path     string // of the database
	metrics  string // address of /metrics and /healthz
	watchdog *watchdog
}

// newRig starts a service, with more of its environment, and registers a bystander.
func newRig(t *torture, more ...string) *rig {
	t.Helper()
	realm := newRealm(t)
	return newRigAt(t, realm, realm.address(), more...)
}

// newRigAt is like newRig with a realm at an address.
func newRigAt(t *torture, realm *realm, address string, more ...string) *rig {
	t.Helper()
	r := &rig{t: t, realm: realm, path: filepath.Join(t.TempDir(), "webstatus.db"), metrics: "127.0.0.1:" + strconv.Itoa(freePort(t))}
	r.watchdog = newWatchdog(t)
	r.appliance = newAppliance(t, address, slices.Concat([]string{"WEBSTATUS_DB=" + r.path, "WEBSTATUS_METRICS_LISTEN=" + r.metrics}, r.watchdog.env(), more)...)
	for _, setting := range more {
		if path, ok := strings.CutPrefix(setting, "WEBSTATUS_DB="); ok {
			r.path = path
		}
	}
	t.Cleanup(func() {
		for _, private := range []string{testSecret, "number ", "change "} { // the secret and status messages
			if strings.Contains(r.out.String(), private) {
				t.Errorf("the log contains %q", private)
			}
		}
	})
	r.realm.says(bystander, Available, "")
	if answer, err := r.realm.request(bystander, "set", `<query xmlns='jabber:iq:register'><show_status_msg>1</show_status_msg></query>`); err != nil || answer.typ != "result" {
		t.Fatalf("the bystander is not registered: %v %v", answer, err)
	}
	return r
}

// bystander is somebody whom nothing that is done to others may disturb.
const bystander = "bystander@localhost"

// shows reports whether a page shows a state and, unless it is empty, a message.
func (r *rig) shows(address string, state State, message string) bool {
	code, body := r.get(r.t, statusPath+address+".json")
	return code == 200 && strings.Contains(body, `"state":"`+string(state)+`"`) && !strings.Contains(body, `"as_of"`) &&
		(message == "" || strings.Contains(body, `"message":"`+message+`"`))
}

// observe watches the service while something is done to it. The result ends that and checks the limits.
func (r *rig) observe() (done func()) {
	r.t.Helper()
	return r.t.observe(r.watchdog, func(message string) { r.realm.says(bystander, Away, message) },
		func(message string) bool { return r.shows(encodeJID(bystander), Away, message) })
}

// observe changes the message of a bystander again and again until it is shown, while a watchdog wants its pings. The result ends that and
// checks the limits.
func (t *torture) observe(w *watchdog, change func(message string), isShown func(message string) bool) (done func()) {
	t.Helper()
	stop, stopped := make(chan struct{}), make(chan struct{})
	w.restart()
	var slowest time.Duration
	changes := 0
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			case <-time.After(50 * time.Millisecond):
			}
			began := time.Now()
			message := fmt.Sprintf("change %d.", changes)
			change(message)
			for !isShown(message) {
				if time.Since(began) > patience {
					t.Errorf("the bystander's change is not shown")
					return
				}
				time.Sleep(2 * time.Millisecond)
			}
			slowest = max(slowest, time.Since(began))
			changes++
		}
	}()
	return func() {
		t.Helper()
		close(stop)
		<-stopped
		t.limit("showing a bystander's change", slowest, visibleWithin)
		pause := t.wantPings(w)
		t.Logf("%d changes of the bystander, the slowest shown after %v; watchdog pinged every %v or faster", changes, slowest.Round(time.Millisecond), pause.Round(time.Millisecond))
	}
}

// wantPings checks the pauses between the pings of a watchdog, and returns the longest.
func (t *torture) wantPings(w *watchdog) (longest time.Duration) {
	t.Helper()
	longest = w.longestPause()
	t.limit("the pause between two pings of the watchdog", longest, watchdogPeriod)
	return longest
}

// wantMemory checks the most memory that a process has had.
func (t *torture) wantMemory(p *process) {
	t.Helper()
	t.limitMemory(memory(t, p, "VmHWM"))
}

// limitMemory checks a peak of memory in MiB.
func (t *torture) limitMemory(peak float64) {
	t.Helper()
	t.Logf("memory peak %.0f MiB", peak)
	if t.full && peak > mostMemory {
		t.Errorf("%.0f MiB of memory, more than %d", peak, mostMemory)
	}
}

// A watchdog receives the notifications of a service, as systemd does.
type watchdog struct {
	socket string

	mu      sync.Mutex
	last    time.Time
	longest time.Duration // between two pings
}

func newWatchdog(t testing.TB) *watchdog {
	t.Helper()
	dir, err := os.MkdirTemp("", "ws") // the path of a socket is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	w := &watchdog{socket: filepath.Join(dir, "notify")}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: w.socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	go func() {
		buffer := make([]byte, 4096)
		for {
			n, err := conn.Read(buffer)
			if err != nil {
				return
			}
			if string(buffer[:n]) == "WATCHDOG=1" {
				w.ping()
			}
		}
	}()
	return w
}

// env returns the environment in which a service sends its notifications to the watchdog.
func (w *watchdog) env() []string {
	return []string{"NOTIFY_SOCKET=" + w.socket, fmt.Sprintf("WATCHDOG_USEC=%d", watchdogPeriod.Microseconds())}
}

func (w *watchdog) ping() {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	w.longest = max(w.longest, now.Sub(w.last))
	w.last = now
}

// restart forgets all pings.
func (w *watchdog) restart() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.last, w.longest = time.Now(), 0
}

// longestPause returns the longest time between two pings since restart.
func (w *watchdog) longestPause() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return max(w.longest, time.Since(w.last))
}
