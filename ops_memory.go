package main

import (
	"io/fs"
	"os"
	"path"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
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

// releaseStartup gives memory back that startup needs and serving does not.
func releaseStartup() {
	debug.FreeOSMemory()
	limitGarbage()
	unmapProgram()
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

// unmapProgram unmaps the pages of the program itself, on Linux. Around each function that runs, Linux maps 64 KiB, and initialization
// runs functions in every part of the program, so most of it is resident afterwards. What is needed again is mapped again from the
// page cache, and the kernel can reclaim the rest. Mappings that the loader or a debugger has changed are left alone.
func unmapProgram() {
	program, _ := os.Executable()
	smaps, _ := os.ReadFile("/proc/self/smaps") // proc_pid_smaps(5)
	var low, high uint64                        // addresses of the current mapping if it may be unmapped
	for line := range strings.Lines(string(smaps)) {
		switch fields := strings.Fields(line); {
		case len(fields) >= 5: // low-high mode offset device inode path, or VmFlags at the end of a mapping
			low, high = 0, 0
			if len(fields) == 6 && fields[5] == program && !strings.Contains(fields[1], "w") {
				from, to, _ := strings.Cut(fields[0], "-")
				low, _ = strconv.ParseUint(from, 16, strconv.IntSize)
				high, _ = strconv.ParseUint(to, 16, strconv.IntSize)
			}
		case low < high && fields[0] == "Anonymous:" && fields[1] == "0":
			syscall.Syscall(syscall.SYS_MADVISE, uintptr(low), uintptr(high-low), syscall.MADV_DONTNEED)
		}
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
