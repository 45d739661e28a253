package main

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// BenchmarkGrowth measures how time and memory grow with the number of users, the rate of changes and the number of viewers. With
// -update, it writes plots to docs/performance-NAME.svg.
func BenchmarkGrowth(b *testing.B) {
	for _, g := range []struct {
		name, axis string
		sizes      []int
		measure    func(b *testing.B, size int) (x, y float64)
		x, y       string // units
	}{
		{"users", "users", []int{1e3, 1e4, 1e5, 1e6}, growUsers, "seconds until the first response", "MiB resident after 40 seconds"},
		{"changes", "presence changes per second", []int{1, 10, 100, 1000}, growChanges, "ms until a viewer's event (p99)", "% of a core"},
		{"viewers", "live streams of one person", []int{10, 100, 1000, openableStreams(b)}, growViewers, "ms until all have the event", "MiB resident"},
	} {
		b.Run(g.name, func(b *testing.B) {
			left, right := series{label: g.x}, series{label: g.y}
			for b.Loop() {
				left.points, right.points = nil, nil
				for _, size := range g.sizes {
					x, y := g.measure(b, size)
					left.points, right.points = append(left.points, point{float64(size), x}), append(right.points, point{float64(size), y})
					b.Logf("%d %s: %.4g %s, %.4g %s", size, g.axis, x, g.x, y, g.y)
				}
			}
			b.ReportMetric(0, "ns/op")
			if *update {
				if err := os.WriteFile("docs/performance-"+g.name+".svg", plot(g.axis, left, right), 0o644); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// growUsers starts the program with a number of users, a fifth of them online.
func growUsers(b *testing.B, users int) (seconds, mib float64) {
	p, serving := newManyUsers(b, filepath.Join(b.TempDir(), "webstatus.db"), users).start(b)
	defer p.end(b, syscall.SIGTERM)
	time.Sleep(40*time.Second - serving)
	return serving.Seconds(), memory(b, p, "VmRSS")
}

// growChanges changes the presence of people at a rate each second.
func growChanges(b *testing.B, rate int) (p99, cpu float64) {
	const length = 10 * time.Second
	took, cpu := changePresence(b, rate, length, func() {})
	_, p99 = latencies(took)
	return p99, cpu
}

// changePresence changes the presence of people at a rate each second, and calls next after each change. Each of the people has a viewer,
// and changes so rarely that no events are merged. It returns how long each viewer waited for the event, and the percentage of a core used.
func changePresence(b *testing.B, rate int, length time.Duration, next func()) (took []time.Duration, cpu float64) {
	s := newLoadedServer(b, max(200, 2*rate), exec.Command(buildProgram(b), "serve"))
	defer s.end(b, syscall.SIGTERM)
	var mu sync.Mutex
	began := make([]time.Time, len(s.people)) // of the last change of each person
	var clients []*webClient
	var viewers sync.WaitGroup
	for i := range s.people {
		c := s.viewer(b, i, i)
		if err := c.event(); err != nil { // the current status
			b.Fatal(err)
		}
		clients = append(clients, c)
		viewers.Go(func() {
			for c.event() == nil {
				mu.Lock()
				if !began[i].IsZero() {
					took = append(took, time.Since(began[i]))
				}
				mu.Unlock()
			}
		})
	}
	defer viewers.Wait()
	defer func() {
		for _, c := range clients {
			c.Close()
		}
	}()
	time.Sleep(eventPause) // or the first changes would wait for it
	ticks := cpuTicks(b, s.process)
	tick := time.NewTicker(time.Second / time.Duration(rate))
	defer tick.Stop()
	for n := range rate * int(length.Seconds()) {
		person := n % len(s.people)
		mu.Lock()
		began[person] = time.Now()
		mu.Unlock()
		if err := s.stream.send(`<presence from='%s/x' to='webstatus.example.org'><show>%s</show></presence>`, s.people[person].JID,
			[]string{"dnd", "xa"}[n/len(s.people)%2]); err != nil {
			b.Fatal(err)
		}
		next()
		<-tick.C
	}
	cpu = (cpuTicks(b, s.process) - ticks) / length.Seconds() // a hundred clock ticks are a second
	return                                                    // took is complete once the viewers have ended
}

// BenchmarkChanges changes the presence of 400 people, 200 times per second, and measures the time until a viewer has the event. The
// baseline is a round trip over a loopback connection after each change.
func BenchmarkChanges(b *testing.B) {
	const rate, length = 200, 10 * time.Second
	echo := newEcho(b)
	var took, trips []time.Duration
	for b.Loop() {
		changes, _ := changePresence(b, rate, length, func() {
			began := time.Now()
			if _, err := echo.Write([]byte{0}); err != nil {
				b.Fatal(err)
			}
			if _, err := echo.Read(make([]byte, 1)); err != nil {
				b.Fatal(err)
			}
			trips = append(trips, time.Since(began))
		})
		if len(changes) < rate*int(length.Seconds())*99/100 {
			b.Fatalf("viewers have %d events", len(changes))
		}
		took = append(took, changes...)
	}
	_, p99 := latencies(took)
	_, trip := latencies(trips)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(p99, "p99-ms(<=20)")
	b.ReportMetric(trip, "round-trip-p99-ms")
}

// newEcho returns a loopback connection that returns what is written to it.
func newEcho(b *testing.B) net.Conn {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { conn.Close() })
	other, err := l.Accept()
	if err != nil {
		b.Fatal(err)
	}
	go func() {
		defer other.Close()
		io.Copy(other, other) // until the connection is closed
	}()
	return conn
}

// growViewers opens streams of one person, and changes the person's presence.
func growViewers(b *testing.B, streams int) (all, mib float64) {
	s := newLoadedServer(b, 1, exec.Command(buildProgram(b), "serve"))
	defer s.end(b, syscall.SIGTERM)
	var viewers []*webClient
	for i := range streams {
		c := s.viewer(b, 0, i)
		defer c.Close()
		viewers = append(viewers, c)
	}
	wait := func() {
		for _, c := range viewers {
			if err := c.event(); err != nil {
				b.Fatal(err)
			}
		}
	}
	wait() // for the current status
	mib = memory(b, s.process, "VmRSS")
	var took []time.Duration
	for n := range 5 {
		time.Sleep(eventPause)
		began := time.Now()
		s.says(b, 0, []string{"dnd", "xa"}[n%2], n)
		wait()
		took = append(took, time.Since(began))
	}
	all, _ = latencies(took)
	return all, mib
}

// A series is a line of a plot.
type series struct {
	label  string
	points []point // positive
}

const (
	plotWidth, plotHeight = 380.0, 240.0 // of the part of a series, in pixels
	plotMargin            = 44.0
)

// plot draws series side by side as SVG, with logarithmic axes.
func plot(axis string, all ...series) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%g" height="%g" font-family="system-ui,sans-serif" font-size="12" fill="#44546e">`+"\n"+
		`<rect width="100%%" height="100%%" fill="#fff"/>`+"\n", plotWidth*float64(len(all)), plotHeight)
	for i, s := range all {
		fmt.Fprintf(&b, `<g transform="translate(%g)">`+"\n", plotWidth*float64(i))
		s.draw(&b, axis)
		b.WriteString("</g>\n")
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}

func (s *series) draw(b *bytes.Buffer, axis string) {
	x, y := newLogScale(s.points, func(p point) float64 { return p.x }), newLogScale(s.points, func(p point) float64 { return p.y })
	const left, right, top, bottom = plotMargin, plotWidth - plotMargin/2, plotMargin, plotHeight - plotMargin
	for exponent := x.low; exponent <= x.high; exponent++ {
		at := x.place(math.Pow10(exponent), left, right)
		fmt.Fprintf(b, `<path d="M%.1f %gV%g" stroke="#dde2ea"/><text x="%.1f" y="%g" text-anchor="middle">%s</text>`+"\n", at, top, bottom, at, bottom+16, plotNumber(math.Pow10(exponent)))
	}
	for exponent := y.low; exponent <= y.high; exponent++ {
		at := y.place(math.Pow10(exponent), bottom, top)
		fmt.Fprintf(b, `<path d="M%g %.1fH%g" stroke="#dde2ea"/><text x="%g" y="%.1f" text-anchor="end">%s</text>`+"\n", left, at, right, left-5, at+4, plotNumber(math.Pow10(exponent)))
	}
	fmt.Fprintf(b, `<text x="%g" y="20" font-weight="600" fill="#16233a">%s</text><text x="%g" y="%g" text-anchor="middle">%s</text>`+"\n",
		left, s.label, (left+right)/2, bottom+34, axis)
	var line strings.Builder
	for _, p := range s.points {
		px, py := x.place(p.x, left, right), y.place(p.y, bottom, top)
		fmt.Fprintf(&line, "%.1f,%.1f ", px, py)
		fmt.Fprintf(b, `<circle cx="%.1f" cy="%.1f" r="3.5" fill="#3565a8"/><text x="%.1f" y="%.1f" text-anchor="middle" fill="#16233a">%s</text>`+"\n", px, py, px, py-9, plotNumber(p.y))
	}
	fmt.Fprintf(b, `<polyline points="%s" fill="none" stroke="#3565a8" stroke-width="2"/>`+"\n", strings.TrimSpace(line.String()))
}

// A logScale is a range of powers of ten.
type logScale struct{ low, high int }

func newLogScale(points []point, of func(point) float64) logScale {
	var values []float64
	for _, p := range points {
		values = append(values, math.Log10(of(p)))
	}
	low, high := int(math.Floor(slices.Min(values))), int(math.Ceil(slices.Max(values)))
	return logScale{low, max(high, low+1)}
}

// place returns the position of a value between those of the ends of the scale.
func (l logScale) place(value, from, to float64) float64 {
	return from + (to-from)*(math.Log10(value)-float64(l.low))/float64(l.high-l.low)
}

// plotNumber formats a number with two digits, and as k or M from a thousand on.
func plotNumber(n float64) string {
	unit := ""
	switch {
	case n >= 1e6:
		n, unit = n/1e6, "M"
	case n >= 1e3:
		n, unit = n/1e3, "k"
	}
	if n >= 100 {
		return strconv.FormatFloat(n, 'f', 0, 64) + unit
	}
	return strconv.FormatFloat(n, 'g', 2, 64) + unit
}

// viewer opens a live stream of a person, as one of many clients.
func (s *loadedServer) viewer(b *testing.B, person, client int) *webClient {
	c, err := s.client(fmt.Sprintf("198.18.%d.%d", client>>8, client&255))
	if err != nil {
		b.Fatal(err)
	}
	if _, err := fmt.Fprintf(c, "GET %s/events HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: %s\r\n\r\n", s.path(person), c.from); err != nil {
		b.Fatal(err)
	}
	return c
}

// event waits for the next event of a live stream.
func (c *webClient) event() error {
	for {
		line, err := c.answers.ReadBytes('\n')
		if err != nil || bytes.HasPrefix(line, []byte("data: ")) {
			return err
		}
	}
}
