package main

import (
	"io/fs"
	"os"
	"path"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
)

// memoryShare is the share of the available memory that the Go runtime may use. The rest is for the program itself and the kernel.
const memoryShare = 0.9

// limitMemory sets the soft limit of the Go runtime, in bytes: near it, garbage is collected more often. 0 stands for GOMEMLIMIT, or
// else for most of the available memory.
func limitMemory(limit int64) {
	if limit == 0 && os.Getenv("GOMEMLIMIT") == "" {
		limit = int64(memoryShare * float64(availableMemory(os.DirFS("/"))))
	}
	if limit > 0 {
		debug.SetMemoryLimit(limit)
	}
}

// garbage is the size that garbage may grow to before it is collected, in bytes, if that is less than the live heap.
const garbage = 64 << 20

// limitGarbage lets garbage take up less than as much as the live heap, if that is large and GOGC does not say otherwise: the users that are
// held in memory stay, so a heap of twice their size would be wasted. Below a quarter, collecting would take too much time.
func limitGarbage() {
	var m runtime.MemStats
	if runtime.ReadMemStats(&m); os.Getenv("GOGC") == "" && m.HeapAlloc > garbage {
		debug.SetGCPercent(max(25, int(100*garbage/m.HeapAlloc)))
	}
}

// availableMemory returns the lowest memory limit of the cgroup that this process is in, and of those around it (cgroups(7)), or else
// the machine's memory, in bytes; 0 if it is unknown, as on other systems than Linux.
func availableMemory(root fs.FS) (lowest int64) {
	info, _ := fs.ReadFile(root, "proc/meminfo")
	if _, total, ok := strings.Cut(string(info), "MemTotal:"); ok {
		kib, _, _ := strings.Cut(strings.TrimSpace(total), " ")
		lowest, _ = strconv.ParseInt(kib, 10, 53)
		lowest <<= 10
	}
	groups, _ := fs.ReadFile(root, "proc/self/cgroup")
	for line := range strings.Lines(string(groups)) {
		_, line, _ = strings.Cut(strings.TrimSpace(line), ":")
		controllers, group, _ := strings.Cut(line, ":")
		mount := "sys/fs/cgroup"
		if controllers == "memory" { // version 1
			mount += "/memory"
		} else if controllers != "" {
			continue
		}
		for {
			for _, name := range []string{"memory.max", "memory.high", "memory.limit_in_bytes"} {
				content, _ := fs.ReadFile(root, path.Join(mount, group, name))
				n, err := strconv.ParseInt(strings.TrimSpace(string(content)), 10, 64) // fails for "max"
				if err == nil && n > 0 && (lowest == 0 || n < lowest) {
					lowest = n
				}
			}
			if group == "/" || group == "." || group == "" {
				break
			}
			group = path.Dir(group)
		}
	}
	return lowest
}
