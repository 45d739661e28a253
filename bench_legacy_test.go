package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// webpresenceConfig enables each server's own mod_webpresence for all accounts.
var webpresenceConfig = map[string]string{
	"prosody":  "VirtualHost \"localhost\"\n\tmodules_enabled = { \"webpresence\" }\n",
	"ejabberd": "append_host_config: {localhost: {modules: {mod_webpresence: {pixmaps_path: /usr/share/ejabberd-mod-webpresence/pixmaps}}}}\n",
}

// BenchmarkLegacy compares the legacy routes with the modules that they replace, in requests per second and in CPU time per request. Both
// show the same person. It needs wrk and the Debian packages prosody-modules and ejabberd-mod-webpresence.
func BenchmarkLegacy(b *testing.B) {
	wrk := need(b, "wrk")
	for _, route := range []struct{ server, format, module, ours string }{
		{"prosody", "html", "/status/user1@localhost/html", "/status/user1@localhost/html"},
		{"prosody", "json", "/status/user1@localhost/json", "/status/user1@localhost/json"},
		{"prosody", "image", "/status/user1@localhost/image", "/status/user1@localhost/image"},
		{"ejabberd", "xml", "/presence/jid/user1/localhost/xml", "/presence/jid/user1/localhost/xml"},
		{"ejabberd", "text", "/presence/jid/user1/localhost/text", "/presence/jid/user1/localhost/text"},
		{"ejabberd", "image", "/presence/jid/user1/localhost/image", "/presence/jid/user1/localhost/image"},
	} {
		b.Run(route.server+"."+route.format, func(b *testing.B) {
			s := newServer(b, route.server, webpresenceConfig[route.server])
			a := newAppliance(b, s.componentAddress())
			c := s.login(b, "user1", "desk")
			c.send(b, `<presence><show>away</show><status>lunch</status></presence>`)
			c.join(b, "show_status_msg=1", "show_full_jid=1", "show_resources=1")
			a.want(b, c.bare, shown{"away", "lunch", c.bare})
			var module, ours load
			for b.Loop() {
				module.run(b, wrk, s.process, "http://127.0.0.1:"+strconv.Itoa(s.web)+route.module)
				ours.run(b, wrk, a.process, a.url+route.ours)
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(module.requests/float64(b.N)/loadSeconds, "module/s")
			b.ReportMetric(ours.requests/float64(b.N)/loadSeconds, "ours/s")
			b.ReportMetric(ours.requests/module.requests, "ratio")
			b.ReportMetric((module.cpu/module.requests)/(ours.cpu/ours.requests), "cpu-ratio(>=2)")
		})
	}
}

// loadSeconds is the duration of one run of wrk.
const loadSeconds = 3

// A load counts the requests that a process has answered, and the CPU time, in clock ticks, that it took.
type load struct{ requests, cpu float64 }

var wrkRequests = regexp.MustCompile(`(\d+) requests in `)

func (l *load) run(b *testing.B, wrk string, p *process, url string) {
	before := cpuTicks(b, p)
	out, err := exec.Command(wrk, "-t", "1", "-c", "64", "-d", fmt.Sprintf("%ds", loadSeconds), url).CombinedOutput()
	found := wrkRequests.FindSubmatch(out)
	if err != nil || found == nil || strings.Contains(string(out), "Non-2xx") {
		b.Fatalf("wrk: %v\n%s", err, out)
	}
	requests, err := strconv.ParseFloat(string(found[1]), 64)
	if err != nil {
		b.Fatal(err)
	}
	l.requests += requests
	l.cpu += cpuTicks(b, p) - before
}

// cpuTicks returns the CPU time of a process in clock ticks: utime and stime in proc_pid_stat(5).
func cpuTicks(b *testing.B, p *process) float64 {
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(p.cmd.Process.Pid), "stat"))
	if err != nil {
		b.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(stat), ") ") // the name of the program may contain spaces
	var total float64
	for _, field := range strings.Fields(rest)[11:13] {
		ticks, err := strconv.ParseFloat(field, 64)
		if err != nil {
			b.Fatal(err)
		}
		total += ticks
	}
	return total
}
