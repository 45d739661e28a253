package main

import (
	"os"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
)

func TestAvailableMemory(t *testing.T) {
	for name, tt := range map[string]struct {
		files map[string]string
		want  int64
	}{
		"no cgroups":     {nil, 0},
		"unit":           {map[string]string{"proc/self/cgroup": "0::/system.slice/webstatus.service\n", "sys/fs/cgroup/system.slice/webstatus.service/memory.max": "536870912\n"}, 512 << 20},
		"no limit":       {map[string]string{"proc/self/cgroup": "0::/system.slice/webstatus.service\n", "sys/fs/cgroup/system.slice/webstatus.service/memory.max": "max\n"}, 0},
		"around it":      {map[string]string{"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/memory.max": "1000\n", "sys/fs/cgroup/a/memory.max": "900\n"}, 900},
		"throttled":      {map[string]string{"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/memory.max": "max\n", "sys/fs/cgroup/a/memory.high": "800\n"}, 800},
		"container":      {map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "700\n"}, 700},
		"version 1":      {map[string]string{"proc/self/cgroup": "12:cpu,cpuacct:/x\n7:memory:/docker/1\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n", "sys/fs/cgroup/memory/docker/1/memory.limit_in_bytes": "600\n"}, 600},
		"version 1, all": {map[string]string{"proc/self/cgroup": "7:memory:/\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n", "proc/meminfo": "MemTotal:        1000 kB\nMemFree: 1 kB\n"}, 1000 << 10},
		"machine":        {map[string]string{"proc/self/cgroup": "0::/\n", "proc/meminfo": "MemTotal:        1000 kB\nMemFree: 1 kB\n"}, 1000 << 10},
	} {
		root := fstest.MapFS{}
		for path, content := range tt.files {
			root[path] = &fstest.MapFile{Data: []byte(content)}
		}
		if got := availableMemory(root); got != tt.want {
			t.Errorf("%s: %d, want %d", name, got, tt.want)
		}
	}
}

// A program that has started releases its own pages and goes on.
func TestUnmapProgram(t *testing.T) {
	resident := func() (kib int) {
		status, err := os.ReadFile("/proc/self/status")
		if err != nil {
			t.Skip("no /proc as on Linux")
		}
		_, after, _ := strings.Cut(string(status), "RssFile:")
		number, _, _ := strings.Cut(strings.TrimSpace(after), " ")
		if kib, err = strconv.Atoi(number); err != nil {
			t.Fatal(err)
		}
		return kib
	}
	before := resident()
	unmapProgram()
	if after := resident(); after > before/2 {
		t.Errorf("%d KiB of files resident, %d before", after, before)
	}
}

func TestParseSize(t *testing.T) {
	for given, want := range map[string]int64{"": 0, "400MiB": 400 << 20, "2GiB": 2 << 30, "1048576": 1 << 20, "512KiB": 512 << 10} {
		if got, err := parseSize(given); err != nil || got != want {
			t.Errorf("%q: %d %v, want %d", given, got, err, want)
		}
	}
	for _, given := range []string{"x", "-1", "400MB", "MiB", "0", "99999999999GiB", "1.5GiB"} {
		if got, err := parseSize(given); err == nil {
			t.Errorf("%q: %d", given, got)
		}
	}
}
